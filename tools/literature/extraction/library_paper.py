"""A paper from outside in the form of the shipped library, so that `recipe_drafts` can use it as it uses those."""

from __future__ import annotations

from collections.abc import Sequence

from posttrain_crew.errors import InputError
from posttrain_crew.tools.literature.extraction.recipe import ExtractedRecipe, ReportedResult
from posttrain_crew.tools.literature.extraction.techniques import methods_of, techniques_in
from posttrain_crew.tools.literature.paper import HyperValue, Paper, ReportedScore, normalise_id
from posttrain_crew.tools.literature.reading.document import Document
from posttrain_crew.tools.literature.reading.plain import sentences
from posttrain_crew.tools.literature.services.base import PaperRecord
from posttrain_crew.tools.literature.vocabulary import METHODS, TRL_FIELDS

__all__ = ["as_library_paper", "year_of"]

_FINDING = 390


def as_library_paper(
    paper: PaperRecord | Document, recipes: Sequence[ExtractedRecipe] = (), record: PaperRecord | None = None
) -> Paper:
    """The paper with tags, scores and settings that were read from it.

    Args:
        paper: its full text, which gives better tags, or what a source says of it.
        recipes: as they were extracted (and verified) from its text.
        record: for a full text, where year and authors are taken from.

    Raises:
        InputError: it has no arXiv id, or nothing in it fits a technique of the vocabulary, so that no rule can use it.
    """
    known = paper if isinstance(paper, PaperRecord) else record
    if isinstance(paper, Document):
        arxiv_id, title, tags, abstract = normalise_id(paper.arxiv_id), paper.title, methods_of(paper), paper.abstract
        authors = list(paper.authors)
    else:
        if paper.ids.arxiv is None:
            raise InputError(f"{paper.title[:100]!r} has no arXiv id; recipes can only cite papers that have one.")
        arxiv_id, title, abstract = normalise_id(paper.ids.arxiv), paper.title, paper.abstract
        tags, authors = techniques_in(f"{paper.title}. {paper.abstract}"), list(paper.authors)
    tags = list(dict.fromkeys([*tags, *(recipe.method for recipe in recipes if recipe.method in METHODS)]))
    if not tags:
        raise InputError(f"nothing in {arxiv_id} ({title[:80]!r}) names a technique that a recipe rule could use.")
    if known is not None and known.authors:
        authors = list(known.authors)
    year = known.year if known is not None and known.year else year_of(arxiv_id)
    return Paper(
        arxiv_id=arxiv_id,
        title=title if len(title) >= 4 else f"arXiv {arxiv_id}",
        year=year,
        authors=[*authors[:3], *(["et al."] if len(authors) > 3 else [])] or ["unknown"],
        techniques=tags,
        trained_on=_trained_on(recipes),
        compute=next((text for recipe in recipes if (text := _compute(recipe))), None),
        reported=[_score(recipe, score) for recipe in recipes for score in recipe.scores],
        findings=_findings(recipes, abstract, title),
        hyperparameters=_settings(recipes),
        checked="search",
    )


def year_of(arxiv_id: str) -> int:
    """Of an id: 2402.03300 is of 2024, hep-th/9901001 of 1999."""
    digits = arxiv_id.rpartition("/")[2][:2]
    return (1900 if int(digits) > 90 else 2000) + int(digits)


def _trained_on(recipes: Sequence[ExtractedRecipe]) -> list[str]:
    names: list[str] = []
    for recipe in recipes:
        if recipe.base_model is not None:
            names.append(str(recipe.base_model.value))
        names += [one.hub_id or one.name for one in recipe.datasets]
    return list(dict.fromkeys(names))


def _compute(recipe: ExtractedRecipe) -> str | None:
    told = recipe.compute
    machine = " x ".join(str(one.value) for one in (told.count, told.gpu) if one is not None)
    hours = f"{told.hours.value} hours" if told.hours is not None else ""
    return ", ".join(part for part in (machine, hours) if part) or None


def _score(recipe: ExtractedRecipe, score: ReportedResult) -> ReportedScore:
    values = [value for value in (score.before, score.after) if value is not None]
    graded = "bench" in score.benchmark.lower() and max(values) <= 10
    unit = "points" if graded or not all(0 <= value <= 100 for value in values) else "percent"
    if unit == "percent" and ("win" in (score.metric or "") or score.benchmark.lower().startswith("alpacaeval")):
        unit = "win-rate"
    return ReportedScore.model_validate(
        {
            "benchmark": score.benchmark,
            "setting": ", ".join(part for part in (score.metric, score.split) if part) or "as the paper has it",
            "model": str(recipe.base_model.value) if recipe.base_model is not None else "the paper's model",
            "before": score.before,
            "after": score.after,
            "unit": unit,
        }
    )


def _findings(recipes: Sequence[ExtractedRecipe], abstract: str, title: str) -> list[str]:
    found = []
    for recipe in recipes:
        model = str(recipe.base_model.value) if recipe.base_model is not None else "its model"
        data = ", ".join(one.hub_id or one.name for one in recipe.datasets) or "its data"
        for score in recipe.scores[:1]:
            start = f" from {score.before:g}" if score.before is not None else ""
            found.append(
                f"{recipe.method.upper()} of {model} on {data} moved {score.benchmark}{start} to {score.after:g}."
            )
    if not found:
        quoted = next((one for one in sentences(abstract) if len(one) >= 20), title)
        found = [f"The authors write: {quoted}"]
    return [text[:_FINDING] for text in found[:4]]


def _settings(recipes: Sequence[ExtractedRecipe]) -> dict[str, dict[str, HyperValue]]:
    """Per method the settings of the recipe that states most; those of two recipes are never mixed."""
    fullest: dict[str, dict[str, HyperValue]] = {}
    for recipe in recipes:
        settings = {name: value for name, value in recipe.settings().items() if name in TRL_FIELDS}
        if recipe.method in METHODS and len(settings) > len(fullest.get(recipe.method, {})):
            fullest[recipe.method] = settings
    return fullest
