"""Recipes of a paper without an LLM: settings from prose and tables, sorted to the methods and models that were
trained.

What cannot be sorted to one recipe is left out: a setting that is missing costs less than one of another paper.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from posttrain_crew.tools.literature.extraction.mentions import (
    cited_reference,
    hub_ids,
    is_model,
    machine,
    model_key,
    models_in,
)
from posttrain_crew.tools.literature.extraction.patterns import Hyper, read_prose
from posttrain_crew.tools.literature.extraction.recipe import (
    METHODS,
    Compute,
    DatasetNamed,
    Evidence,
    ExtractedRecipe,
    ReportedResult,
    Stated,
    TrainingMethod,
)
from posttrain_crew.tools.literature.extraction.scope import (
    Said,
    is_own_section,
    methods_in,
    said,
    scope_of,
    speaks_of_all,
)
from posttrain_crew.tools.literature.extraction.scores import Wanted, scores_in_prose, scores_in_table
from posttrain_crew.tools.literature.extraction.tables import CellRead, read_settings
from posttrain_crew.tools.literature.reading.document import Document, Section
from posttrain_crew.tools.literature.reading.plain import plain

__all__ = ["extract_recipes", "named_datasets"]

_REINFORCED: frozenset[TrainingMethod] = frozenset({"grpo", "ppo", "rloo"})
_PAIRED: frozenset[TrainingMethod] = frozenset({"dpo", "kto", "orpo"})
_ONLY_FOR: dict[str, frozenset[TrainingMethod]] = {
    **dict.fromkeys(("num_generations", "temperature", "top_p", "epsilon", "epsilon_high"), _REINFORCED),
    "max_completion_length": _REINFORCED,
    "beta": _REINFORCED | _PAIRED,
}
"""Fields that mean something for some methods only: a sampling temperature in a paper on SFT is that of its data."""
_TELLING = frozenset({"num_generations", "epsilon", "epsilon_high"})
"""Fields that nobody states but of reinforcement learning."""
_TRAINS = re.compile(
    r"\bstart|\binitiali[sz]|fine-?tun|\badapt|\btun(?:e|ed|ing)\b|\btrain|base model|\bpolicy\b|\bbegin"
    r"|backbone|restrict"
    r"|\bModel\b|\bstages? on\b|\battach",
    re.IGNORECASE,
)
_DATA = re.compile(
    r"\bdata\b|dataset|question|prompt|problem|\bpairs?\b|\bitems?\b|exercise|corpus|solution|train|publish|releas|conversation"
    r"|instruction|examples",
    re.IGNORECASE,
)
_NOT_TRAINED_ON = re.compile(
    r"\bevaluat|held[- ]out|\btest (?:set|split|question)|benchmark|decontaminat", re.IGNORECASE
)
_CORPUS = re.compile(
    r"\b(?:training )?(?:data|examples|items|questions|problems)\b[^.;]{0,50}?\b(?:comes?|come|taken|drawn|are"
    r"|is)\b[^.;]{0,20}?"
    r"\bfrom (?:the )?(?P<name>[^.;,]{3,80}?) (?:of|by) (?=[A-Z])"
)
_MOST_EVIDENCE = 4000


@dataclass(frozen=True)
class _Reading:
    """A setting with what its place says of the recipe that it belongs to."""

    hyper: Hyper
    evidence: Evidence
    methods: frozenset[TrainingMethod] | None
    models: frozenset[str]
    order: int
    from_table: bool


def extract_recipes(document: Document) -> list[ExtractedRecipe]:
    """The paper's own training recipes; an empty list when it states none."""
    sentences = list(said(document))
    methods = _trained_methods(document, sentences)
    if not methods:
        return []
    readings = list(_readings(document, sentences, methods))
    models = _base_models(document, sentences)
    split = _models_with_settings_of_their_own(readings, models)
    wanted = _wanted(methods, split or models[:1])
    recipes = [_recipe(document, want, sentences, readings, methods, len(split) > 1, models) for want in wanted]
    return _with_scores(document, [recipe for recipe in recipes if recipe is not None], sentences, wanted)


