"""Sources of papers: one class per service, behind the protocol of `base`, asked together by `finder`."""

from __future__ import annotations

from collections.abc import Callable

from posttrain_crew.tools.literature.services.base import PaperSource
from posttrain_crew.tools.services.services import Services

__all__ = ["BUILTIN_PAPER_SOURCES"]

# the packages of the services are imported when a run makes its sources: commands that need none start without them


def _semantic_scholar(services: Services) -> PaperSource:
    from posttrain_crew.tools.literature.services.semantic_scholar import SemanticScholar

    return SemanticScholar(services.semantic_scholar)


def _arxiv(services: Services) -> PaperSource:
    from posttrain_crew.tools.literature.services.arxiv_api import Arxiv

    return Arxiv(services.arxiv_api)


def _huggingface(services: Services) -> PaperSource:
    from posttrain_crew.tools.literature.services.hf_papers import HuggingFacePapers

    return HuggingFacePapers(services.hub)


def _library(_services: Services) -> PaperSource:
    from posttrain_crew.tools.literature.services.shipped import ShippedLibrary

    return ShippedLibrary()


BUILTIN_PAPER_SOURCES: dict[str, Callable[[Services], PaperSource]] = {
    "semantic_scholar": _semantic_scholar,
    "arxiv": _arxiv,
    "huggingface": _huggingface,
    "library": _library,
}
"""By name, in the order in which they are trusted: what the first one says of a paper goes before what others say."""
