"""Recipes of a paper without an LLM: settings from prose and tables, sorted to the methods and models that were
trained.

What cannot be sorted to one recipe is left out: a setting that is missing costs less than one of another paper.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from posttrain_crew.tools.literature.extraction.base_models import TRAINS, base_models, model_stated, trained_models
from posttrain_crew.tools.literature.extraction.labels import models_told
from posttrain_crew.tools.literature.extraction.machines import machines_of, only_gpu
from posttrain_crew.tools.literature.extraction.mentions import (
    model_key,
    models_in,
)
from posttrain_crew.tools.literature.extraction.named_datasets import datasets_said, kind_of_data
from posttrain_crew.tools.literature.extraction.patterns import Hyper, read_prose
from posttrain_crew.tools.literature.extraction.recipe import (
    METHODS,
    Compute,
    DatasetNamed,
    Evidence,
    ExtractedRecipe,
    Stated,
    TrainingMethod,
)
from posttrain_crew.tools.literature.extraction.scope import (
    Said,
    is_own_section,
    methods_in,
    own_clauses,
    said,
    scope_of,
    speaks_of_all,
)
from posttrain_crew.tools.literature.extraction.score_rows import Wanted, own_names
from posttrain_crew.tools.literature.extraction.scores import Found, scores_in_prose, scores_in_table
from posttrain_crew.tools.literature.extraction.stages import Stages, named, stages_of
from posttrain_crew.tools.literature.extraction.tables import CellRead, read_settings
from posttrain_crew.tools.literature.reading.document import Document, Section

__all__ = ["extract_recipes"]

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
_WE_TRAIN = re.compile(
    r"\bwe (?:\w+ ){0,2}?(?:train|fine-?tune|optimi[sz]e|tune|apply|run|perform|align|adapt|distill?"
    r"|instruction-tune|post-train|use(?= (?:\S+ ){0,4}?[A-Z]{2,5}O\b))d?\b(?:[^.;]|\.(?=\d)){0,200}",
    re.IGNORECASE,
)
_OF_SAMPLING = frozenset({"num_generations", "temperature", "top_p", "max_completion_length"})
_SAMPLED_FROM = re.compile(
    r"\b(?:sampl|generat|distil|dr[ae]w|writ|quer|prompt|produc)\w* (?:\S+ ){0,4}?(?:from|by|with"
    r"|using|of) ",
    re.IGNORECASE,
)
_SHARED = re.compile(r"\b(?:common|shared|both|all|value|setting)s?\b", re.IGNORECASE)
_MOST_EVIDENCE = 4000
_MOST_MODELS = 6
_USED_BY = re.compile(r"^(?:[Tt]he |[Oo]ur )?[A-Z]{2,5} (?:stage |step )?(?:uses|used|takes|employs)\b")


@dataclass(frozen=True)
class _Reading:
    """A setting with what its place says of the recipe that it belongs to."""

    hyper: Hyper
    evidence: Evidence
    methods: frozenset[TrainingMethod] | None
    models: frozenset[str]
    from_table: bool


def extract_recipes(document: Document) -> list[ExtractedRecipe]:
    """The paper's own training recipes; an empty list when it states none."""
    sentences = list(said(document))
    methods = _trained_methods(document, sentences)
    if not methods:
        return []
    models = base_models(document, sentences)
    readings = list(_readings(document, sentences, methods, models))
    split = _models_with_settings_of_their_own(readings, models)
    split = split or _models_with_scores_of_their_own(document, methods, models, sentences)
    wanted = _wanted(methods, split or models[:1])
    recipes = [_recipe(document, want, sentences, readings, methods, len(split) > 1, models) for want in wanted]
    return _with_scores(document, [recipe for recipe in recipes if recipe is not None], sentences, wanted)


def _trained_methods(document: Document, sentences: Sequence[Said]) -> tuple[TrainingMethod, ...]:
    """Methods that the paper itself trains with: by its title and abstract, its own sentences, captions, headings."""
    votes: Counter[TrainingMethod] = Counter()
    hints: Counter[TrainingMethod] = Counter()
    stages, tabled = stages_of(document, sentences, METHODS), False
    places: list[tuple[str, int]] = [(document.title, 2)]
    places += [(section.title, 2) for section in document.sections if is_own_section(document, section)]
    for one in sentences:
        if one.section.kind == "abstract" or (one.caption and not one.cited):
            places.append((one.raw, 2))
        elif one.own and (read_prose(one.plain) or TRAINS.search(one.plain)):
            places.append((one.raw, 2 if read_prose(one.plain) else 1))
    for section in document.sections:
        for table in section.tables:
            for cell in read_settings(table, section):
                places.append((named(cell.column, stages), 2))
                tabled = tabled or is_own_section(document, section)
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
    told = {
        method: clarity
        for one in sentences
        if one.own and (match := _WE_TRAIN.search(one.plain))
        for method, clarity in methods_in(match[0]).items()
    }
    set_in_prose = any(one.own and read_prose(one.plain) for one in sentences)
    said_so = {method for method, clarity in told.items() if clarity == 2 and (tabled or set_in_prose)}
    stated |= said_so
    votes.update(dict.fromkeys(said_so, 2))
    fields = {hyper.field for one in sentences if one.own for hyper in read_prose(one.plain)}
    stated |= {method for field in fields & _TELLING for method in _ONLY_FOR[field]}
    chosen = [method for method in METHODS if votes[method] >= 4 or (votes[method] >= 2 and method in stated)]
    if not chosen and (tabled or set_in_prose):
        # settings, and one method alone that "we train" or "we fine-tune" with
        likely = [method for method in METHODS if votes[method] >= 2]
        told = told or (dict.fromkeys(likely, 2) if tabled else {})
        chosen = list(told) if len(told) == 1 and votes[next(iter(told))] + hints[next(iter(told))] >= 2 else []
    if not chosen and hints:
        best, weight = max(hints.items(), key=lambda item: item[1])
        chosen = [best] if weight >= 3 else []
    return tuple(chosen)