def _trained_methods(document: Document, sentences: Sequence[Said]) -> tuple[TrainingMethod, ...]:
    """Methods that the paper itself trains with: by its title and abstract, its own sentences, captions, headings."""
    votes: Counter[TrainingMethod] = Counter()
    hints: Counter[TrainingMethod] = Counter()
    places: list[tuple[str, int]] = [(document.title, 2)]
    places += [(section.title, 2) for section in document.sections if is_own_section(document, section)]
    for one in sentences:
        if one.section.kind == "abstract" or (one.caption and not one.cited):
            places.append((one.raw, 2))
        elif one.own and (read_prose(one.plain) or _TRAINS.search(one.plain)):
            places.append((one.raw, 2 if read_prose(one.plain) else 1))
    for section in document.sections:
        for table in section.tables:
            for cell in read_settings(table, section):
                places.append((cell.column, 2))
    for text, weight in places:
        for method, clarity in methods_in(text).items():
            (votes if clarity == 2 else hints)[method] += weight
    stated = {
        method
        for one in sentences
        if one.own and read_prose(one.plain)
        for method, clarity in methods_in(one.raw).items()
        if clarity
    }
    # "Reference model (supervised fine-tuning)" over a list of settings: the heading says whose they are
    stated |= {
        method
        for one in sentences
        if one.own and read_prose(one.plain)
        for head in (one.section.title, one.head)
        for method, clarity in methods_in(head).items()
        if clarity == 2
    }
    fields = {hyper.field for one in sentences if one.own for hyper in read_prose(one.plain)}
    stated |= {method for field in fields & _TELLING for method in _ONLY_FOR[field]}
    chosen = [method for method in METHODS if votes[method] >= 4 or (votes[method] >= 2 and method in stated)]
    if not chosen and hints:
        best, weight = max(hints.items(), key=lambda item: item[1])
        chosen = [best] if weight >= 3 else []
    return tuple(chosen)


def _readings(document: Document, sentences: Sequence[Said], methods: tuple[TrainingMethod, ...]) -> Iterator[_Reading]:
    order = 0
    for one in sentences:
        if not one.own or one.section.kind == "abstract":
            continue
        for clause in _clauses(one.plain):
            hypers = read_prose(clause)
            scope = _scope(document, one, clause, methods) if hypers else None
            evidence = Evidence(section=one.section.id, kind="sentence", text=one.raw[:_MOST_EVIDENCE])
            for hyper in hypers:
                order += 1
                yield _Reading(hyper, evidence, scope, frozenset(), order, False)
    for section in document.sections:
        if not is_own_section(document, section):
            continue
        for table in section.tables:
            for cell in read_settings(table, section):
                order += 1
                yield _of_cell(document, section, cell, methods, order)


def _of_cell(
    document: Document, section: Section, cell: CellRead, methods: tuple[TrainingMethod, ...], order: int
) -> _Reading:
    places = [cell.column, cell.caption, section.title, *(up.title for up in document.ancestors(section))]
    models = frozenset(model_key(name) for name in models_in(cell.column))
    foreign = [method for method in methods_in(cell.column) if method not in methods]
    scope = None if foreign else scope_of(places, methods)
    return _Reading(cell.hyper, cell.evidence, scope, models, order, True)


def _clauses(sentence: str) -> list[str]:
    return [part for part in re.split(r";\s+", sentence) if part]


def _scope(
    document: Document, one: Said, clause: str, methods: tuple[TrainingMethod, ...]
) -> frozenset[TrainingMethod] | None:
    around = [up.title for up in document.ancestors(one.section)]
    return scope_of([clause, one.plain, one.head, one.paragraph, one.section.title, *around], methods)


