"""The one way to a paper's recipes: by an LLM where there is one, by rules where there is none, verified in both
cases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from posttrain_crew.errors import AgentError, ServiceError
from posttrain_crew.tools.literature.extraction.extract import extract_recipes
from posttrain_crew.tools.literature.extraction.llm import extract_with_llm
from posttrain_crew.tools.literature.extraction.recipe import ExtractedRecipe, Rejected
from posttrain_crew.tools.literature.extraction.verify import verify
from posttrain_crew.tools.literature.reading.document import Document

__all__ = ["Extraction", "read_recipes"]


@dataclass(frozen=True)
class Extraction:
    """What a paper says of its own training."""

    recipes: tuple[ExtractedRecipe, ...]
    rejected: tuple[Rejected, ...] = ()
    """Fields that the text does not support."""
    notes: tuple[str, ...] = ()
    """What was done instead of what was asked for, for example rules where the LLM gave nothing usable."""
    llm_failure: ServiceError | None = None
    """Why the LLM could not be asked; the recipes are then those of the rules."""


def read_recipes(document: Document, complete: Callable[[str], str] | None = None) -> Extraction:
    """The paper's training recipes, every field found again in the text.

    Args:
        complete: an LLM, from prompt to answer. When its answers do not fit the schema, or it cannot be asked
            (ServiceError), the rules are used instead, and `notes` or `llm_failure` says so. What else it raises goes
            through.
    """
    notes: tuple[str, ...] = ()
    failure: ServiceError | None = None
    if complete is not None:
        try:
            told = extract_with_llm(document, complete)
            return Extraction(told.recipes, told.rejected)
        except AgentError as error:
            notes = (f"extracted by rules instead of by the LLM: {error}",)
        except ServiceError as error:
            failure = error
    kept: list[ExtractedRecipe] = []
    rejected: list[Rejected] = []
    for recipe in extract_recipes(document):
        checked = verify(document, recipe)
        rejected += checked.rejected
        if checked.recipe is not None:
            kept.append(checked.recipe)
    return Extraction(tuple(kept), tuple(rejected), notes, failure)
