"""On what the paper trained, from sentences on training: not those on evaluation, generation, or all costs."""

from __future__ import annotations

import re
from collections.abc import Sequence

from posttrain_crew.tools.literature.extraction.labels import models_told
from posttrain_crew.tools.literature.extraction.mentions import MachineRead, machine
from posttrain_crew.tools.literature.extraction.patterns import read_prose
from posttrain_crew.tools.literature.extraction.recipe import Evidence, Stated
from posttrain_crew.tools.literature.extraction.scope import Said, is_own_section
from posttrain_crew.tools.literature.reading.document import Document

__all__ = ["machines_of", "only_gpu"]

_RUNS = re.compile(
    r"\btrain|fine-?tun|\btun(?:ed|ing)\b|\bruns?\b|\bran\b|\btook\b|\btakes?\b|\bneed(?:s|ed)?\b|\bstages?\b"
    r"|\bper seed\b|\boccup"
    r"|finish|\boptimi|\bprocedure|\bfits?\b|\bmade (?:with|on)\b|\brounds?\b|\bupdates?\b|\badapt",
    re.IGNORECASE,
)
_PLACE = re.compile(
    r"train|hardware|infrastructure|implementation|fine-?tun|optimi|stage|settings|recipe|hyper", re.IGNORECASE
)
_NEVER = re.compile(
    r"\bdonat|\bthank|\bborrow|ablat|baseline|variants?\b|\bwould\b|\bcould\b|\bcannot\b|\bnot fit\b|\bannotat"
    r"|\bjudg|\bteacher"
    r"|reward model|\bfailed\b|\bincluding\b|\bbudget\b|\bgrant|\beverything in\b|all experiments|in (?:total"
    r"|all)\b|altogether|\bdeploy"
    r"|\bserv(?:e|ed|es|ing|er)\b|\bevaluat|\bbenchmark",
    re.IGNORECASE,
)
_OTHER_WORK = re.compile(
    r"\bgenerat(?:e|ed|ing|ion)\b|\binference\b|\bvLLM\b|\bsampl(?:ed|ing)\b|\bpre-?train|\bfilter|\bdecod"
    r"|\bscor(?:ed|ing)\b|\bembed",
    re.IGNORECASE,
)
_TRAINS = re.compile(r"(?<!pre-)(?<!pre)\btrain|fine-?tun|\bper seed\b|\boptimi[sz]", re.IGNORECASE)
_PART = re.compile(r"[;,] (?:and |while |whereas |but )?|\bwhile\b|\band (?=the \d)")
_FOREIGN_PLACE = re.compile(r"acknowledg|thank|ethic|impact|evaluat|generat|annotat|related", re.IGNORECASE)


def machines_of(one: Said, models: Sequence[str]) -> list[tuple[str, MachineRead]]:
    """The machines of a sentence with the text that tells each: several where each part names one model.

    Args:
        models: the models that may be told apart.
    """
    whole = _machine_of(one)
    if whole is None:
        return []
    if len(models) > 1:
        parts = [part for part in _PART.split(one.plain) if part]
        told = [models_told(part, models) for part in parts]
        reads = [machine(part) or _time_of(part) for part in parts]
        both = [
            (part, read)
            for part, keys, read in zip(parts, told, reads, strict=True)
            if keys is not None and len(keys) == 1 and read
        ]
        if len(both) > 1:
            return both
    return [(one.plain, whole)]


def _time_of(part: str) -> MachineRead | None:
    return machine(f"{part} (run)")  # hours alone count where something ran


def _machine_of(one: Said) -> MachineRead | None:
    """GPU, number and hours that a sentence on the paper's own training tells, or None."""
    read = machine(one.plain)
    if read is None or _FOREIGN_PLACE.search(one.section.title) or _FOREIGN_PLACE.search(one.head):
        return None
    # what all experiments cost is no machine of one run; "32 GPUs in total" is
    told = re.sub(r"(?:GPUs?|cards?|devices?),? in (?:total|all)\b", "", one.plain)
    if _NEVER.search(told) or (_OTHER_WORK.search(told) and not _TRAINS.search(told)):
        return None
    if not (_RUNS.search(told) or read_prose(one.plain) or _PLACE.search(one.section.title) or _PLACE.search(one.head)):
        return None
    return read


def only_gpu(document: Document, sentences: Sequence[Said]) -> Stated | None:
    """The GPU of a paper that names a single one: what "8 GPUs" are elsewhere in it."""
    named: dict[str, Said] = {}
    for one in sentences:
        if not one.cited and is_own_section(document, one.section) and (read := machine(one.plain)) and read.gpu:
            named.setdefault(read.gpu, one)
    if len(named) != 1:
        return None
    gpu, one = next(iter(named.items()))
    return Stated(value=gpu, evidence=Evidence(section=one.section.id, kind="sentence", text=one.raw[:4000]))
