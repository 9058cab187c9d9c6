"""Full text of a paper from the first place that has it in a readable form.

arXiv HTML -> ar5iv -> Hugging Face markdown -> PDF: the first two keep tables and maths best. Every place that was
asked is told in `Document.tried`; "not found" is only said when every place says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from posttrain_crew.errors import NotFoundError, ServiceError
from posttrain_crew.tools.literature.paper import normalise_id
from posttrain_crew.tools.literature.reading.document import Attempt, Document, Source
from posttrain_crew.tools.literature.reading.guard import MAX_HTML_BYTES
from posttrain_crew.tools.literature.reading.html import parse_html
from posttrain_crew.tools.literature.reading.markdown import parse_markdown
from posttrain_crew.tools.literature.reading.pdf import MAX_PDF_BYTES, parse_pdf
from posttrain_crew.tools.services.http import Answer, Service
from posttrain_crew.tools.services.services import Services

__all__ = ["PaperReader"]

_MAX_AGE_S = 30 * 86_400.0
"""A published version does not change; a new version may come."""


class PaperReader:
    """Reads full texts by way of the run's services, with their cache, pace and breakers."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def read(self, arxiv_id: str) -> Document:
        """The full text.

        Args:
            arxiv_id: in any usual spelling.

        Raises:
            InputError: it is no arXiv id, or no service may be asked.
            NotFoundError: every place answers that it does not have the paper.
            ServiceError: of the first place that failed in another way, when no place gave the text.
        """
        paper = normalise_id(arxiv_id)
        tried: list[Attempt] = []
        failure: ServiceError | None = None
        for source, get, parse in self._places(paper):
            try:
                answer = get()
                document = parse(answer.body)
            except ServiceError as error:
                tried.append(Attempt(source, str(error), type(error).__name__))
                if failure is None or (isinstance(failure, NotFoundError) and not isinstance(error, NotFoundError)):
                    failure = error
                continue
            stale = (f"the copy is {answer.age_s / 86_400:.0f} days old: {answer.stale}",) if answer.stale else ()
            read = Attempt(source, answer.stale or "read", stale=answer.stale is not None)
            return replace(document, tried=(*tried, read), notes=(*document.notes, *stale))
        reasons = "; ".join(f"{attempt.source}: {attempt.outcome}" for attempt in tried)
        if failure is None:
            raise NotFoundError(f"there is no place to read {paper} from.")
        raise type(failure)(
            f"the full text of {paper} could not be read. {reasons}",
            service=failure.service,
            status=failure.status,
            retry_after=failure.retry_after,
        ) from failure

    def _places(self, paper: str) -> list[tuple[Source, Callable[[], Answer], Callable[[bytes], Document]]]:
        services = self._services

        def ask(service: Callable[[], Service], path: str, max_bytes: int) -> Callable[[], Answer]:
            return lambda: service().get(path, max_age_s=_MAX_AGE_S, stale_if_down=True, max_bytes=max_bytes)

        def html(source: Source) -> Callable[[bytes], Document]:
            return lambda body: parse_html(body, paper, source)

        return [
            ("arxiv-html", ask(lambda: services.arxiv, f"html/{paper}", MAX_HTML_BYTES), html("arxiv-html")),
            ("ar5iv", ask(lambda: services.ar5iv, f"html/{paper}", MAX_HTML_BYTES), html("ar5iv")),
            (
                "hf-markdown",
                ask(lambda: services.hub, f"papers/{paper}.md", MAX_HTML_BYTES),
                lambda body: _markdown(body, paper),
            ),
            ("pdf", ask(lambda: services.arxiv, f"pdf/{paper}", MAX_PDF_BYTES), lambda body: parse_pdf(body, paper)),
        ]


def _markdown(body: bytes, paper: str) -> Document:
    if body[:200].lstrip().lower().startswith((b"<!doctype html", b"<html")):
        # the Hub answers with the paper's own page where it has no markdown (facts of huggingface_hub's read_paper)
        raise NotFoundError(f"Hugging Face has a page of {paper}, but not its text.", service="huggingface")
    return parse_markdown(body, paper)