def _base_models(document: Document, sentences: Sequence[Said]) -> list[str]:
    """Names of trained models, the likeliest first; a Hub id stands for the same name in words."""
    points: Counter[str] = Counter()
    names: dict[str, str] = {}
    for one in sentences:
        if one.cited:
            continue
        # a sentence on what was varied says little of what was trained
        for name in models_in(one.raw):
            key = model_key(name)
            points[key] += 1 + (3 if one.own and _TRAINS.search(one.plain) else 0)
            points[key] += 2 if "/" in name and key not in names else 0
            if key not in names or ("/" in name and "/" not in names[key]):
                names[key] = name
    for section in document.sections:
        for table in section.tables:
            for head in table.columns():
                for name in models_in(head):
                    points[model_key(name)] += 1
                    names.setdefault(model_key(name), name)
                    if "/" in name:
                        names[model_key(name)] = name
    for key in list(points):
        longer = [other for other in points if other != key and other.startswith(f"{key}-") and "/" in names[other]]
        if "/" not in names[key] and len(longer) == 1:
            points[longer[0]] += points.pop(key)
    ranked = sorted(points, key=lambda key: -points[key])
    return [names[key] for key in ranked if points[key] >= 3]


def _models_with_settings_of_their_own(readings: Iterable[_Reading], models: Sequence[str]) -> list[str]:
    keys = {key for reading in readings for key in reading.models}
    found = [name for name in models if model_key(name) in keys]
    return found if len(found) > 1 else []


def _wanted(methods: tuple[TrainingMethod, ...], models: Sequence[str]) -> list[Wanted]:
    last = methods[-1] if "sft" in methods else None
    return [
        Wanted(method, model, last is None or method == last) for method in methods for model in (models or (None,))
    ]


def _recipe(
    document: Document,
    want: Wanted,
    sentences: Sequence[Said],
    readings: Sequence[_Reading],
    methods: tuple[TrainingMethod, ...],
    split: bool,
    models: Sequence[str],
) -> ExtractedRecipe | None:
    hypers: dict[str, _Reading] = {}
    clashes: set[str] = set()
    for reading in readings:
        field = reading.hyper.field
        if want.method not in (reading.methods or ()) or want.method not in _ONLY_FOR.get(field, methods):
            continue
        if split and reading.models and model_key(want.model or "") not in reading.models:
            continue
        known = hypers.get(field)
        if known is None or (reading.from_table and not known.from_table):
            hypers[field] = reading
        elif known.from_table == reading.from_table and known.hyper.value != reading.hyper.value:
            clashes.add(field)
    if not hypers:
        return None
    evidence = _method_evidence(document, want.method, sentences) or next(iter(hypers.values())).evidence
    return ExtractedRecipe(
        arxiv_id=document.arxiv_id,
        method=want.method,
        method_evidence=evidence,
        base_model=_model_stated(want.model, sentences, document) if want.model else None,
        datasets=tuple(_datasets(document, sentences, want.method, methods)),
        hyperparameters={
            field: Stated(value=reading.hyper.value, unit=reading.hyper.unit, evidence=reading.evidence)
            for field, reading in hypers.items()
            if field not in clashes
        },
        compute=_compute(document, sentences, want.method, methods),
    )


def _method_evidence(document: Document, method: TrainingMethod, sentences: Sequence[Said]) -> Evidence | None:
    """The clearest sentence that names the method, the paper's own ones first."""
    ranked = [
        (clarity + (2 if one.own else 0) - (5 if one.cited else 0), -at, one)
        for at, one in enumerate(sentences)
        if (clarity := methods_in(one.plain).get(method, 0)) and len(one.raw.split()) > 3  # not a run-in head alone
    ]
    if not ranked:
        return None
    best = max(ranked, key=lambda item: item[:2])[2]
    return Evidence(section=best.section.id, kind="sentence", text=best.raw[:_MOST_EVIDENCE])


def _model_stated(name: str, sentences: Sequence[Said], document: Document) -> Stated | None:
    naming = [one for one in sentences if name in models_in(one.raw) and not one.cited]
    naming.sort(key=lambda one: (not (one.own and _TRAINS.search(one.plain)), not one.own))
    if naming:
        one = naming[0]
        return Stated(
            value=name, evidence=Evidence(section=one.section.id, kind="sentence", text=one.raw[:_MOST_EVIDENCE])
        )
    for section in document.sections:
        for table in section.tables:
            for head in table.columns():
                if name in head:
                    row = next((heads for heads in table.header if any(name in cell for cell in heads)), ())
                    cell = next((cell for cell in row if name in cell), head)
                    return Stated(
                        value=name, evidence=Evidence(section=section.id, kind="cell", text=cell, column=head)
                    )
    return None


