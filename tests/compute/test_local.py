"""LocalCompute on real processes: small modules that sleep, disobey, fork, or end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from posttrain_crew.errors import JobError, SlotsBusyError
from posttrain_crew.tools.compute.base import Compute, JobHandle, JobSpec
from posttrain_crew.tools.compute.local import JOB_FILE, LocalCompute, _gpus

MODULES = {
    "naps": "import sys, time; print('awake', flush=True); time.sleep(60)",
    "disobeys": """
        import signal, subprocess, sys, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
        child = subprocess.Popen([sys.executable, "-c", deaf])
        print("child", child.pid, flush=True)
        time.sleep(60)
    """,
    "launches": """
        import subprocess, sys, time
        deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
        child = subprocess.Popen([sys.executable, "-c", deaf], start_new_session=True)  # as torchrun starts its workers
        print("child", child.pid, flush=True)
        time.sleep(60)
    """,
    "takes_too_much": """
        import json
        try:
            taken = bytearray(3 << 30)
            print("taken", len(taken))
        except MemoryError:
            print("refused")
    """,
    "ends": "import os, sys; print(sorted(os.environ)); print(os.environ['OMP_NUM_THREADS'], sys.argv[1])",
}
PATIENCE_S = 60.0


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., JobSpec]:
    code = tmp_path / "code"
    code.mkdir()
    for name, text in MODULES.items():
        (code / f"job_that_{name}.py").write_text(textwrap.dedent(text))
    monkeypatch.setenv("PYTHONPATH", str(code))

    def make(kind: str, label: str = "exp-1", timeout_s: float = 60.0) -> JobSpec:
        directory = tmp_path / label
        directory.mkdir(exist_ok=True)
        config = directory / "config.yaml"
        config.write_text("{}")
        return JobSpec(label, f"job_that_{kind}", config, timeout_s)

    return make


@pytest.fixture
def compute() -> Iterator[LocalCompute]:
    local = LocalCompute(slots=2, threads_per_job=1)
    yield local
    for handle in list(local._known.values()):
        local.cancel(handle, grace_s=0.0)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


def test_runs_a_module_with_bounded_threads_and_without_secrets(
    compute: LocalCompute, spec: Callable[..., JobSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-user-1234567890")
    assert isinstance(compute, Compute)
    wanted = spec("ends")
    handle = compute.submit(wanted)
    until(lambda: compute.status(handle) == "ended")
    log = compute.logs(handle)
    assert "OPENAI_API_KEY" not in log
    assert log.splitlines()[-1] == f"1 {wanted.config}"


def test_one_label_is_never_launched_twice(compute: LocalCompute, spec: Callable[..., JobSpec]) -> None:
    first, second = compute.submit(spec("naps")), compute.submit(spec("naps"))
    assert first == second


def test_a_full_machine_refuses_and_names_who_is_there(compute: LocalCompute, spec: Callable[..., JobSpec]) -> None:
    compute.submit(spec("naps", "exp-1"))
    compute.submit(spec("naps", "exp-2"))
    with pytest.raises(JobError, match="exp-1, exp-2"):
        compute.submit(spec("naps", "exp-3"))


def test_another_crew_finds_the_job_of_a_dead_one(spec: Callable[..., JobSpec], tmp_path: Path) -> None:
    wanted = spec("naps")
    program = (
        "import sys; from pathlib import Path; from posttrain_crew.tools.compute.base import JobSpec\n"
        "from posttrain_crew.tools.compute.local import LocalCompute\n"
        f"LocalCompute(2, 1).submit(JobSpec('exp-1', 'job_that_naps', Path({str(wanted.config)!r}), 60.0))"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    later = LocalCompute(slots=2, threads_per_job=1)
    handle = later.find("exp-1", wanted.config.parent)
    assert handle is not None
    assert later.status(handle) == "running"
    assert later.submit(wanted) == handle
    later.cancel(handle, grace_s=2.0)
    assert later.status(handle) == "ended"


def test_a_job_whose_starter_died_before_it_wrote_the_record_is_found(
    compute: LocalCompute, spec: Callable[..., JobSpec]
) -> None:
    handle = compute.submit(spec("naps"))
    until(lambda: "awake" in compute.logs(handle))
    (handle.directory / JOB_FILE).unlink()
    later = LocalCompute(slots=2, threads_per_job=1)
    again = later.submit(spec("naps"))
    assert again.id.split("@")[0] == handle.id.split("@")[0]


def test_a_pid_that_is_used_again_is_not_the_job(compute: LocalCompute, spec: Callable[..., JobSpec]) -> None:
    wanted = spec("ends")
    record = {
        "label": "exp-1",
        "pid": os.getpid(),
        "create_time": psutil.Process().create_time() - 1000,
        "timeout_s": 1.0,
        "started_at": time.time() - 1000,
    }
    (wanted.config.parent / JOB_FILE).write_text(json.dumps(record))
    handle = compute.find("exp-1", wanted.config.parent)
    assert handle is not None
    assert compute.status(handle) == "ended"
    compute.cancel(handle)  # must not touch this very process


def test_cancel_ends_a_job_that_ignores_sigterm_with_its_children(
    compute: LocalCompute, spec: Callable[..., JobSpec]
) -> None:
    handle = compute.submit(spec("disobeys"))
    until(lambda: "child" in compute.logs(handle))
    child = int(compute.logs(handle).split()[-1])
    compute.cancel(handle, grace_s=0.3)
    assert compute.status(handle) == "ended"
    until(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)
    compute.cancel(handle)


def test_what_a_killed_launcher_leaves_is_ended_before_the_job_starts_again(
    compute: LocalCompute, spec: Callable[..., JobSpec], tmp_path: Path
) -> None:
    def orphaned() -> tuple[JobHandle, int]:
        handle = compute.submit(spec("launches"))
        leader = psutil.Process(int(handle.id.split("@")[0]))
        until(lambda: bool(leader.children()))
        child = leader.children()[0].pid
        leader.kill()
        until(lambda: not lives(leader.pid))
        assert lives(child)
        return handle, child

    def lives(pid: int) -> bool:
        if (ours := compute._children.get(pid)) is not None:
            ours.poll()
        return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE

    handle, child = orphaned()
    assert compute.status(handle) == "ended"
    assert not lives(child)
    _, child = orphaned()
    again = compute.submit(spec("launches"))  # nobody has asked for its state
    assert not lives(child)
    assert compute.status(handle) == "ended"
    assert compute.status(again) == "running", "the later job of this label is not the earlier one's"
    compute.cancel(again)
    _, child = orphaned()
    (found,) = compute.alive(tmp_path)  # as a sweep finds it
    compute.cancel(found, grace_s=0.1)
    assert not lives(child)


def test_a_job_over_its_time_ends_with_class_timeout(compute: LocalCompute, spec: Callable[..., JobSpec]) -> None:
    handle = compute.submit(spec("naps", timeout_s=0.2))
    until(lambda: compute.status(handle) == "ended")
    outcome = json.loads((handle.directory / "outcome.json").read_text())
    assert (outcome["ok"], outcome["error_class"]) == (False, "timeout")


def test_a_killed_job_is_ended_and_leaves_no_outcome(compute: LocalCompute, spec: Callable[..., JobSpec]) -> None:
    handle = compute.submit(spec("naps"))
    os.kill(int(handle.id.split("@")[0]), signal.SIGKILL)
    until(lambda: compute.status(handle) == "ended")
    assert not (handle.directory / "outcome.json").exists()


def test_an_unknown_job_is_not_found(compute: LocalCompute, tmp_path: Path) -> None:
    assert compute.find("exp-9", tmp_path) is None


def test_a_record_that_crew_did_not_write_is_an_error(compute: LocalCompute, tmp_path: Path) -> None:
    (tmp_path / JOB_FILE).write_text("[]")
    with pytest.raises(JobError, match="no record of a job"):
        compute.find("exp-1", tmp_path)


def test_slots_follow_the_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho '0, NVIDIA H100, 81559'\necho '1, NVIDIA H100, 81559'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    capacity = LocalCompute().capacity()
    assert (capacity.slots, capacity.device) == (2, "NVIDIA H100")
    assert 79 < capacity.device_memory_gib < 80
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert [index for _, _, index in _gpus()] == [1]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert LocalCompute().capacity().device == "cpu"


def two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho '0, NVIDIA H100, 81559'\necho '1, NVIDIA H100, 81559'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # where the locks lie


def gpus_of(handle: JobHandle) -> str:
    return psutil.Process(int(handle.id.split("@")[0])).environ()["CUDA_VISIBLE_DEVICES"]


def test_a_job_of_two_processes_takes_two_gpus_or_waits(
    spec: Callable[..., JobSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_gpus(tmp_path, monkeypatch)
    local, other_crew = LocalCompute(threads_per_job=1), LocalCompute(threads_per_job=1)
    assert local.capacity().devices_per_job == 2
    pair = replace(spec("naps", "exp-pair"), processes=2)
    with pytest.raises(JobError, match="3 processes, and this machine has 2 GPU"):
        local.submit(replace(pair, processes=3))
    try:
        handle = local.submit(pair)
        assert gpus_of(handle) == "0,1"
        with pytest.raises(SlotsBusyError, match="exp-pair"):
            local.submit(spec("naps", "exp-1"))
        with pytest.raises(SlotsBusyError, match="another crew"):
            other_crew.submit(spec("naps", "exp-1"))
        local.cancel(handle, grace_s=0.0)
        first = local.submit(spec("naps", "exp-1"))
        assert gpus_of(first) == "0"
        with pytest.raises(SlotsBusyError, match="1 of 2 slots"):
            local.submit(replace(pair, label="exp-next"))
        with pytest.raises(SlotsBusyError, match="takes 2 GPU"):
            other_crew.submit(replace(pair, label="exp-next"))
        second = other_crew.submit(spec("naps", "exp-2"))  # what a refused job had taken is free again
        assert gpus_of(second) == "1"
    finally:
        for crew in (local, other_crew):
            for left in list(crew._known.values()):
                crew.cancel(left, grace_s=0.0)


def test_without_gpus_a_job_takes_a_slot_for_each_process(compute: LocalCompute, spec: Callable[..., JobSpec]) -> None:
    compute.submit(replace(spec("naps", "exp-pair"), processes=2))
    with pytest.raises(SlotsBusyError, match="all 2 slot"):
        compute.submit(spec("naps", "exp-1"))
    with pytest.raises(JobError, match="3 processes, and this machine has 2 slot"):
        compute.submit(replace(spec("naps", "exp-3"), processes=3))


def test_a_job_cannot_take_more_memory_than_it_may(spec: Callable[..., JobSpec]) -> None:
    bounded = LocalCompute(slots=1, threads_per_job=1, memory_gib=1.0)
    assert bounded.capacity().device_memory_gib <= 1.0
    handle = bounded.submit(spec("takes_too_much"))
    until(lambda: bounded.status(handle) == "ended")
    assert bounded.logs(handle) in ("refused", ""), "refused by its own limit, or killed by that of its group"
    assert "taken" not in bounded.logs(handle)


def test_one_machine_does_not_take_a_job_of_two(compute: LocalCompute, spec: Callable[..., JobSpec]) -> None:
    wanted = spec("naps")
    with pytest.raises(JobError, match="2 nodes"):
        compute.submit(JobSpec("exp-1", wanted.module, wanted.config, 60.0, nodes=2))
