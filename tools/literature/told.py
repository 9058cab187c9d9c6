"""What an agent is told of papers: few fields, short texts, and never more than one tool result may hold."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from posttrain_crew.blackboard import Entry
from posttrain_crew.entries import PaperRead
from posttrain_crew.tools.literature.services.base import PaperRecord
from posttrain_crew.tools.literature.services.graph import Reached
from posttrain_crew.tools.literature.shelf import bare
from posttrain_crew.tools.tool import MAX_RESULT_CHARS

__all__ = ["dataset_names", "fitting", "hit_of", "one_finding", "reached_of"]

_LINE_CHARS = 300


def fitting(answer: dict[str, Any], name: str) -> dict[str, Any]:
    """The answer with as much of one list as an agent may see, and with how much was left out."""
    rows = list(answer[name])
    while rows and len(json.dumps({**answer, name: rows}, ensure_ascii=False)) > MAX_RESULT_CHARS - 100:
        rows.pop()
    left_out = len(answer[name]) - len(rows)
    return answer | {name: rows} | ({"left_out": left_out} if left_out else {})


def hit_of(record: PaperRecord) -> dict[str, Any]:
    """A paper that a search found."""
    return {
        "arxiv_id": bare(record.ids.key),
        "title": record.title,
        "year": record.year,
        "citations": record.citation_count,
        "finding": one_finding(record.summary or record.abstract),
        "sources": list(record.sources),
    }


def reached_of(one: Reached) -> dict[str, Any]:
    """A paper that a walk reached, with the way and the sentence of its last citation."""
    step = one.path[-1]
    return {
        "arxiv_id": bare(one.paper.ids.key),
        "title": one.paper.title,
        "year": one.paper.year,
        "citations": one.paper.citation_count,
        "path": [bare(one.path[0].start), *(bare(each.end) for each in one.path)],
        "intents": list(step.intents),
        "influential": step.influential,
        "context": one_finding(step.context),
        "score": round(one.score, 4),
    }


def one_finding(text: str) -> str:
    """A finding at a length that a list of papers can carry."""
    return text if len(text) <= _LINE_CHARS else text[: _LINE_CHARS - 1] + "…"


def dataset_names(arxiv_ids: Sequence[str], read: Iterable[Entry[PaperRead]]) -> list[str]:
    """What the papers themselves name first, then what the papers that they led to do."""
    entries = list(read)
    own = [name for entry in entries if entry.body.arxiv_id in arxiv_ids for name in entry.body.datasets]
    led_to = [name for entry in entries if set(entry.body.via) & set(arxiv_ids) for name in entry.body.datasets]
    return list(dict.fromkeys([*own, *led_to]))
