"""Backends to test on: a real Slurm, a real Ray head, Hugging Face Jobs on loopback, and this machine."""

from __future__ import annotations

import os
import shutil
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from posttrain_crew.tools.compute.backend_settings import HfJobsSettings, RaySettings, SlurmSettings
from posttrain_crew.tools.compute.base import Compute, JobHandle, JobSpec
from posttrain_crew.tools.compute.names import tag_of
from tests.compute import ray_head, slurm_cluster
from tests.compute.slurm_cluster import SlurmCluster

if TYPE_CHECKING:
    from tests.loopback.world import Loopback

PATIENCE_S = 120.0
MODULES = {
    "naps": "import time; print('awake', flush=True); time.sleep(100)",
    "is_deaf": """
        import os, signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("deaf", os.getpid(), flush=True)
        time.sleep(100)
    """,
    "obeys": """
        import json, signal, sys, time
        def end(number, frame):
            told = {"ok": False, "error_class": "cancelled", "message": "asked to", "wall_s": 1.0}
            json.dump(told, open("outcome.json", "w"))
            sys.exit(1)
        signal.signal(signal.SIGTERM, end)
        print("awake", flush=True)
        time.sleep(100)
    """,
    "counts": """
        import json, os, sys, time
        for number in range(12):
            print("line", number, flush=True)
            with open("metrics.jsonl", "a") as stream:
                stream.write(json.dumps({"step": number}) + chr(10))
            time.sleep(0.1)
        json.dump({"ok": True, "steps": 12, "wall_s": 1.5, "metrics": {"loss": 0.5}}, open("outcome.json", "w"))
    """,
    "exits_with_3": "import sys; print('no such thing', flush=True); sys.exit(3)",
    "forgets_its_outcome": "print('done')",
    "tells_where": """
        import os, pathlib, time
        place = pathlib.Path(os.environ["CREW_TEST_DIARY"])
        with place.open("a") as diary:
            diary.write(os.environ["SLURMD_NODENAME"] + " " + os.environ["CREW_JOB_LABEL"] + chr(10))
        while not place.with_name("enough").exists():
            time.sleep(0.1)
        pathlib.Path("outcome.json").write_text('{"ok": true, "wall_s": 2.0}')
    """,
}


def until(condition: Callable[[], object], patience_s: float = PATIENCE_S) -> None:
    """Wait for something that has no event of its own."""
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)


def ended(compute: Compute, handle: JobHandle) -> None:
    until(lambda: compute.status(handle) == "ended")


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The jobs' modules, on the path of every process."""
    folder = tmp_path / "code"
    folder.mkdir()
    for name, text in MODULES.items():
        (folder / f"job_that_{name}.py").write_text(textwrap.dedent(text))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return folder


@pytest.fixture
def make_spec(tmp_path: Path, code: Path) -> Callable[..., JobSpec]:
    """A job of one of the modules, in a run of its own."""
    root = tmp_path / "run 1"
    root.mkdir()
    tag_of(root)

    def make(kind: str, label: str = "exp-1", timeout_s: float = 100.0) -> JobSpec:
        directory = root / "experiments" / label
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "config.yaml").write_text("{}")
        return JobSpec(label, f"job_that_{kind}", directory / "config.yaml", timeout_s, {"PYTHONPATH": str(code)})

    return make


@pytest.fixture(scope="session")
def started_cluster() -> Iterator[SlurmCluster]:
    if reason := slurm_cluster.missing():
        pytest.skip(reason)
    root = Path(tempfile.mkdtemp(prefix="slurm-"))
    try:
        with slurm_cluster.slurm_cluster(root) as cluster:
            yield cluster
    finally:
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def cluster(started_cluster: SlurmCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlurmCluster]:
    """The cluster, with both nodes up and no job of another test."""
    monkeypatch.setenv("SLURM_CONF", str(started_cluster.conf))
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:/usr/sbin:/sbin")
    yield started_cluster
    started_cluster.repair()


@pytest.fixture
def slurm_settings(cluster: SlurmCluster) -> SlurmSettings:
    return SlurmSettings(poll_seconds=0.2, settle_seconds=0.5)


@pytest.fixture(scope="session")
def started_ray() -> Iterator[str]:
    if reason := ray_head.missing():
        pytest.skip(reason)
    root = Path(tempfile.mkdtemp(prefix="ray-"))
    try:
        with ray_head.ray_head(root) as address:
            yield address
    finally:
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def ray_settings(started_ray: str) -> RaySettings:
    return RaySettings(address=started_ray, poll_seconds=0.2, settle_seconds=0.5)


@pytest.fixture
def hf_settings(world: Loopback, monkeypatch: pytest.MonkeyPatch) -> HfJobsSettings:
    """The client as it is with HF_HUB_DISABLE_XET=1 and without HF_HUB_OFFLINE, which it reads when it is imported."""
    import sys

    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    return HfJobsSettings(
        endpoint=world.url, flavor="cpu-basic", python=sys.executable, poll_seconds=0.2, send_seconds=60.0
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One worker for all that starts a cluster: each other would start Slurm and Ray once more."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent) and item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.xdist_group("clusters"))