def _readings(
    document: Document, sentences: Sequence[Said], methods: tuple[TrainingMethod, ...], models: Sequence[str]
) -> Iterator[_Reading]:
    stages = stages_of(document, sentences, methods)
    for one in sentences:
        if one.section.kind == "abstract":
            continue
        evidence = Evidence(section=one.section.id, kind="sentence", text=one.raw[:_MOST_EVIDENCE])
        for clause in own_clauses(one):
            if hypers := read_prose(clause):
                scope = _scope(document, one, clause, methods, stages)
                told = models_told(_without_sources(clause), models) if len(models) > 1 else frozenset()
                others = bool(_SAMPLED_FROM.search(clause)) and bool(models_in(clause))
                for hyper in hypers if told is not None else ():
                    if others and hyper.field in _OF_SAMPLING:
                        continue
                    yield _Reading(hyper, evidence, scope, told or frozenset(), False)
        if one.cited or not is_own_section(document, one.section):
            continue
        for clause, read in machines_of(one, models):
            told = models_told(clause, models) if len(models) > 1 else frozenset()
            scope = _scope(document, one, clause, methods, stages)
            for field, value in (("gpu", read.gpu), ("count", read.count), ("hours", read.hours)):
                if value is not None and told is not None:
                    unit = "hours" if field == "hours" else ""
                    yield _Reading(Hyper(f"compute.{field}", value, unit), evidence, scope, told, False)
    for section in document.sections:
        if not is_own_section(document, section):
            continue
        for table in section.tables:
            for cell in read_settings(table, section):
                yield _of_cell(document, section, cell, methods, models, stages)


def _without_sources(clause: str) -> str:
    """A clause without the models that data came from: `chains of thought from DeepSeek-R1` is about no other run."""
    for name in models_in(clause):
        clause = re.sub(rf"\b(?:from|by|of) (?:the )?{re.escape(name)}(?![\w-])", " ", clause)
    return clause


def _of_cell(
    document: Document,
    section: Section,
    cell: CellRead,
    methods: tuple[TrainingMethod, ...],
    models: Sequence[str],
    stages: Stages,
) -> _Reading:
    """A cell with its owner; where other columns name a stage or model and this one does not, it is nobody's."""
    column = named(cell.column, stages)
    places = [column, cell.caption, section.title, *(up.title for up in document.ancestors(section))]
    told = models_told(cell.column, models)
    others = [method for method in methods_in(column) if method not in methods]
    tells = bool(methods_in(column)) or bool(told) or speaks_of_all(column) or _SHARED.search(column)
    peers = any(methods_in(named(peer, stages)) or models_told(peer, models) for peer in cell.peers)
    scope = None if others or told is None or (peers and not tells) else scope_of(places, methods)
    return _Reading(cell.hyper, cell.evidence, scope, told or frozenset(), True)


def _scope(
    document: Document, one: Said, clause: str, methods: tuple[TrainingMethod, ...], stages: Stages
) -> frozenset[TrainingMethod] | None:
    around = [up.title for up in document.ancestors(one.section)]
    titled = len([method for method, weight in methods_in(one.section.title).items() if weight == 2]) == 1
    inside = [one.section.title, one.paragraph] if titled else [one.paragraph, one.section.title]
    places = [clause, one.plain, one.head, *inside, *around]
    return scope_of([named(place, stages) for place in places] if stages else places, methods)


def _models_with_settings_of_their_own(readings: Iterable[_Reading], models: Sequence[str]) -> list[str]:
    keys = {key for reading in readings for key in reading.models}
    found = [name for name in models if model_key(name) in keys]
    return found if len(found) > 1 else []


