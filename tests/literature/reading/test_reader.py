"""The reader takes the first place that has the text, tells what it tried, and never takes an outage for "not
there"."""

from __future__ import annotations

import pytest

from posttrain_crew.errors import (
    AccessDeniedError,
    InputError,
    NotFoundError,
    RateLimitedError,
    ServiceError,
    ServiceUnavailableError,
)
from posttrain_crew.tools.literature.extraction.read import read_recipes
from posttrain_crew.tools.literature.reading.reader import PaperReader
from posttrain_crew.tools.services.services import Services
from tests.loopback.world import Loopback


def test_arxiv_html_is_read_and_then_kept(reader: PaperReader, world: Loopback) -> None:
    document = reader.read("arXiv:2609.90001v2")
    assert (document.source, document.notes) == ("arxiv-html", ())
    assert [(attempt.source, attempt.outcome) for attempt in document.tried] == [("arxiv-html", "read")]
    assert document.title == "Worked Solutions Teach Small Language Models to Reason in Steps"
    asked = len(world.requests)
    assert reader.read("2609.90001") == document
    assert len(world.requests) == asked, "the second reading comes from the disk"


@pytest.mark.parametrize(
    ("broken", "source"),
    [
        ([("arxiv_html", "404")], "ar5iv"),
        ([("arxiv_html", "404"), ("ar5iv", "404")], "hf-markdown"),
        ([("arxiv_html", "404"), ("ar5iv", "404"), ("hub", "404")], "pdf"),
        ([("arxiv_html", "503"), ("ar5iv", "502")], "hf-markdown"),
    ],
)
def test_the_next_place_is_asked_and_all_are_told(
    reader: PaperReader, world: Loopback, broken: list[tuple[str, str]], source: str
) -> None:
    for service, kind in broken:
        world.faults.add(service, kind, times=50, path="/html/" if service == "arxiv_html" else "")
    document = reader.read("2609.90003")
    assert document.source == source
    assert len(document.tried) == len(broken) + 1
    assert document.tried[-1].outcome == "read"
    assert all(attempt.outcome != "read" for attempt in document.tried[:-1])
    assert "checkworks/failed-check-pairs" in document.text()


def test_html_and_markdown_give_the_same_recipes(reader: PaperReader, world: Loopback) -> None:
    by_html = read_recipes(reader.read("2609.90003")).recipes
    world.faults.add("arxiv_html", "404", times=50, path="/html/")
    world.faults.add("ar5iv", "404", times=50)
    by_markdown = read_recipes(reader.read("2609.90003v1")).recipes
    assert [one.method for one in by_html] == ["sft", "dpo"]
    # the markdown's tables have one row of heads, so columns may be read less well, but never differently
    for first, second in zip(by_html, by_markdown, strict=False):
        shared = first.settings().keys() & second.settings().keys()
        assert {name: first.settings()[name] for name in shared} == {name: second.settings()[name] for name in shared}


def test_not_found_is_only_said_when_every_place_says_so(reader: PaperReader, world: Loopback) -> None:
    with pytest.raises(NotFoundError, match=r"arxiv-html: .*ar5iv: .*hf-markdown: .*pdf: "):
        reader.read("2609.99999")
    assert {request[1].split("/")[1] for request in world.requests} == {"arxiv", "ar5iv", "papers"}


@pytest.mark.parametrize(
    ("service", "kind", "error"),
    [
        ("ar5iv", "503", ServiceUnavailableError),
        ("hub", "500", ServiceUnavailableError),
        ("ar5iv", "429", RateLimitedError),
        ("hub", "403", AccessDeniedError),
        ("ar5iv", "cut", ServiceUnavailableError),
    ],
)
def test_an_outage_is_never_not_found(
    reader: PaperReader, world: Loopback, service: str, kind: str, error: type[ServiceError]
) -> None:
    for name in {"arxiv_html", "ar5iv", "hub"} - {service}:
        world.faults.add(name, "404", times=50)
    world.faults.add(service, kind, times=50)
    with pytest.raises(error) as raised:
        reader.read("2609.90001")
    assert not isinstance(raised.value, NotFoundError)
    assert "2609.90001" in str(raised.value) and service.replace("hub", "huggingface") in str(raised.value)


def test_a_page_that_is_no_paper_sends_the_reader_on(reader: PaperReader, world: Loopback) -> None:
    world.faults.add("arxiv_html", "html", times=50, path="/html/")
    document = reader.read("2609.90002")
    assert document.source == "ar5iv"
    assert "ltx_document" in document.tried[0].outcome


def test_no_text_where_no_service_may_be_asked() -> None:
    with pytest.raises(InputError, match="--sources live"):
        PaperReader(Services.parse("shipped")).read("2609.90001")
    with pytest.raises(InputError, match="not an arXiv id"):
        PaperReader(Services.parse("shipped")).read("../../etc/passwd")
