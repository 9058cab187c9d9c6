"""What is measured on the uniform sample of rows: formats, tokens, languages, answer positions, and rows to look at."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np
from scipy.special import chdtrc

from posttrain_crew.tools.data.formats import Format, detect_format, normalise_row
from posttrain_crew.tools.data.measuring import TokenCounter
from posttrain_crew.tools.data.profile.content import row_text
from posttrain_crew.tools.data.profile.model import Language, PositionBias, TokenLengths, wilson
from posttrain_crew.tools.data.profile.pii import mask
from posttrain_crew.tools.data.reader import RawRow

__all__ = ["answer_positions", "formats", "languages", "shown", "tokens"]

LANGUAGE_ROWS = 2000
LANGUAGE_CHARS = 600
MINIMUM_LETTERS = 20
"""A text with fewer letters has no language that could be told."""
CONFIDENCE = 0.6
"""Below this probability a text counts as `und`: a wrong language is worse than none."""
MAX_LANGUAGES = 12
SHOWN_ROWS = 3
SHOWN_CHARS = 300
SHOWN_COLUMNS = 30
_LETTERS = re.compile(r"[^\W\d_]")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]")
"""Would act on the terminal, or turn text around, instead of being shown."""


def formats(rows: Sequence[RawRow]) -> tuple[Format, dict[str, int]]:
    """The format of most rows, and rows per format."""
    votes: Counter[str] = Counter(detect_format([row]) for row in rows)
    return detect_format(rows), dict(votes.most_common())


def tokens(rows: Sequence[RawRow], counter: TokenCounter) -> TokenLengths | None:
    """Tokens of whole rows."""
    if not rows:
        return None
    counts = np.array(counter.lengths([row_text(row) for row in rows]).counts)
    context = counter.context
    return TokenLengths(
        sample=len(rows),
        exact=counter.exact,
        mean=float(counts.mean()),
        median=int(np.quantile(counts, 0.5, method="inverted_cdf")),
        p95=int(np.quantile(counts, 0.95, method="inverted_cdf")),
        maximum=int(counts.max()),
        context=context,
        over_context_rate=float((counts > context).mean()) if context else None,
    )


def languages(rows: Sequence[RawRow]) -> tuple[list[Language], int]:
    """Shares of languages, and the rows that they are of."""
    identifier = _identifier()
    found: Counter[str] = Counter()
    chosen = rows[:LANGUAGE_ROWS]
    for row in chosen:
        text = row_text(row)[:LANGUAGE_CHARS]
        if len(_LETTERS.findall(text)) < MINIMUM_LETTERS and text.isascii():
            found["und"] += 1
            continue
        code, probability = identifier.classify(text)
        found[str(code) if probability >= CONFIDENCE else "und"] += 1
    n = len(chosen)
    shares = []
    for code, count in found.most_common(MAX_LANGUAGES):
        low, high = wilson(count / n, n)
        shares.append(Language(code=code, share=count / n, low=low, high=high))
    return shares, n


def answer_positions(rows: Sequence[RawRow], kind: Format) -> PositionBias | None:
    """Chi-squared test that the right choice is equally often at each place; None without labelled choices."""
    labelled = [
        (len(example.choices), example.answer)
        for example in (normalise_row(row, kind) for row in rows)
        if example is not None and example.choices and example.answer is not None
    ]
    if not labelled:
        return None
    width = Counter(count for count, _ in labelled).most_common(1)[0][0]
    found = Counter(answer for count, answer in labelled if count == width)
    positions = {label: found[label] for label in "ABCDEFGHIJ"[:width]}
    n = sum(positions.values())
    expected = n / width
    statistic = sum((count - expected) ** 2 / expected for count in positions.values())
    return PositionBias(
        n=n,
        choices=width,
        positions=positions,
        chi_square_p=float(chdtrc(width - 1, statistic)),
        cramers_v=min(1.0, (statistic / (n * (width - 1))) ** 0.5),
    )


def shown(rows: Sequence[RawRow], may_show: Callable[[RawRow], bool] | None = None) -> list[dict[str, str]]:
    """A few rows for a reader: cut, with possible personal data, secrets and control characters replaced."""
    allowed = rows if may_show is None else filter(may_show, rows)
    return [
        {
            mask(_plain(name))[:80]: mask(_plain(part if isinstance(part, str) else _as_json(part)))[:SHOWN_CHARS]
            for name, part in list(row.items())[:SHOWN_COLUMNS]
        }
        for row in islice(allowed, SHOWN_ROWS)
    ]


@lru_cache(maxsize=1)
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # type: ignore[import-untyped]  # 0.5 s, 100 MiB

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def _as_json(value: object) -> str:
    # the first lists and texts are enough for what is shown, and dates and decimals of parquet become text
    return json.dumps(value, ensure_ascii=False, default=str)


def _plain(text: str) -> str:
    return _CONTROLS.sub("\ufffd", text[: 20 * SHOWN_CHARS])
