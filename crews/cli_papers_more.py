"""`crew papers similar|passages|daily|cache`: what services have besides searches, and where their answers are kept."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Annotated

import typer

from posttrain_crew.crews.cli_common import JsonFlag, console, echo_json
from posttrain_crew.crews.cli_papers import (
    PaperArgument,
    SourcesOption,
    papers_app,
    services_of,
    short_name,
    table,
    tell_failures,
    tell_long_query,
    tell_papers,
)

__all__ = ["cache", "daily", "passages", "similar"]


@papers_app.command()
def similar(
    paper: PaperArgument,
    limit: Annotated[int, typer.Option(min=1, max=100, help="Papers at most.")] = 10,
    sources: SourcesOption = "live",
    json_output: JsonFlag = False,
) -> None:
    """Papers like one, as Semantic Scholar recommends them."""
    from posttrain_crew.tools.literature.services.finder import PaperFinder
    from posttrain_crew.tools.literature.services.ids import parse_ids

    found = PaperFinder(services_of(sources)).recommendations(parse_ids(paper), limit=limit)
    tell_papers(found, json_output, none="Semantic Scholar recommends no paper for this one.")


@papers_app.command()
def passages(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What the passage should say.")],
    paper: Annotated[list[str] | None, typer.Option(help="Only in this paper; may be repeated.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="Passages at most.")] = 5,
    sources: SourcesOption = "live",
    json_output: JsonFlag = False,
) -> None:
    """Passages of full texts that fit a query, each with its paper and section."""
    from rich.text import Text

    from posttrain_crew.tools.literature.services.finder import PaperFinder
    from posttrain_crew.tools.literature.services.ids import parse_ids

    within = [parse_ids(name) for name in paper or ()]
    found = PaperFinder(services_of(sources)).snippets(query, within=within, limit=limit)
    if json_output:
        echo_json(
            {
                "passages": [snippet.model_dump(mode="json") for snippet in found.snippets],
                "failures": [failure.model_dump(mode="json") for failure in found.failures],
                "complete": not found.degraded,
            }
        )
        return
    out = console()
    for snippet in found.snippets:
        out.print(Text(f"{short_name(snippet.paper)}  {snippet.paper.title}  [{snippet.section or 'abstract'}]"))
        out.print(Text(f"  {snippet.text}\n"))
    if not found.snippets:
        out.print("No passage fits. Try other words.")
    tell_failures(found.failures)
    tell_long_query(query)


@papers_app.command()
def daily(
    day: Annotated[str | None, typer.Option(help="YYYY-MM-DD; the latest by default.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="Papers at most.")] = 20,
    sources: SourcesOption = "live",
    json_output: JsonFlag = False,
) -> None:
    """Papers of the day at Hugging Face."""
    from posttrain_crew.tools.literature.services.hf_papers import HuggingFacePapers

    found = HuggingFacePapers(services_of(sources).hub).daily(day, limit=limit)
    if json_output:
        echo_json({"papers": [record.model_dump(mode="json") for record in found]})
    elif found:
        table(("paper", "published", "title"), [(short_name(p), p.published or "", p.title) for p in found])
    else:
        console().print("No paper was put forward on that day.")


@papers_app.command()
def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Remove all answers; they are asked for again.")] = False,
    json_output: JsonFlag = False,
) -> None:
    """Where answers of services are kept, and how much; each service has at most 256 MiB, the oldest leave first."""
    from posttrain_crew.settings import cache_dir
    from posttrain_crew.tools.services.cache import AnswerCache

    root = cache_dir() / "services"
    kept = {path.name: AnswerCache(path) for path in sorted(root.iterdir()) if path.is_dir()} if root.is_dir() else {}
    if clear:
        for answers in kept.values():
            answers.clear()
    now = time.time()
    told = [(name, *answers.size(), answers.oldest()) for name, answers in kept.items()]
    if json_output:
        rows = [
            {"service": name, "answers": files, "bytes": size, "oldest_s": None if oldest is None else now - oldest}
            for name, files, size, oldest in told
        ]
        echo_json({"folder": str(root), "services": rows})
        return
    console().print(f"{root}: {sum(size for _, _, size, _ in told) / 2**20:.1f} MiB")
    if told:
        table(
            ("service", "answers", "MiB", "oldest"),
            [
                (name, files, f"{size / 2**20:.1f}", "" if oldest is None else timedelta(seconds=round(now - oldest)))
                for name, files, size, oldest in told
            ],
        )
