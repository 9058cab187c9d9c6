"""Which model a paper trained: not its teacher, judge, reward model or rival, and by its full name.

Each mention counts for or against a name by the words that stand nearest before it in its clause; rows such as
`Initial checkpoint` and the names in a table of settings count most.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from posttrain_crew.tools.literature.extraction.labels import model_of
from posttrain_crew.tools.literature.extraction.mentions import hub_ids, is_model, model_key, models_in
from posttrain_crew.tools.literature.extraction.recipe import Evidence, Stated
from posttrain_crew.tools.literature.extraction.scope import Said, is_comparison, is_own_section
from posttrain_crew.tools.literature.extraction.tables import is_settings_table, read_settings
from posttrain_crew.tools.literature.reading.document import Document, Section, Table
from posttrain_crew.tools.literature.reading.plain import plain

__all__ = ["TRAINS", "base_models", "model_stated", "trained_models"]

TRAINS = re.compile(
    r"\bstart|\binitiali[sz]|fine-?tun|\badapt|\btun(?:e|ed|ing)\b|\btrain|base model|\bpolicy\b|\bbegin"
    r"|backbone|restrict|\bstudent\b"
    r"|\bModel\b|\bstages? on\b|\battach",
    re.IGNORECASE,
)
_MADE_FROM = re.compile(
    r"\b(?:(?:run|ran|use[sd]?|using|perform\w*|with) (?:\w+ ){0,3}?(?:GRPO|SFT|DPO|PPO|RL|LoRA|QLoRA|KTO"
    r"|ORPO) (?:on|with|to|for)|start\w*|initiali[sz]\w*|begin\w*|began|built|based|post-?train\w*"
    r"|fine-?tun\w*|adapt(?:s|ed|ing)?"
    r"|tun(?:e|ed|ing)"
    r"|train(?:s|ed|ing)?|appl(?:y|ied|ying)|continue\w*|backbones?|policy|student|learner|base(?: model)?"
    r"|checkpoint|attach\w*)\b",
    re.IGNORECASE,
)
_ROLE = re.compile(
    r"\b(?:generat\w+|sampl\w+|grad(?:ed|es|ing)|scor\w+|annotat\w+|label\w*|translat\w+|rewr\w+|paraphras\w+"
    r"|distill?\w*|filter\w*"
    r"|synthesi\w+|evaluat\w+|compar\w+|against|baselines?|outperform\w*|written|prompt(?:ed|ing|s)?|quer(?:y"
    r"|ied)|verif\w+|tokeni[sz]er"
    r"|chat template|produced|ask\w*|responses? (?:of|from|by)|answers? (?:of|from|by)|solutions (?:of|from|by)"
    r"|traces (?:of|from|by))\b",
    re.IGNORECASE,
)
_OFFICE = re.compile(
    r"\b(?:teachers?|judges?|graders?|annotators?|reward models?|verifiers?|critics?|embedd\w+|generators?"
    r"|labell?ers?|raters?"
    r"|preference models?|classifiers?|simulators?)\b",
    re.IGNORECASE,
)
# "Qwen3-8B with unit tests as the reward": the tests are it, not the model
_OFFICE_BEHIND = re.compile(
    r"^(?!\s?(?:with|by|using) [^,;.]{0,30}? as (?:an? |the |our )?rewards?\b(?! model))"
    r"[^,;.]{0,30}?\b(?:as|is|was|acts|serves|served|being)\b[^,;.]{0,30}?\b(?:teacher|judge|grader|annotator"
    r"|reward|verifier|critic"
    r"|generator|labell?er|rater|sampler)"
    r"|^\s?(?:\([^)]{0,30}\)\s?)?(?:generates|writes|grades|judges|scores|labels|annotates|translates|rewrites"
    r"|produces|verifies)\b",
    re.IGNORECASE,
)
_OFFICE_TITLE = re.compile(
    r"teacher|judge|reward model|annotat|verifier|grad(?:er|ing)|(?:data|synth)\w* (?:generation|synthesis"
    r"|construction)|generating",
    re.IGNORECASE,
)
_ROW_OF_BASE = re.compile(
    r"^(?:base|initial|starting|start|backbone|pre-?trained|student|policy)(?: (?:model|checkpoint|point"
    r"|weights|policy))?$"
    r"|^(?:initiali[sz]ed from|init\.?|initiali[sz]ation|trained from|checkpoint|model)$",
    re.IGNORECASE,
)
_HEAD_OF_BASE = re.compile(r"^(?:base|backbone|policy|student|starting|initial)\b.{0,20}$|^models?$", re.IGNORECASE)
_SIZED = re.compile(r"(?:^|-)\d{1,4}(?:\.\d{1,3})?[bm](?=-|$)")
_MOST_EVIDENCE = 4000
_MADE = 6
"""What a mention counts that says that the model was trained."""


def base_models(document: Document, sentences: Sequence[Said]) -> list[str]:
    """Names of trained models, the likeliest first; a Hub id stands for the same name in words."""
    points: Counter[str] = Counter()
    names: dict[str, str] = {}

    def count(name: str, weight: int) -> None:
        key = model_key(name)
        points[key] += weight + (2 if "/" in name and key not in names and weight > 0 else 0)
        if key not in names or ("/" in name and "/" not in names[key]):
            names[key] = name

    for one in sentences:
        if not one.cited:
            for name, weight in _mentions(one):
                count(name, weight)
    for section in document.sections:
        for table in section.tables:
            for name, weight in _in_table(document, table, section):
                count(name, weight)
    _fold(points, names)
    ranked = sorted(points, key=lambda key: -points[key])
    likely = [names[key] for key in ranked if points[key] >= 3]
    named = [names[key] for key in ranked if points[key] > 0 and _SIZED.search(key)]
    return likely or (named if len(named) == 1 else [])


def trained_models(sentences: Sequence[Said]) -> set[str]:
    """Keys of the models that a sentence of the paper's own says were trained or started from."""
    return {model_key(name) for one in sentences if not one.cited for name, weight in _mentions(one) if weight == _MADE}


