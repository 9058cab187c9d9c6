"""RayCompute on a real Ray head."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from posttrain_crew.errors import JobError, SlotsBusyError
from posttrain_crew.tools.compute.backend_settings import RaySettings
from posttrain_crew.tools.compute.base import Compute, JobHandle, JobSpec
from posttrain_crew.tools.compute.contact import BackendDownError
from posttrain_crew.tools.compute.names import cluster_name
from posttrain_crew.tools.compute.ray_jobs import RayCompute

from .conftest import ended, until

MakeSpec = Callable[..., JobSpec]


@pytest.fixture
def ray(ray_settings: RaySettings) -> RayCompute:
    return RayCompute(settings=ray_settings)


def outcome(spec: JobSpec) -> dict[str, object]:
    told: dict[str, object] = json.loads((spec.config.parent / "outcome.json").read_text())
    return told


@pytest.mark.slow
def test_jobs_run_once_also_where_the_answer_was_lost(
    ray: RayCompute, ray_settings: RaySettings, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(ray, Compute)
    assert ray.capacity().slots == 4
    post = httpx.Client.post

    def lost(self: httpx.Client, path: str, **options: object) -> httpx.Response:
        post(self, path, **options)  # type: ignore[arg-type]
        raise httpx.ReadTimeout("the answer was lost")

    spec = make_spec("counts")
    with monkeypatch.context() as patch:
        patch.setattr(httpx.Client, "post", lost)
        handle = ray.submit(spec)
    assert ray.submit(spec) == handle
    later = RayCompute(settings=ray_settings)
    assert later.find("exp-1", spec.config.parent) == handle
    assert [job.label for job in later.alive(spec.config.parents[2])] == ["exp-1"]
    busy = RayCompute(slots=1, settings=ray_settings)
    with pytest.raises(SlotsBusyError, match="exp-1"):
        busy.submit(make_spec("naps", "exp-2"))
    ended(later, handle)
    assert outcome(spec)["ok"]
    assert later.stream(handle).text.splitlines() == [f"line {n}" for n in range(12)]
    assert later.alive(spec.config.parents[2]) == []


@pytest.mark.slow
def test_a_job_that_waits_does_not_list_the_cluster_at_each_tick(
    ray_settings: RaySettings, make_spec: MakeSpec
) -> None:
    ray = RayCompute(slots=1, settings=ray_settings.model_copy(update={"poll_seconds": 0.05}))
    lists: list[str] = []

    def note(request: httpx.Request) -> None:
        if (request.method, request.url.path) == ("GET", "/api/jobs/"):
            lists.append(str(request.url))

    ray._http.event_hooks = {"request": [note]}
    first, second = make_spec("naps", "exp-1"), make_spec("counts", "exp-2")
    handle = ray.submit(first)
    for _ in range(10):
        with pytest.raises(SlotsBusyError, match="exp-1"):
            ray.submit(second)
        time.sleep(0.06)  # beyond poll_seconds: nothing is answered from memory alone
    assert len(lists) == 1, "once, for what an earlier crew may have left"
    ray.cancel(handle)
    until(lambda: _is_taken(ray, second))
    assert len(lists) == 1
    ended(ray, JobHandle("exp-2", "ray", second.config.parent, cluster_name(second.config.parent, "exp-2")))
    assert outcome(second)["ok"]


def _is_taken(ray: RayCompute, spec: JobSpec) -> bool:
    try:
        ray.submit(spec)
    except SlotsBusyError:
        return False
    return True


@pytest.mark.slow
def test_ends_are_told_by_their_class(ray: RayCompute, make_spec: MakeSpec) -> None:
    specs = {
        "cancelled": make_spec("is_deaf", "exp-1"),
        "timeout": make_spec("obeys", "exp-2", timeout_s=3.0),
        "crashed": make_spec("exits_with_3", "exp-3"),
    }
    handles = {kind: ray.submit(spec) for kind, spec in specs.items()}
    log = specs["cancelled"].config.parent / "log.txt"  # before there is one, `logs` shows what Ray says of the start
    until(lambda: log.exists() and log.read_text().startswith("deaf"))
    pid = int(ray.logs(handles["cancelled"]).split()[1])
    ray.cancel(handles["cancelled"], grace_s=1.0)
    ray.cancel(handles["cancelled"])
    until(lambda: not Path(f"/proc/{pid}").exists(), 10)
    for kind, handle in handles.items():
        ended(ray, handle)
        ray.fetch(handle)
        assert outcome(specs[kind])["error_class"] == kind
    assert "exit code 3" in str(outcome(specs["crashed"])["message"])


def test_a_head_that_is_down_is_waited_for(make_spec: MakeSpec) -> None:
    nowhere = RayCompute(settings=RaySettings(address="http://127.0.0.1:9", poll_seconds=0.0))
    with pytest.raises(JobError, match="CREW_RAY_ADDRESS"):
        nowhere.capacity()
    spec = make_spec("naps")
    with pytest.raises(BackendDownError, match="tried again"):
        nowhere.submit(spec)
    assert nowhere.find("exp-1", spec.config.parent) is None
    assert "Connect" in nowhere.trouble
    with pytest.raises(JobError):
        nowhere.alive(spec.config.parents[2])


@pytest.mark.slow
def test_two_nodes_meet_by_torchrun(ray: RayCompute, make_spec: MakeSpec, code: Path) -> None:
    """Both "nodes" are bundles on the one machine of the head: what is tested is the driver."""
    (code / "job_that_sums.py").write_text(
        "import json, os, pathlib, time\n"
        "rank, size = int(os.environ['RANK']), int(os.environ['WORLD_SIZE'])\n"
        "pathlib.Path(f'.{rank}').write_text(str(rank + 1))\n"
        "pathlib.Path(f'.{rank}').rename(f'rank-{rank}')\n"
        "while len(list(pathlib.Path().glob('rank-*'))) < size:\n    time.sleep(0.05)\n"
        "total = sum(int(path.read_text() or 0) for path in pathlib.Path().glob('rank-*'))\n"
        "if rank == 0:\n    json.dump({'ok': True, 'metrics': {'sum': total}}, open('outcome.json', 'w'))\n"
    )
    spec = make_spec("sums")
    spec = JobSpec(spec.label, spec.module, spec.config, spec.timeout_s, spec.environment, nodes=2)
    handle = ray.submit(spec)
    ended(ray, handle)
    ray.fetch(handle)
    assert outcome(spec).get("metrics") == {"sum": 3}, ray.logs(handle)
