"""What a stretch of a paper is about, told from its words and numbers: settings of a training, or measurements.

Headings are not looked at: what one paper calls "Experiments", another calls "Does it work?" and a third puts in an
appendix.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["experiment_weight", "method_weight"]

_SETTINGS = re.compile(
    r"learning[- ]rate|\blr\b|batch(?: size)?\b|epochs?\b|warm-?\s?up|weight decay|AdamW?\b|optimi[sz]er|cosine"
    r"|schedule|gradient (?:accumulation|clipping|norm)|max(?:imum|\.)? (?:\w+ )?(?:length|tokens)|LoRA|\brank\b"
    r"|group size|rollouts?\b|completions per|samples per|temperature|\bKL\b|\\beta\b|\\epsilon|clip|GPUs?\b"
    r"|[AH]\d00|DeepSpeed|bf16",
    re.IGNORECASE,
)
_DOING = re.compile(
    r"\bwe (?:\w+ )?(?:train|fine-?tune|tune|use|start|initiali[sz]e|run|adapt|attach|sample|begin)\b"
    r"|\b(?:is|are|was|were) (?:\w+ )?(?:trained|fine-?tuned|tuned|initiali[sz]ed|optimi[sz]ed)\b",
    re.IGNORECASE,
)
_MEASURES = re.compile(
    r"accura|pass@|avg@|exact match|win[- ]rate|\bscores?\b|\bF1\b|benchmark|baseline|outperform"
    r"|percent(?:age)? points?|\bpoints\b|seeds?\b|standard (?:error|deviation)|confidence|\\pm|±|evaluat"
    r"|test (?:set|split|question)"
    r"|GSM8K|MATH|MMLU|ARC-|GPQA|AIME|IFEval|HumanEval|MT-Bench",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"\d")


def method_weight(text: str, tables: int) -> float:
    """0 for text without settings; a sentence or table row with a setting and its number adds about 1."""
    hits = [match for match in _SETTINGS.finditer(text) if _NUMBER.search(text[match.end() : match.end() + 40])]
    distinct = len({match[0].lower() for match in hits})
    if not distinct:
        return 0.5 * min(len(_DOING.findall(text)), 2)
    return distinct + 0.25 * len(hits) + min(len(_DOING.findall(text)), 4) + min(tables, 1)


def experiment_weight(prose: str, tables: Sequence[str]) -> float:
    """0 for text without measurements; a table of them weighs more than any sentence."""
    weight = float(
        sum(bool(_NUMBER.search(prose[match.end() : match.end() + 60])) for match in _MEASURES.finditer(prose))
    )
    for table in tables:
        numbers = sum(1 for cell in table.split("|") if _NUMBER.search(cell) and len(cell) < 40)
        measures, settings = len(_MEASURES.findall(table)), len({word.lower() for word in _SETTINGS.findall(table)})
        if measures > settings or (measures and settings <= 2):
            weight += 4 + min(numbers, 40) / 10
    return weight