def _datasets(
    document: Document, sentences: Sequence[Said], method: TrainingMethod, methods: tuple[TrainingMethod, ...]
) -> Iterator[DatasetNamed]:
    seen: set[str] = set()
    for dataset, one in _named(document, sentences):
        scope = _scope(document, one, one.plain, methods)
        if scope is not None and method not in scope:
            continue
        if (dataset.hub_id or dataset.name) not in seen:
            seen.add(dataset.hub_id or dataset.name)
            yield dataset


def named_datasets(document: Document) -> list[DatasetNamed]:
    """Datasets that the paper names as its data, with Hub ids: a paper that only describes one counts, too."""
    found: dict[str, DatasetNamed] = {}
    for dataset, _ in _named(document, list(said(document))):
        found.setdefault(dataset.hub_id or dataset.name, dataset)
    return list(found.values())


def _named(document: Document, sentences: Sequence[Said]) -> Iterator[tuple[DatasetNamed, Said]]:
    for one in sentences:
        evidence = Evidence(section=one.section.id, kind="sentence", text=one.raw[:_MOST_EVIDENCE])
        if not one.cited and _DATA.search(one.plain) and not _NOT_TRAINED_ON.search(one.plain):
            for hub_id in hub_ids(plain(one.raw)):
                if not is_model(hub_id):
                    yield DatasetNamed(name=hub_id, hub_id=hub_id, evidence=evidence), one
        match = _CORPUS.search(one.plain)
        if match is not None and "our" in one.plain.lower() and not hub_ids(one.plain):
            reference = cited_reference(one.raw[one.raw.find(match["name"][-12:]) :], document.references)
            yield (
                DatasetNamed(name=match["name"], arxiv_id=reference.arxiv_id if reference else None, evidence=evidence),
                one,
            )


def _compute(
    document: Document, sentences: Sequence[Said], method: TrainingMethod, methods: tuple[TrainingMethod, ...]
) -> Compute:
    fields: dict[str, Stated] = {}
    clashes: set[str] = set()
    for one in sentences:
        if one.cited or one.section.kind == "abstract" or not is_own_section(document, one.section):
            continue
        read = machine(one.plain)
        if read is None:
            continue
        scope = _scope(document, one, one.plain, methods)
        if scope is not None and method not in scope:
            continue
        if scope is None and len(methods) > 1 and not speaks_of_all(one.plain):
            continue
        evidence = Evidence(section=one.section.id, kind="sentence", text=one.raw[:_MOST_EVIDENCE])
        for field, value in (("gpu", read.gpu), ("count", read.count), ("hours", read.hours)):
            if value is None:
                continue
            if field in fields and fields[field].value != value:
                clashes.add(field)
            fields.setdefault(field, Stated(value=value, unit="hours" if field == "hours" else "", evidence=evidence))
    return Compute(**{field: stated for field, stated in fields.items() if field not in clashes})


def _with_scores(
    document: Document, recipes: Sequence[ExtractedRecipe], sentences: Sequence[Said], wanted: Sequence[Wanted]
) -> list[ExtractedRecipe]:
    results: dict[tuple[TrainingMethod, str | None], dict[str, ReportedResult]] = defaultdict(dict)
    for section in document.sections:
        if section.kind != "bibliography" and is_own_section(document, section):
            for table in section.tables:
                for found in scores_in_table(table, section, wanted):
                    results[found.wanted.method, found.wanted.model].setdefault(found.result.benchmark, found.result)
    for one in sentences:
        if one.section.kind != "abstract" and is_own_section(document, one.section):
            for found in scores_in_prose(one, wanted, ()):
                results[found.wanted.method, found.wanted.model].setdefault(found.result.benchmark, found.result)
    return [
        recipe.model_copy(
            update={
                "scores": tuple(
                    results[recipe.method, str(recipe.base_model.value) if recipe.base_model else None].values()
                )
            }
        )
        for recipe in recipes
    ]
