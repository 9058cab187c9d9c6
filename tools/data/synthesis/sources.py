"""Questions of a dataset that synthesis may build on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from posttrain_crew.target import Target
from posttrain_crew.tools.data.contamination import ContaminationIndex
from posttrain_crew.tools.data.formats import Example
from posttrain_crew.tools.data.rendering import label_of
from posttrain_crew.tools.data.synthesis.base import Source
from posttrain_crew.tools.data.synthesis.rows import content_sha256

__all__ = ["usable_sources"]


def usable_sources(
    examples: Iterable[Example | None], name: str, target: Target, index: ContaminationIndex
) -> tuple[list[Source], dict[str, int]]:
    """Questions of a dataset that may be built on, and counts of the others.

    Contaminated questions go before anything is sampled: rows made from them would only be dropped later, and paid for.
    """
    read = [(number, example) for number, example in enumerate(examples) if example is not None]
    contaminated = set(index.check([example for _, example in read]).rows)
    counts: Counter[str] = Counter(read=len(read))
    seen: set[str] = set()
    sources: list[Source] = []
    for place, (number, example) in enumerate(read):
        key = content_sha256(example)
        if place in contaminated:
            counts["contaminated"] += 1
        elif label_of(example, target.answer) is None:
            counts["without_answer"] += 1
        elif key in seen:
            counts["repeated"] += 1
        else:
            seen.add(key)
            sources.append(Source(example, f"{name}#{number}"))
    counts["used"] = len(sources)
    return sources, dict(counts)
