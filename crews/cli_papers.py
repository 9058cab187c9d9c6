"""`crew papers ...`: search, read, follow citations and extract recipes, without any agent or run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from posttrain_crew.crews.cli_common import JsonFlag, console, echo_json
from posttrain_crew.errors import InputError

if TYPE_CHECKING:
    from posttrain_crew.tools.literature.extraction.recipe import ExtractedRecipe
    from posttrain_crew.tools.literature.reading.document import Document
    from posttrain_crew.tools.literature.services.base import Direction, PaperRecord, SourceFailure
    from posttrain_crew.tools.literature.services.finder import Found
    from posttrain_crew.tools.literature.services.graph import Reached
    from posttrain_crew.tools.services.services import Services

__all__ = [
    "PaperArgument",
    "SourcesOption",
    "papers_app",
    "register",
    "services_of",
    "short_name",
    "table",
    "tell_failures",
    "tell_long_query",
    "tell_papers",
]

papers_app = typer.Typer(help="Search and read papers, follow citations, extract recipes.", no_args_is_help=True)

PaperArgument = Annotated[str, typer.Argument(metavar="PAPER", help="arXiv id, DOI, CorpusId:N or the page's URL.")]
SourcesOption = Annotated[
    str, typer.Option(help="live, shipped (the library that comes with crew), live,shipped, or loopback.")
]
DIRECTIONS = ("references", "cited_by", "both")
SECTION_CHARS = 12_000
LANGUAGE_MODEL = "language model"
SHORTEST_LIMIT = 250  # of Hugging Face; Semantic Scholar and arXiv get 300


def register(app: typer.Typer) -> None:
    """Add the group of this module."""
    from posttrain_crew.crews import cli_papers_more  # noqa: F401 - adds further commands to the group

    app.add_typer(papers_app, name="papers")


@papers_app.command()
def search(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="A few words.")],
    year_from: Annotated[int | None, typer.Option(help="Only papers of this year or later.")] = None,
    year_to: Annotated[int | None, typer.Option(help="Only papers of this year or earlier. *")] = None,
    min_citations: Annotated[int, typer.Option(min=0, help="Only papers that are cited this often. *")] = 0,
    field: Annotated[
        list[str] | None, typer.Option(help="Only of this field, for example 'Computer Science'; may be repeated. *")
    ] = None,
    open_access: Annotated[bool, typer.Option("--open-access", help="Only with a free PDF. *")] = False,
    limit: Annotated[int, typer.Option(min=1, max=100, help="Papers at most.")] = 10,
    sources: SourcesOption = "live,shipped",
    json_output: JsonFlag = False,
) -> None:
    """Search Semantic Scholar, arXiv, Hugging Face papers and the shipped library; the same paper is shown once.

    With an option that is marked * Semantic Scholar alone is asked: the others do not know these things of a paper.
    """
    from posttrain_crew.tools.literature.services.finder import PaperFinder

    found = PaperFinder(services_of(sources)).search(
        query,
        year_from=year_from,
        limit=limit,
        year_to=year_to,
        min_citations=min_citations,
        fields_of_study=field or (),
        open_access=open_access,
    )
    tell_papers(found, json_output)
    tell_long_query(query)


@papers_app.command()
def show(
    paper: PaperArgument,
    section: Annotated[str | None, typer.Option(help="Id of a section, to read it in full.")] = None,
    page: Annotated[int | None, typer.Option(min=1, help="A page of the whole text.")] = None,
    sources: SourcesOption = "live,shipped",
    json_output: JsonFlag = False,
) -> None:
    """One paper: what the sources know of it, the outline of its full text, or a part of the text."""
    from rich.text import Text

    from posttrain_crew.errors import NotFoundError, ServiceError
    from posttrain_crew.tools.literature.reading.reader import PaperReader
    from posttrain_crew.tools.literature.services.base import SourceFailure
    from posttrain_crew.tools.literature.services.finder import PaperFinder
    from posttrain_crew.tools.literature.services.ids import parse_ids
    from posttrain_crew.tools.literature.shelf import FULL_TEXT, text_failures

    services = services_of(sources)
    known = PaperFinder(services).paper(parse_ids(paper))
    record, failures = known.paper, list(known.failures)
    document: Document | None = None
    unread = "only the shipped library was asked, which holds no full texts."
    if services.online and record.ids.arxiv:
        try:
            document = PaperReader(services).read(record.ids.arxiv)
            failures += text_failures(document)
        except ServiceError as error:
            if section or page:
                raise
            unread = str(error)
            if not isinstance(error, NotFoundError):  # that every place says it has no text is an answer
                failures.append(SourceFailure.of(FULL_TEXT, error))
    elif services.online:
        unread = "the paper is not on arXiv."
    if document is None and (section or page):
        raise InputError(f"{paper} has no full text to show: {unread}")
    text, pages = None, None
    if document is not None and section:
        text = "\n\n".join(f"{part.heading}\n\n{part.text}" for part in document.within(section))
    elif document is not None and page:
        text, pages = document.page(page, SECTION_CHARS)
    out = console()
    if json_output:
        echo_json(
            {
                "paper": record.model_dump(mode="json"),
                "failures": [failure.model_dump(mode="json") for failure in failures],
                "complete": not failures,
                "full_text": None if document is None else document.source,
                "full_text_problem": unread if document is None else None,
                "full_text_tried": [] if document is None else [[a.source, a.outcome] for a in document.tried],
                "notes": [] if document is None else list(document.notes),
                "outline": [] if document is None else document.outline(),
                "text": text,
                "pages": pages,
            }
        )
        return
    if text is not None:
        out.print(Text(text if pages is None else f"{text}\n\npage {page} of {pages}"))
        _notes(document)
        tell_failures(failures)
        return
    out.print(Text(f"{record.title} ({record.year or 'year unknown'})"))
    out.print(Text(f"  {', '.join(record.authors[:8])}{' and others' if len(record.authors) > 8 else ''}"))
    out.print(Text(f"  {', '.join(record.ids.names)}; cited {_count(record.citation_count) or '?'} times"))
    for label, values in (("datasets", record.datasets), ("models", record.models)):
        if values:
            out.print(Text(f"  {label}: {', '.join(values[:10])}"))
    if record.abstract:
        out.print(Text(f"\n{record.abstract}\n"))
    elif record.summary:
        out.print(Text(f"\n{record.summary}\n"))
    if document is None:
        out.print(Text(f"full text: {unread}"))
    else:
        out.print(f"full text from {document.source}; `--section ID` shows a part")
        table(
            ("id", "section", "kind", "characters", "tables"),
            [(r["id"], r["heading"], r["kind"], r["characters"], r["tables"]) for r in document.outline()],
        )
        _notes(document)
    tell_failures(failures)


@papers_app.command()
def cites(
    papers: Annotated[list[str], typer.Argument(metavar="PAPER...", help="Where the walk starts.")],
    direction: Annotated[str, typer.Option(help="references, cited_by or both.")] = "both",
    depth: Annotated[int, typer.Option(min=1, max=5, help="Edges from the start at most.")] = 1,
    limit: Annotated[int, typer.Option(min=1, max=200, help="Papers at most.")] = 15,
    requests: Annotated[int, typer.Option(min=1, max=200, help="Questions to the services at most.")] = 12,
    sources: SourcesOption = "live,shipped",
    json_output: JsonFlag = False,
) -> None:
    """Walk the citation graph, the most telling citations first: influence, intent, recency, citations."""
    if direction not in DIRECTIONS:
        raise InputError(f"--direction must be one of {', '.join(DIRECTIONS)}; {direction!r} was given.")
    from rich.text import Text

    from posttrain_crew.tools.literature.services.finder import PaperFinder
    from posttrain_crew.tools.literature.services.graph import WalkBudget, walk
    from posttrain_crew.tools.literature.services.ids import parse_ids

    directions: Sequence[Direction] = ("references", "cited_by")
    if direction != "both":
        directions = ("references",) if direction == "references" else ("cited_by",)
    budget = WalkBudget(max_papers=limit, max_requests=requests, max_depth=depth)
    found = walk(
        PaperFinder(services_of(sources)), [parse_ids(paper) for paper in papers], directions=directions, budget=budget
    )
    if json_output:
        echo_json(
            {
                "papers": [_reached(one) for one in found.reached],
                "seen": found.seen,
                "requests": found.requests,
                "not_asked": found.not_asked,
                "cut": found.cut,
                "failures": [
                    {"paper": f.paper, "direction": f.direction, **f.failure.model_dump(mode="json")}
                    for f in found.failures
                ],
                "complete": not found.failures,
            }
        )
        return
    table(
        ("paper", "year", "cited", "way", "why", "title"),
        [
            (
                short_name(one.paper),
                one.paper.year or "",
                _count(one.paper.citation_count),
                " > ".join(_bare(step.end) for step in one.path),
                ", ".join([*(["influential"] if one.path[-1].influential else []), *one.path[-1].intents]),
                one.paper.title,
            )
            for one in found.reached
        ],
    )
    out = console()
    out.print(f"{len(found.reached)} of {found.seen} papers, {found.requests} questions asked")
    if found.not_asked:
        out.print(Text(f"not followed, for `--requests`: {', '.join(map(_bare, found.not_asked[:8]))}"))
    if found.cut:
        out.print(
            Text(f"only the first {budget.per_request} citations seen of: {', '.join(map(_bare, found.cut[:8]))}")
        )
    tell_failures([failure.failure for failure in found.failures])


@papers_app.command()
def recipes(
    paper: PaperArgument,
    llm: Annotated[
        str | None,
        typer.Option(help="Let this model read, as litellm names it; what the text does not state is refused."),
    ] = None,
    sources: SourcesOption = "live",
    json_output: JsonFlag = False,
) -> None:
    """Training recipes that a paper states: method, data, settings, compute, scores, each with its quotation."""
    from rich.text import Text

    from posttrain_crew.tools.literature.extraction.read import read_recipes
    from posttrain_crew.tools.literature.reading.reader import PaperReader
    from posttrain_crew.tools.literature.services.base import SourceFailure
    from posttrain_crew.tools.literature.services.finder import PaperFinder
    from posttrain_crew.tools.literature.services.ids import parse_ids
    from posttrain_crew.tools.literature.shelf import text_failures

    services = services_of(sources)
    ids = parse_ids(paper)
    if not services.online:
        raise InputError("recipes are read from full texts, which the shipped library does not have: `--sources live`.")
    if ids.arxiv is None:  # another name of a paper that may be there
        ids = PaperFinder(services).paper(ids).paper.ids
    if ids.arxiv is None:
        raise InputError(f"recipes are read from full texts on arXiv, and {paper} is not there as far as is known.")
    document = PaperReader(services).read(ids.arxiv)
    failures = text_failures(document)
    told = read_recipes(document, None if llm is None else _completion(llm))
    if told.llm_failure is not None:
        failures.append(SourceFailure.of(LANGUAGE_MODEL, told.llm_failure))
    found, rejected, notes = told.recipes, told.rejected, [*document.notes, *told.notes]
    if json_output:
        echo_json(
            {
                "paper": document.arxiv_id,
                "title": document.title,
                "read_from": document.source,
                "notes": notes,
                "recipes": [recipe.model_dump(mode="json") for recipe in found],
                "rejected": [each.model_dump(mode="json") for each in rejected],
                "failures": [failure.model_dump(mode="json") for failure in failures],
                "complete": not failures,
            }
        )
        return
    out = console()
    out.print(Text(f"{document.title} ({document.arxiv_id}, {document.source}): {len(found)} recipe(s)"))
    for note in notes:
        typer.echo(f"note: {note}", err=True)
    for recipe in found:
        out.print(Text(f"\n{recipe.method}{f' of {recipe.base_model.value}' if recipe.base_model else ''}"))
        table(("field", "value", "place", "text"), _rows(recipe))
    if not found:
        out.print("The text states no training of its own whose settings could be read.")
    for each in rejected:
        out.print(Text(f"refused {each.field}: {each.reason}"))
    tell_failures(failures)


def _completion(model: str) -> Callable[[str], str]:
    from posttrain_crew.errors import AgentError
    from posttrain_crew.settings import Settings
    from posttrain_crew.tools.data.synthesis.chat import RefusedError
    from posttrain_crew.tools.data.synthesis.litellm_complete import LiteLLMComplete

    ask = LiteLLMComplete(
        model, Settings(), when_down="Check that it runs and that CREW_LLM_BASE_URL names its server, then ask again."
    )

    def complete(prompt: str) -> str:
        try:
            return ask([{"role": "user", "content": prompt}], temperature=0.0, max_tokens=8000, seed=0).text
        except RefusedError as error:  # a paper that does not fit into its context, for example
            raise AgentError(f"the model `{model}` refused to read it: {error}") from error

    return complete


def _rows(recipe: ExtractedRecipe) -> list[tuple[str, str, str, str]]:
    rows = []
    for dataset in recipe.datasets:
        rows.append(("dataset", dataset.hub_id or dataset.name, dataset.evidence))
    for name, stated in recipe.hyperparameters.items():
        rows.append((name, f"{stated.value} {stated.unit}".strip(), stated.evidence))
    for name in ("gpu", "count", "hours"):
        if stated := getattr(recipe.compute, name):
            rows.append((f"compute {name}", f"{stated.value} {stated.unit}".strip(), stated.evidence))
    for score in recipe.scores:
        before = "" if score.before is None else f"{score.before:g} -> "
        rows.append((f"score {score.benchmark}", f"{before}{score.after:g}", score.evidence))
    return [
        (
            name,
            value,
            evidence.section,
            " | ".join(p for p in (evidence.row, evidence.column, evidence.text) if p)[:160],
        )
        for name, value, evidence in rows
    ]


def services_of(sources: str) -> Services:
    """What `--sources` stands for. Raises InputError."""
    from posttrain_crew.tools.services.services import Services

    return Services.parse(sources)


def _reached(one: Reached) -> dict[str, Any]:
    return {
        "paper": one.paper.model_dump(mode="json"),
        "score": round(one.score, 4),
        "path": [
            {
                "start": step.start,
                "end": step.end,
                "direction": step.direction,
                "context": step.context,
                "intents": list(step.intents),
                "influential": step.influential,
            }
            for step in one.path
        ],
    }


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns under their names."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for name in head:
        table.add_column(name, overflow="fold", justify="right" if name in ("year", "cited", "characters") else "left")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))  # Text: brackets of a title are no markup
    console().print(table)


def tell_papers(found: Found, json_output: bool, none: str = "No paper fits. Try fewer or other words.") -> None:
    """A list of papers, and what it lacks."""
    if json_output:
        echo_json(
            {
                "papers": [record.model_dump(mode="json") for record in found.papers],
                "asked": found.asked,
                "failures": [failure.model_dump(mode="json") for failure in found.failures],
                "complete": not found.degraded,
            }
        )
        return
    if found.papers:
        table(
            ("paper", "year", "cited", "title", "known to"),
            [
                (short_name(p), p.year or "", _count(p.citation_count), p.title, ", ".join(p.sources))
                for p in found.papers
            ],
        )
    elif found.degraded:
        console().print("The sources that answered have no paper that fits.")
    else:
        console().print(none)
    tell_failures(found.failures)
    failed = {failure.source for failure in found.failures if not failure.stale}
    if failed and set(found.asked) - failed == {"library"}:
        typer.echo(
            "warning: only the library that comes with crew was searched. `--sources shipped` asks it alone, at once.",
            err=True,
        )


def _notes(document: Document | None) -> None:
    """What was left out of the text that is shown."""
    for note in document.notes if document is not None else ():
        typer.echo(f"note: {note}", err=True)


def tell_failures(failures: Sequence[SourceFailure]) -> None:
    """To stderr: what the answer above lacks."""
    for failure in dict.fromkeys(failures):  # a walk meets the same one many times
        how = "an older answer was used" if failure.stale else "what it knows is missing above"
        if failure.source == LANGUAGE_MODEL:
            how = "what is shown was read by rules, without it"
        if failure.source.startswith("full text") and not failure.stale:
            how = "the next place that has the text was read" if " of " in failure.source else "no text is shown"
        typer.echo(f"warning: {failure.source} failed ({failure.error}), {how}: {failure.message[:600]}", err=True)


def tell_long_query(query: str) -> None:
    """To stderr, where services are asked with the beginning of it."""
    if len(" ".join(query.split())) > SHORTEST_LIMIT:
        typer.echo(
            f"note: the query has {len(query):,} characters; services are asked with its first 250 or 300.", err=True
        )


def short_name(paper: PaperRecord) -> str:
    """As it is typed: an arXiv id without its kind."""
    return _bare(paper.ids.key)


def _bare(key: str) -> str:
    return key.removeprefix("arxiv:")


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"
