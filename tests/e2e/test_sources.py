"""The loop on services: papers, citations and datasets come over HTTP from the loopback world, by the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from posttrain_crew.blackboard import Blackboard
from posttrain_crew.entries import DatasetProfile, Incident, PaperRead, Recipe, TrainingSet
from posttrain_crew.state import RunState
from tests.e2e.conftest import crew
from tests.loopback.world import Loopback

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800), pytest.mark.usefixtures("shared_cache")]

GOOD, CONTAMINATED = "lab-notebook/quanta-steps", "quizdump/science-mcq-worked"
SEARCHED, CITED = "2609.90001", "2609.90007"


def test_a_run_on_services_finds_data_over_citations_and_improves(tmp_path: Path, small_target: Path) -> None:
    """Papers are searched, citations lead to a dataset that no search returns, a contaminated one is rejected."""
    with Loopback() as world:
        world.faults.add("s2", "429_retry_after", times=1)
        arguments = ["--target", str(small_target), "--sources", "loopback", "--runs-dir", str(tmp_path), "--json"]
        done = crew("run", "posttrain", *arguments, environment={"CREW_LOOPBACK_URL": world.url})
        asked = [(request.method, request.path) for request in world.requests]
    assert done.code == 0, done.stderr[-3000:]
    result = done.last
    assert result["verdict"] == "improved"
    board = Blackboard(tmp_path / result["run"] / "blackboard.db")

    papers = {entry.body.arxiv_id: entry.body for entry in board.of(PaperRead)}
    assert SEARCHED in papers and CITED in papers
    assert papers[CITED].via[-2:] == [SEARCHED, CITED], "the data paper is reached over a citation"
    assert GOOD in papers[CITED].datasets
    recipes = [entry.body for entry in board.of(Recipe)]
    assert any(GOOD in recipe.datasets for recipe in recipes)
    quoted = [evidence for recipe in recipes for evidence in recipe.evidence]
    assert quoted and all(evidence.text and evidence.arxiv_id in papers for evidence in quoted)

    profiles = {entry.body.dataset: entry.body for entry in board.of(DatasetProfile)}
    assert profiles[CONTAMINATED].verdict == "rejected"
    assert any(defect.name == "contamination" for defect in profiles[CONTAMINATED].defects)
    assert profiles[GOOD].verdict != "rejected"
    best = RunState.of(board).experiments[RunState.of(board).best]
    trained_on = board.typed(best.entry.body.training_set, TrainingSet).body
    assert GOOD in {share.dataset for share in trained_on.sources}
    assert all(CONTAMINATED not in {s.dataset for s in entry.body.sources} for entry in board.of(TrainingSet))
    told = json.dumps([entry.body.model_dump() for entry in board.of(Incident)])
    assert "walled/physics-olympiad" in told, "a gated dataset is reported"

    paths = " ".join(path for _, path in asked)
    for service in ("/s2/graph/v1/", "/arxiv/api/query", "/arxiv/html/", "/api/papers/", "/api/datasets"):
        assert service in paths, service
    page = (tmp_path / result["run"] / "report.html").read_text()
    assert CITED in page and GOOD in page


def test_a_world_that_is_down_ends_the_command_before_a_run_is_made(tmp_path: Path) -> None:
    done = crew(
        "run", "posttrain", "--target", "gpqa-mini", "--sources", "loopback", "--runs-dir", str(tmp_path / "runs"),
        environment={"CREW_LOOPBACK_URL": "http://127.0.0.1:9"},
    )  # fmt: skip
    assert done.code == 5
    assert "python -m tests.loopback" in done.stderr
    assert not (tmp_path / "runs").exists()
