"""`crew papers` against the loopback services."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from typer.testing import CliRunner

from posttrain_crew.crews.cli import app
from posttrain_crew.errors import CrewError, InputError, NotFoundError, ServiceUnavailableError
from tests.loopback.world import Loopback


@pytest.fixture(autouse=True)
def served(world: Loopback, monkeypatch: pytest.MonkeyPatch) -> Loopback:
    monkeypatch.setenv("CREW_LOOPBACK_URL", world.url)
    return world


def papers(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["papers", *arguments, "--sources", "loopback"])


def last(*arguments: str) -> dict[str, Any]:
    done = papers(*arguments, "--json")
    assert done.exit_code == 0, done.output
    value: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return value


def failure(*arguments: str) -> CrewError:
    error = papers(*arguments).exception
    assert isinstance(error, CrewError), error
    return error


def test_search_shows_each_paper_once_with_who_knows_it() -> None:
    found = last("search", "worked solutions reasoning small models")
    ids = [paper["ids"]["arxiv"] for paper in found["papers"] if paper["ids"]["arxiv"]]
    assert ids[0] == "2609.90001" and len(set(ids)) == len(ids)
    assert {"semantic_scholar", "arxiv", "huggingface"} <= set(found["papers"][0]["sources"])
    assert found["complete"] is True and found["failures"] == []
    assert "2609.90001" in papers("search", "worked solutions reasoning small models").stdout


def test_a_failed_source_is_warned_of_and_a_failed_search_is_an_error(served: Loopback) -> None:
    served.faults.add("s2", "500", times=None)
    done = papers("search", "worked solutions reasoning")
    assert done.exit_code == 0 and "warning: semantic_scholar failed" in done.stderr
    for service in ("arxiv", "hub"):
        served.faults.add(service, "500", times=None)
    error = failure("search", "another thing altogether")
    assert isinstance(error, ServiceUnavailableError) and error.exit_code == 5


def test_show_gives_the_outline_and_a_section() -> None:
    told = last("show", "arXiv:2609.90001v1")
    assert told["full_text"] == "arxiv-html" and told["outline"]
    section = next(row["id"] for row in told["outline"] if row["tables"])
    text = papers("show", "2609.90001", "--section", section)
    assert text.exit_code == 0 and "|" in text.stdout
    with_page = last("show", "2609.90001", "--page", "1")
    assert with_page["text"].startswith("# Worked Solutions") and with_page["pages"] >= 1


def test_cites_leads_to_the_data_paper_with_its_sentence() -> None:
    told = last("cites", "2609.90001")
    reached = {one["paper"]["ids"]["arxiv"]: one for one in told["papers"]}
    step = reached["2609.90007"]["path"][-1]
    assert step["direction"] == "references" and step["context"] and step["influential"]
    assert "2609.90007" in papers("cites", "2609.90001").stdout


def test_recipes_quote_the_text_that_they_were_read_from() -> None:
    told = last("recipes", "2609.90001")
    first = told["recipes"][0]
    assert first["method"] == "sft"
    rate = first["hyperparameters"]["learning_rate"]
    assert rate["value"] == 2e-5 and rate["evidence"]["text"]
    assert "learning_rate" in papers("recipes", "2609.90001").stdout


def test_a_text_that_was_read_elsewhere_is_warned_of_everywhere(served: Loopback) -> None:
    for service in ("arxiv_html", "ar5iv"):
        served.faults.add(service, "502", times=None)
    for arguments in (
        ("recipes", "2609.90001"),
        ("show", "2609.90001"),
        ("show", "2609.90001", "--page", "1"),
        ("show", "2609.90001", "--section", "sec-5"),
    ):
        done = papers(*arguments)
        assert done.exit_code == 0
        assert "warning: full text of arxiv-html failed (ServiceUnavailableError)" in done.stderr
        assert "full text of ar5iv" in done.stderr
        told = last(*arguments)
        assert [one["source"] for one in told["failures"]] == ["full text of arxiv-html", "full text of ar5iv"]
        assert told["complete"] is False
    served.faults.clear()
    served.faults.add("s2", "502", times=None)
    assert "warning: semantic_scholar failed" in papers("show", "2609.90002", "--page", "1").stderr


def test_a_text_that_could_not_be_read_at_all_is_a_failure_and_not_an_absence(served: Loopback) -> None:
    for service in ("arxiv_html", "ar5iv"):
        served.faults.add(service, "502", times=None)
    served.faults.add("hub", "502", times=None, path=".md")
    told = last("show", "2609.90001")
    assert told["full_text"] is None and told["complete"] is False
    assert [one["source"] for one in told["failures"]] == ["full text"]
    assert "warning: full text failed" in papers("show", "2609.90001").stderr


def test_recipes_are_read_by_any_name_of_the_paper() -> None:
    corpus = last("show", "2609.90001")["paper"]["ids"]["corpus"]
    assert last("recipes", f"CorpusId:{corpus}")["paper"] == "2609.90001"
    assert "not there" in str(failure("recipes", "10.55555/loop.2025.11"))
    assert "states no training" in papers("recipes", "2609.90007").stdout


def test_a_failure_is_told_with_its_reason(served: Loopback) -> None:
    served.faults.add("s2", "moved_fields", times=None)
    done = papers("search", "worked solutions reasoning small models")
    assert done.exit_code == 0 and "without" in done.stderr and "fields=" not in done.stderr


def test_a_query_that_is_cut_is_told() -> None:
    for command in ("search", "passages"):
        assert "first 250 or 300" in papers(command, "worked & solutions\n" * 600).stderr
        assert "first 250" not in papers(command, "worked solutions").stderr


def test_bad_input_is_refused() -> None:
    unknown = failure("show", "2609.90001", "--section", "S77")
    assert isinstance(unknown, InputError) and "S4" in str(unknown)
    assert isinstance(failure("show", "../../etc/passwd"), InputError)
    assert isinstance(failure("show", "2609.99999"), NotFoundError)
    assert isinstance(failure("cites", "2609.90001", "--direction", "sideways"), InputError)
    assert isinstance(failure("search", "&&& ???"), InputError)


def test_a_query_adds_no_parameter(served: Loopback) -> None:
    papers("search", "grpo & limit=1#x\nGET /" + "long " * 2000)
    asked = [request for request in served.requests if request.path.endswith("/paper/search")]
    assert asked and served.unknown_parameters == []
    assert dict(asked[0].parameters)["query"].startswith("grpo & limit=1#x GET /")
    assert len(asked[0].query) < 4000


def test_filters_passages_likes_and_the_day_are_asked_for_by_people(served: Loopback) -> None:
    assert all(p["citation_count"] >= 4 for p in last("search", "worked solutions", "--min-citations", "4")["papers"])
    served.faults.add("s2", "503", times=None)
    assert isinstance(failure("search", "reasoning", "--year-to", "2026"), ServiceUnavailableError)  # not unfiltered
    served.faults.clear()
    assert last("similar", "2609.90001", "--limit", "3")["papers"]
    assert last("passages", "unit", "--paper", "2609.90007")["passages"][0]["paper"]["ids"]["arxiv"] == "2609.90007"
    assert last("daily", "--limit", "3")["papers"]
    assert isinstance(failure("daily", "--day", "yesterday"), InputError)


def test_the_cache_says_where_it_is_and_can_be_cleared() -> None:
    last("search", "worked solutions reasoning small models")

    def told(*arguments: str) -> dict[str, Any]:
        done = CliRunner().invoke(app, ["papers", "cache", "--json", *arguments])
        value: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        return value

    kept = told()
    assert {"semantic_scholar", "arxiv", "huggingface"} <= {row["service"] for row in kept["services"] if row["bytes"]}
    assert sum(row["answers"] for row in told("--clear")["services"]) == 0


def test_without_a_network_the_library_answers_and_says_that_it_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("S2", "ARXIV_API", "ARXIV"):
        monkeypatch.setenv(f"CREW_{name}_URL", "http://127.0.0.1:9")  # the discard port: nobody listens
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    start = time.monotonic()
    done = CliRunner().invoke(app, ["papers", "search", "grpo"])
    assert done.exit_code == 0 and "2402.03300" in done.stdout and time.monotonic() - start < 20
    assert done.stderr.count("cannot be reached") == 3 and "only the library" in done.stderr


def test_a_model_that_is_down_leaves_what_the_rules_read(monkeypatch: pytest.MonkeyPatch) -> None:
    by_rules = last("recipes", "2609.90001")["recipes"]
    monkeypatch.setenv("CREW_LLM_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("CREW_LLM_API_KEY", "none")
    monkeypatch.setattr("posttrain_crew.tools.services.llm_request._wait", lambda *_: 0.0)
    told = last("recipes", "2609.90001", "--llm", "openai/none-such")
    assert told["recipes"] == by_rules and told["complete"] is False
    assert [failure["source"] for failure in told["failures"]] == ["language model"]
    shown = papers("recipes", "2609.90001", "--llm", "openai/none-such")
    assert shown.exit_code == 0 and "learning_rate" in shown.stdout
    said = " ".join(shown.stderr.split())
    assert "language model failed (ServiceUnavailableError), what is shown was read by rules, without it" in said
    assert "CREW_LLM_BASE_URL" in said and "ask again" in said and "sampled" not in said
    assert isinstance(failure("recipes", "2609.90001", "--llm", "no-provider"), InputError)