def _all_models(text: str) -> list[str]:
    names = models_in(text)
    others = [name for name in hub_ids(plain(text)) if is_model(name) and name not in names and name in text]
    return [*names, *others]


def _mentions(one: Said) -> Iterator[tuple[str, int]]:
    """Models of a sentence, each with what the words around it say for it."""
    trains = 3 if one.own and TRAINS.search(one.plain) else 0
    if _OFFICE_TITLE.search(one.section.title) or _OFFICE_TITLE.search(one.head):
        trains = 0
    for name in _all_models(one.raw):
        at = one.raw.find(name)
        before = re.split(r"[;:]\s", one.raw[max(at - 240, 0) : at])[-1]
        behind = one.raw[at + len(name) : at + len(name) + 90]
        made = max((match.end() for match in _MADE_FROM.finditer(before)), default=-1)
        role = max((match.end() for match in _ROLE.finditer(before)), default=-1)
        office = max((match.end() for match in _OFFICE.finditer(before)), default=-1)
        if _HEAD_OF_BASE.search(one.head) and one.own:
            made = max(made, 0)
        if _OFFICE_BEHIND.search(behind) or office > made or (office >= 0 and made - office < 30):
            yield name, -6
        elif role > made:
            yield name, -3
        elif made >= 0 and one.own:
            yield name, _MADE
        else:
            yield name, 1 + trains


def _in_table(document: Document, table: Table, section: Section) -> Iterator[tuple[str, int]]:
    for head in table.columns():
        for name in models_in(head):
            yield name, 1
    if is_comparison(table.caption) or not is_own_section(document, section):
        return
    if is_settings_table(table):
        for cell in dict.fromkeys(read.column for read in read_settings(table, section)):
            for name in models_in(cell[:300]):
                yield name, 4
        for row in table.rows:
            if row and _ROW_OF_BASE.match(plain(row[0][:80]).strip(" :")):
                for cell in dict.fromkeys(row[1:]):
                    for name in _all_models(cell[:300]):
                        yield name, 4


def _fold(points: Counter[str], names: dict[str, str]) -> None:
    """Points of a short name go to the full one; a bare family is no model where a sized name of it is known."""
    for key in list(points):
        if "/" in names[key]:
            continue
        others = [names[other] for other in points if other != key and points[other] > 0]
        full = [name for name in others if "/" in name and model_of(names[key], [name])]
        if len(full) == 1 and points[key] > 0:
            points[model_key(full[0])] += points.pop(key)
        elif not _SIZED.search(key) and any(
            model_key(name).startswith(f"{key}-") and _SIZED.search(model_key(name)) for name in others
        ):
            points.pop(key)


def model_stated(name: str, sentences: Sequence[Said], document: Document) -> Stated | None:
    """The model with the place that says so best: a sentence on training, another sentence, or a cell of a table."""
    naming = [one for one in sentences if name in _all_models(one.raw) and not one.cited]
    naming.sort(key=lambda one: (not (one.own and TRAINS.search(one.plain)), not one.own))
    if naming:
        one = naming[0]
        return Stated(
            value=name, evidence=Evidence(section=one.section.id, kind="sentence", text=one.raw[:_MOST_EVIDENCE])
        )
    for section in document.sections:
        for table in section.tables:
            found = _cell_naming(name, table, section)
            if found is not None:
                return Stated(value=name, evidence=found)
    return None


def _cell_naming(name: str, table: Table, section: Section) -> Evidence | None:
    for head in table.columns():
        if name in head:
            row = next((heads for heads in table.header if any(name in cell for cell in heads)), ())
            cell = next((cell for cell in row if name in cell), head)
            return Evidence(section=section.id, kind="cell", text=cell[:2000], column=head)
    heads = table.columns()
    for row in table.rows:
        for at, cell in enumerate(row):
            if name in _all_models(cell[:300]):
                column = heads[at] if at < len(heads) else ""
                return Evidence(section=section.id, kind="cell", text=cell, column=column)
    return None
