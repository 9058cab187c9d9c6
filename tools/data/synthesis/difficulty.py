"""How hard a row is for the student: the share of its own samples that are right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from posttrain_crew.files import canonical_json
from posttrain_crew.target import Target
from posttrain_crew.tools.data.synthesis.answers import AnswerRule
from posttrain_crew.tools.data.synthesis.base import Sampler, SyntheticRow
from posttrain_crew.tools.data.synthesis.plan import Difficulty

__all__ = ["rated", "within"]

SEED_SHIFT = 2_000_003
"""So that the student's samples are not those that a row may have been kept from."""


def rated(
    rows: Sequence[SyntheticRow], student: Sampler, how: Difficulty, target: Target, seed: int
) -> list[SyntheticRow]:
    """The rows with their pass rates; None where a row has no answer to check, or the student could not be asked.

    Each prompt is asked once, however many rows have it.
    """
    prompts = {canonical_json(row.prompt): row.prompt for row in rows if row.answer is not None}
    texts = student.sample(
        list(prompts.values()),
        n=how.samples,
        temperature=how.temperature,
        max_tokens=how.max_tokens,
        seed=seed + SEED_SHIFT,
    )
    said = dict(zip(prompts, texts, strict=True))
    rule = AnswerRule(target.answer)

    def rate(row: SyntheticRow) -> float | None:
        replies = said.get(canonical_json(row.prompt), [])
        if row.answer is None or not replies:
            return None
        return sum(rule.is_right(text, row.answer, lenient=how.lenient) for text in replies) / len(replies)

    return [row.model_copy(update={"pass_rate": rate(row)}) for row in rows]


def within(rows: Sequence[SyntheticRow], how: Difficulty) -> tuple[list[SyntheticRow], dict[str, int]]:
    """Rows whose pass rate lies strictly between the bounds, and counts of the others.

    Rows without an answer stay, as `unrated`: they cannot be measured. Rows whose student gave nothing are dropped.
    """
    counts: Counter[str] = Counter()
    kept: list[SyntheticRow] = []
    for row in rows:
        if row.pass_rate is None:
            counts["unrated" if row.answer is None else "not_sampled"] += 1
            stays = row.answer is None
        else:
            stays = how.low < row.pass_rate < how.high
            counts["within" if stays else "too_hard" if row.pass_rate <= how.low else "too_easy"] += 1
        if stays:
            kept.append(row)
    return kept, dict(counts)
