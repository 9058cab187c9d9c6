"""The data desk on the loopback world: search, fetch, audit, build; what cannot be had is on the blackboard."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from posttrain_crew.entries import Incident, PaperRead, Recipe, TrainingSet
from posttrain_crew.errors import (
    AccessDeniedError,
    DatasetError,
    GateError,
    InputError,
    NotFoundError,
    ServiceUnavailableError,
)
from posttrain_crew.settings import Settings
from posttrain_crew.tools.data.desk import DataDesk
from posttrain_crew.tools.services.services import Services
from posttrain_crew.tools.tool import MAX_RESULT_CHARS, tools_of
from posttrain_crew.tools.workspace import Workspace
from tests.loopback.world import Loopback

from .tiny_hub import TinyHub

MakeWorkspace = Callable[..., Workspace]
GOOD, DUMP, WALLED, GONE = (
    "lab-notebook/quanta-steps", "quizdump/science-mcq-worked", "walled/physics-olympiad", "gone-lab/lost-set"
)  # fmt: skip


@pytest.fixture
def workspace(make_workspace: MakeWorkspace, services: Services) -> Workspace:
    return dataclasses.replace(make_workspace(), services=services)


def recipe(workspace: Workspace, papers: list[str], datasets: list[str]) -> str:
    """A recipe with one paper, as the literature agent leaves them."""
    read = workspace.board.post(
        PaperRead(arxiv_id=papers[0], title="t", year=2026, techniques=[], findings=[], source="arxiv",
                  datasets=["A Corpus of Unit-Checked Quantities"]),
        author="literature",
    )  # fmt: skip
    made = Recipe(method="sft", title="t", hypothesis="h", data_style="worked", arxiv_ids=papers, prior=0.5,
                  datasets=datasets)  # fmt: skip
    return workspace.board.post(made, author="literature", refs=[read.id], status="hypothesis").id


def incidents(workspace: Workspace) -> dict[str, str]:
    return {entry.body.where: entry.body.what for entry in workspace.board.of(Incident)}


def test_from_a_recipe_to_a_training_set(workspace: Workspace) -> None:
    name = recipe(workspace, ["2609.90001", "2609.90007", "2609.90014"], [GONE])
    desk = DataDesk(workspace)
    assert desk.list_candidates() == [], "the shipped catalogue is not among these sources"
    found = desk.search_datasets("science physics worked solutions", recipes=[name])
    names = [each["dataset"] for each in found["candidates"]]
    assert {GOOD, DUMP} <= set(names)
    unusable = {each["dataset"]: each["problem"] for each in found["problems"] if not each["usable"]}
    assert unusable == {WALLED: "gated", GONE: "missing"}
    assert {f"dataset {WALLED}", f"dataset {GONE}"} <= set(incidents(workspace))
    good = next(each for each in found["candidates"] if each["dataset"] == GOOD)
    assert "linked to arXiv 2609.90007" in good["reasons"]

    fetched = {dataset: desk.fetch_dataset(dataset) for dataset in (GOOD, DUMP)}
    listed = {each["dataset"]: each for each in desk.list_candidates()}
    assert set(listed) == {GOOD, DUMP}
    assert listed[GOOD]["revision"] == fetched[GOOD]["revision"] and listed[GOOD]["licence"] == "cc-by-4.0"
    assert listed[GOOD]["rows"] == 1800 and not listed[GOOD]["partial"]

    verdicts = {dataset: desk.audit_dataset(dataset) for dataset in (GOOD, DUMP)}
    assert verdicts[GOOD]["verdict"] != "rejected" and verdicts[GOOD]["licence"] == "cc-by-4.0"
    assert verdicts[DUMP]["verdict"] == "rejected"
    (leak,) = [each for each in verdicts[DUMP]["defects"] if each["severity"] == "reject"]
    assert leak["name"] == "contamination" and leak["value"] == pytest.approx(0.15, abs=0.02)
    assert leak["threshold"] == 0.05 and "5% is the limit for one off the Hub" in leak["detail"]
    assert "items of the benchmark" in verdicts[DUMP]["reason"]
    with pytest.raises(GateError, match="was rejected"):
        desk.build_training_set([GOOD, DUMP], "sft", "worked")
    built = desk.build_training_set([GOOD], "sft", "worked")
    entry = workspace.board.typed(built["id"], TrainingSet)
    assert entry.body.contamination.passed and entry.body.rows > 1000
    card = json.loads((workspace.run.absolute(entry.body.path).parent / "card.json").read_text())
    assert [each["revision"] for each in card["mixture"]["sources"]] == [fetched[GOOD]["revision"]]
    assert [share.dataset for share in entry.body.sources] == [GOOD]


def test_what_was_fetched_is_found_again_after_a_kill(workspace: Workspace, world: Loopback) -> None:
    before = DataDesk(workspace).fetch_dataset(GOOD)
    world.requests.clear()
    again = DataDesk(workspace)
    assert [each["dataset"] for each in again.list_candidates()] == [GOOD]
    assert again.list_candidates()[0]["revision"] == before["revision"]
    assert again.fetch_dataset(GOOD) == before and not world.requests
    offline = DataDesk(dataclasses.replace(workspace, services=Services()))
    assert GOOD in {each["dataset"] for each in offline.list_candidates()}, "data that is here needs no service"


def test_refusals_are_told_and_put_on_the_blackboard(make_workspace: MakeWorkspace, services: Services) -> None:
    workspace = dataclasses.replace(make_workspace(deny=["*/science-mcq-*"]), services=services)
    desk = DataDesk(workspace)
    with pytest.raises(AccessDeniedError, match="accept its terms"):
        desk.fetch_dataset(WALLED)
    with pytest.raises(NotFoundError):
        desk.fetch_dataset(GONE)
    with pytest.raises(DatasetError, match="20000 columns"):
        desk.fetch_dataset("evil/wide")
    with pytest.raises(GateError, match="deny list"):
        desk.fetch_dataset(DUMP)
    with pytest.raises(InputError, match="no dataset name"):
        desk.fetch_dataset("../../etc")
    told = incidents(workspace)
    assert set(told) == {f"dataset {WALLED}", f"dataset {GONE}", "dataset evil/wide"}
    assert "AccessDeniedError" in told[f"dataset {WALLED}"] and desk.list_candidates() == []
    assert not (workspace.run.data / "train.jsonl").exists()


def test_a_part_or_a_copy_is_told(workspace: Workspace, tmp_path: Path) -> None:
    rows = [{"question": f"{number} + 1?", "answer": str(number + 1)} for number in range(20)]
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    copy = {"default/train/0000.parquet": (tmp_path / "x.parquet").read_bytes()}
    many = TinyHub("many/files", {f"train-{number}.jsonl": lines for number in range(3)})
    arrow = TinyHub("only/arrow", {"data.arrow": b"x"}, copy=copy)
    for tiny in (many, arrow):
        with tiny.served():
            settings = Settings(loopback_url=tiny.url, dataset_max_files=2)
            services = Services.parse("loopback", settings, tmp_path / "cache" / tiny.id)
            made = DataDesk(dataclasses.replace(workspace, services=services)).fetch_dataset(tiny.id)
            assert made["partial"] is (tiny is many)
    told = incidents(workspace)
    assert "only 2 of its data files" in told["dataset many/files: only a part"]
    assert "parquet copy" in told["dataset only/arrow: its own files are not read"]
    assert {each["rows"] for each in DataDesk(workspace).list_candidates()} == {20, 40}


def test_what_a_set_really_is_stands_on_the_blackboard(workspace: Workspace, tmp_path: Path) -> None:
    table = b"question,answer\nWhat is it?,A\nWhat, now?,B\n"
    with TinyHub("only/test", {"test.csv": table}).served() as tiny:
        services = Services.parse("loopback", Settings(loopback_url=tiny.url), tmp_path / "cache" / "own")
        desk = DataDesk(dataclasses.replace(workspace, services=services))
        assert len(desk.fetch_dataset("only/test")["notes"]) == 2
    told = incidents(workspace)
    assert "only test.csv" in told["dataset only/test: no training split"]
    assert any("1 rows of test.csv have not the 2 values" in what for what in told.values())
    assert any("no training split" in note for note in desk.list_candidates()[0]["notes"])


def test_a_dataset_is_looked_at_before_it_is_fetched(workspace: Workspace, world: Loopback) -> None:
    desk = DataDesk(workspace)
    before = desk.profile_dataset(DUMP)
    assert before["source"] == "datasets_server" and before["rows"] > 100 and desk.list_candidates() == []
    asked = len(world.requests)
    assert desk.profile_dataset(DUMP) == before and len(world.requests) == asked
    desk.fetch_dataset(DUMP)
    assert desk.profile_dataset(DUMP)["source"] == "files"
    with pytest.raises(AccessDeniedError):
        desk.profile_dataset(WALLED)
    world.faults.add("datasets_server", "503", times=None)
    with pytest.raises(ServiceUnavailableError):
        desk.profile_dataset(GOOD)
    assert not any("resolve" in request.path and GOOD in request.path for request in world.requests)
    told = incidents(workspace)
    assert f"dataset {WALLED}" in told and f"profile of {GOOD}: ServiceUnavailableError" in told


def test_a_card_that_gives_orders_is_text(workspace: Workspace) -> None:
    desk = DataDesk(workspace)
    desk.fetch_dataset("evil/prompt-injection")
    before = workspace.board.last_seq()
    (listed,) = desk.list_candidates()
    assert listed["rows"] == 600 and len(listed["card"]) <= 300
    assert workspace.board.last_seq() == before


def test_an_outage_is_an_error_and_an_incident(workspace: Workspace, world: Loopback) -> None:
    world.faults.add("hub", "503", times=None)
    desk = DataDesk(workspace)
    with pytest.raises(ServiceUnavailableError):
        desk.search_datasets("science")
    assert any("ServiceUnavailableError" in where for where in incidents(workspace))
    tools = {tool.name: tool for tool in tools_of(desk)}
    answer = json.loads(tools["fetch_dataset"]({"dataset": GOOD}))
    assert answer["error"] == "ServiceUnavailableError"
    world.faults.clear()


def test_a_part_of_an_outage_is_told(workspace: Workspace, world: Loopback) -> None:
    world.faults.add("hub", "500", times=None, path="/api/papers/")
    tools = {tool.name: tool for tool in tools_of(DataDesk(workspace))}
    text = tools["search_datasets"]({"query": "science", "papers": ["2609.90007"], "limit": 20})
    found = json.loads(text)
    assert len(text) < MAX_RESULT_CHARS and found["candidates"]
    assert found["failures"][0]["asked"] == "the page of arXiv 2609.90007"
    assert any("the page of arXiv" in where for where in incidents(workspace))


def test_offline_the_tools_refuse_and_are_not_offered(make_workspace: MakeWorkspace, tmp_path: Path) -> None:
    desk = DataDesk(make_workspace([tmp_path]))
    assert {tool.name for tool in tools_of(desk) if tool.online} == {"search_datasets", "fetch_dataset"}
    with pytest.raises(InputError, match="looks for datasets in shipped only"):
        desk.search_datasets("science")
    with pytest.raises(InputError, match="--sources live"):
        desk.fetch_dataset(GOOD)


def test_folders_of_the_user_stay_candidates(make_workspace: MakeWorkspace, services: Services, tmp_path: Path) -> None:
    mine = tmp_path / "sets" / "mine"
    mine.mkdir(parents=True)
    (mine / "README.md").write_text("mine\n")
    (mine / "train.jsonl").write_text('{"question": "q", "choices": ["a", "b"], "answer": "A"}\n')
    workspace = dataclasses.replace(make_workspace([tmp_path / "sets"]), services=services)
    assert [each["dataset"] for each in DataDesk(workspace).list_candidates()] == ["mine"]
