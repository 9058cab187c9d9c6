"""The loop on services, by the command line: LLM, papers, citations and datasets all come over HTTP from loopback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from posttrain_crew.blackboard import Blackboard
from posttrain_crew.entries import DatasetProfile, Incident, PaperRead, Recipe, TrainingSet
from posttrain_crew.state import RunState
from tests.e2e.conftest import crew
from tests.loopback.llm_server import LLMServer
from tests.loopback.world import Loopback

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800), pytest.mark.usefixtures("shared_cache")]

GOOD, CONTAMINATED = "lab-notebook/quanta-steps", "quizdump/science-mcq-worked"
SEARCHED, CITED = "2609.90001", "2609.90007"


def test_a_run_on_services_finds_data_over_citations_and_improves(tmp_path: Path, small_target: Path) -> None:
    """Papers are searched, citations lead to a dataset that no search returns, a contaminated one is rejected.

    The agents' LLM is the playbook behind HTTP, through litellm. Nothing connects to anything but loopback.
    """
    trace, guard = tmp_path / "connections.txt", tmp_path / "guard"
    guard.mkdir()
    (guard / "sitecustomize.py").write_text(SOCKET_GUARD)
    with Loopback() as world, LLMServer() as llm:
        world.faults.add("s2", "429_retry_after", times=1)
        done = crew(
            *("run", "posttrain", "--target", str(small_target), "--runs-dir", str(tmp_path), "--json"),
            *("--llm", "openai/playbook", "--sources", "loopback"),
            environment={
                "CREW_LOOPBACK_URL": world.url,
                "CREW_LLM_BASE_URL": llm.url,
                "CREW_LLM_API_KEY": "not-a-secret-at-all",
                "GUARD_LOG": str(trace),
                "PYTHONPATH": str(guard),
            },
        )
        asked = [(request.method, request.path) for request in world.requests]
        assert len(llm.requests) > 20
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

    hosts = set(trace.read_text().split())
    assert "127.0.0.1" in hosts and hosts <= {"127.0.0.1", "::1", "localhost"}, hosts
    assert "not-a-secret-at-all" not in (tmp_path / result["run"] / "events.jsonl").read_text()


def test_a_world_that_is_down_ends_the_command_before_a_run_is_made(tmp_path: Path) -> None:
    done = crew(
        "run", "posttrain", "--target", "gpqa-mini", "--sources", "loopback", "--runs-dir", str(tmp_path / "runs"),
        environment={"CREW_LOOPBACK_URL": "http://127.0.0.1:9"},
    )  # fmt: skip
    assert done.code == 5
    assert "python -m tests.loopback" in done.stderr
    assert not (tmp_path / "runs").exists()


SOCKET_GUARD = """
import os, socket
_log, _connect, _resolve = os.environ["GUARD_LOG"], socket.socket.connect, socket.getaddrinfo
def note(host):
    with open(_log, "a") as stream:
        stream.write(f"{host}\\n")
def connect(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6):
        note(address[0])
        if address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise ConnectionRefusedError(f"guard: {address}")
    return _connect(self, address)
def resolve(host, *rest, **more):
    note(host.decode() if isinstance(host, bytes) else host)
    return _resolve(host, *rest, **more)
socket.socket.connect, socket.getaddrinfo = connect, resolve
"""