def _models_with_scores_of_their_own(
    document: Document, methods: tuple[TrainingMethod, ...], models: Sequence[str], sentences: Sequence[Said]
) -> list[str]:
    """Models that the text says were trained and that one table has before and after, when there are several."""
    trained = trained_models(sentences)
    able = [name for name in models if model_key(name) in trained][:_MOST_MODELS]
    if len(able) < 2:
        return []
    wanted, names = _wanted(methods, able), own_names(document)
    for section in document.sections:
        for table in section.tables if is_own_section(document, section) else ():
            found = scores_in_table(table, section, wanted, names)
            told = {one.wanted.model for one in found if one.result.before is not None}
            if len(told) > 1:
                return [name for name in able if name in told]
    return []


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
        if reading.models and (split or reading.from_table) and model_key(want.model or "") not in reading.models:
            continue
        known = hypers.get(field)
        if known is None or (reading.from_table and not known.from_table):
            hypers[field] = reading
        elif known.from_table == reading.from_table and known.hyper.value != reading.hyper.value:
            pair = (str(known.hyper.value), str(reading.hyper.value))
            if field == "compute.gpu" and (pair[0].startswith(pair[1]) or pair[1].startswith(pair[0])):
                hypers[field] = max(known, reading, key=lambda one: len(str(one.hyper.value)))  # `H100`, `H100-80GB`
            else:
                clashes.add(field)
    if all(field.startswith("compute.") for field in hypers):
        return None
    stated = {
        field: Stated(value=reading.hyper.value, unit=reading.hyper.unit, evidence=reading.evidence)
        for field, reading in hypers.items()
        if field not in clashes
    }
    if "compute.count" in stated and "compute.gpu" not in hypers and (only := only_gpu(document, sentences)):
        stated["compute.gpu"] = only
    evidence = _method_evidence(document, want.method, sentences) or next(iter(hypers.values())).evidence
    return ExtractedRecipe(
        arxiv_id=document.arxiv_id,
        method=want.method,
        method_evidence=evidence,
        base_model=model_stated(want.model, sentences, document) if want.model else None,
        datasets=tuple(_datasets(document, sentences, want, methods)),
        hyperparameters={field: one for field, one in stated.items() if not field.startswith("compute.")},
        compute=Compute(**{field[8:]: one for field, one in stated.items() if field.startswith("compute.")}),
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


def _datasets(
    document: Document, sentences: Sequence[Said], want: Wanted, methods: tuple[TrainingMethod, ...]
) -> Iterator[DatasetNamed]:
    seen: set[str] = set()
    stages = stages_of(document, sentences, methods)
    for dataset, one in datasets_said(document, sentences):
        # a footnote speaks of what it hangs on
        part = _part_on(dataset.name, one.plain)
        scope = _scope(document, one, f"{one.noted} {part}".strip(), methods, stages)
        if scope is None:
            scope = (kind_of_data(re.sub(r"\S+/\S+", " ", part)) & frozenset(methods)) or frozenset(methods)
        if want.method not in scope:
            continue
        if (dataset.hub_id or dataset.name) not in seen:
            seen.add(dataset.hub_id or dataset.name)
            yield dataset


def _part_on(name: str, sentence: str) -> str:
    """The part of a sentence that speaks of a dataset: between commas where that names a method of its own."""
    # "SFT uses A and DPO uses B"
    part = next((part for part in re.split(r"[,;]\s|\s(?:and|while|whereas)\s", sentence) if name in part), "")
    if _USED_BY.search(part) and 2 in methods_in(part.replace(name, " ")).values():
        return part
    for separator in (r"[,;]\s(?:and )?", r";\s"):
        part = next((part for part in re.split(separator, sentence) if name in part), "")
        if part and (separator.startswith(";") or 2 in methods_in(part.replace(name, " ")).values()):
            return part
    return sentence


def _with_scores(
    document: Document, recipes: Sequence[ExtractedRecipe], sentences: Sequence[Said], wanted: Sequence[Wanted]
) -> list[ExtractedRecipe]:
    results: dict[tuple[TrainingMethod, str | None], list[Found]] = defaultdict(list)
    names = own_names(document)
    for section in document.sections:
        if section.kind != "bibliography" and is_own_section(document, section):
            for table in section.tables:
                for found in list(scores_in_table(table, section, wanted, names)):
                    _add(results[found.wanted.method, found.wanted.model], found)
    for one in sentences:
        if one.section.kind != "abstract" and is_own_section(document, one.section):
            for found in scores_in_prose(one, wanted, ()):
                _add(results[found.wanted.method, found.wanted.model], found)
    return [
        recipe.model_copy(
            update={
                "scores": tuple(
                    found.result
                    for found in results[recipe.method, str(recipe.base_model.value) if recipe.base_model else None]
                )
            }
        )
        for recipe in recipes
    ]


def _add(results: list[Found], found: Found) -> None:
    """A second result on a benchmark counts when its column is headed by another metric (`pass@8` beside `avg@64`)."""
    same = [one for one in results if one.result.benchmark == found.result.benchmark]
    if not same or (found.own_metric and all(one.result.metric != found.result.metric for one in same)):
        results.append(found)
