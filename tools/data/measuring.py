"""Numbers about a whole dataset: its domain, its lengths, the positions of its answers."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scipy.special import chdtrc

from posttrain_crew.errors import ModelError
from posttrain_crew.target import Target
from posttrain_crew.tools.data.formats import Example
from posttrain_crew.tools.data.text import content_words
from posttrain_crew.tools.sources import benchmark_items

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["Lengths", "TokenCounter", "Vocabulary", "position_p_value"]

CHARACTERS_PER_TOKEN = 4.0
"""Guess where there is no tokenizer to ask."""
CHUNK = 512


class Vocabulary:
    """The content words of a target's dev questions, as one distribution: no item can be told from it."""

    def __init__(self, target: Target) -> None:
        self._shares = _shares(item.question for item in benchmark_items(target, "dev"))
        self._known = self._shares.keys() | content_words(" ".join([target.description, *target.domains]))

    def match(self, questions: Iterable[str]) -> tuple[float, float]:
        """(Bhattacharyya coefficient of the two word distributions, share of the questions' words that are known).

        The first is the cosine of the square roots of the word frequencies, 0 (no word in common) to 1 (the same).
        """
        shares = _shares(questions)
        affinity = sum(math.sqrt(share * self._shares.get(word, 0.0)) for word, share in shares.items())
        return min(1.0, affinity), sum(share for word, share in shares.items() if word in self._known)


@dataclass(frozen=True)
class Lengths:
    """Tokens per row."""

    counts: tuple[int, ...]

    @property
    def mean(self) -> float:
        return sum(self.counts) / len(self.counts) if self.counts else 0.0

    @property
    def maximum(self) -> int:
        return max(self.counts, default=0)


class TokenCounter:
    """Counts tokens with the base model's tokenizer, without importing torch or transformers.

    Args:
        base_model: model folder with tokenizer.json; None guesses four characters a token.

    Raises:
        ModelError: its tokenizer.json cannot be read.
    """

    def __init__(self, base_model: Path | None) -> None:
        self._tokenizer: Tokenizer | None = None
        self.context: int | None = None
        if base_model is None:
            return
        from tokenizers import Tokenizer  # 0.1 s

        try:
            # a folder with another kind of tokenizer (sentencepiece) is still a model; lengths are then guessed
            if (base_model / "tokenizer.json").is_file():
                self._tokenizer = Tokenizer.from_str((base_model / "tokenizer.json").read_text(encoding="utf-8"))
            config = json.loads((base_model / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelError(f"the base model folder {base_model} cannot be read: {error}.") from error
        limit = config.get("max_position_embeddings") if isinstance(config, dict) else None
        self.context = int(limit) if isinstance(limit, int) else None

    @property
    def exact(self) -> bool:
        """Whether a tokenizer counts, and no guess."""
        return self._tokenizer is not None

    def lengths(self, texts: Sequence[str]) -> Lengths:
        """Tokens of each text, without special tokens."""
        if self._tokenizer is None:
            return Lengths(tuple(math.ceil(len(text) / CHARACTERS_PER_TOKEN) for text in texts))
        counts: list[int] = []
        for start in range(0, len(texts), CHUNK):
            encoded = self._tokenizer.encode_batch(list(texts[start : start + CHUNK]), add_special_tokens=False)
            counts += [len(each.ids) for each in encoded]
        return Lengths(tuple(counts))


def position_p_value(examples: Iterable[Example]) -> tuple[float, float]:
    """(p-value of the chi-squared test that every label is equally frequent, share of the most frequent label).

    Over the rows with the most common number of choices; (1, 0) where there are none.
    """
    labelled = [(len(e.choices), e.answer) for e in examples if e.choices and e.answer is not None]
    if not labelled:
        return 1.0, 0.0
    width = Counter(count for count, _ in labelled).most_common(1)[0][0]
    found = Counter(answer for count, answer in labelled if count == width)
    total = sum(found.values())
    expected = total / width
    observed = [*found.values(), *[0] * (width - len(found))]
    statistic = sum((count - expected) ** 2 / expected for count in observed)
    return float(chdtrc(width - 1, statistic)), max(found.values()) / total


def _shares(questions: Iterable[str]) -> dict[str, float]:
    counts: Counter[str] = Counter()
    for question in questions:
        counts.update(content_words(question))
    total = sum(counts.values())
    return {word: count / total for word, count in counts.items()}
