"""SlurmCompute on a real slurmctld with two slurmd."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from posttrain_crew.crews.collector import Collector
from posttrain_crew.entries import JobOutcome, JobStarted
from posttrain_crew.errors import JobError, SlotsBusyError
from posttrain_crew.tools.compute.backend_settings import SlurmSettings
from posttrain_crew.tools.compute.base import Compute, JobSpec
from posttrain_crew.tools.compute.contact import BackendDownError
from posttrain_crew.tools.compute.jobs import JobRequest, handle_of, launch, poll, post_outcome
from posttrain_crew.tools.compute.slurm import SlurmCompute
from posttrain_crew.tools.workspace import Workspace

from .conftest import ended, until
from .slurm_cluster import SlurmCluster

pytestmark = pytest.mark.slow

MakeSpec = Callable[..., JobSpec]


@pytest.fixture
def slurm(slurm_settings: SlurmSettings) -> SlurmCompute:
    return SlurmCompute(settings=slurm_settings)


def submissions(cluster: SlurmCluster) -> int:
    """Jobs that the controller has ever taken."""
    listed = cluster.command("squeue", "--noheader", "--states=all", "--format=%A")
    return len(listed.split())


def outcome(spec: JobSpec) -> dict[str, object]:
    told: dict[str, object] = json.loads((spec.config.parent / "outcome.json").read_text())
    return told


def test_a_job_is_submitted_once_runs_and_is_found_by_a_later_crew(
    slurm: SlurmCompute, slurm_settings: SlurmSettings, make_spec: MakeSpec, cluster: SlurmCluster
) -> None:
    assert isinstance(slurm, Compute)
    spec, before = make_spec("counts"), submissions(cluster)
    handle = slurm.submit(spec)
    assert slurm.submit(spec) == handle
    later = SlurmCompute(settings=slurm_settings)
    assert later.find("exp-1", spec.config.parent) == handle
    assert [job.label for job in later.alive(spec.config.parents[2])] == ["exp-1"]
    ended(later, handle)
    later.fetch(handle)
    assert outcome(spec)["ok"]
    assert later.submit(spec) == handle
    assert submissions(cluster) == before + 1
    assert later.alive(spec.config.parents[2]) == []
    first = later.stream(handle)
    assert first.text.splitlines() == [f"line {n}" for n in range(12)]
    assert later.stream(handle, first.cursor).text == ""


def test_secrets_of_the_submitter_do_not_reach_the_job(
    slurm: SlurmCompute, make_spec: MakeSpec, code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code / "job_that_prints_its_environment.py").write_text("import os; print(sorted(os.environ))")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-user-1234567890")
    handle = slurm.submit(make_spec("prints_its_environment"))
    ended(slurm, handle)
    assert "CREW_JOB_LABEL" in slurm.logs(handle)
    assert "OPENAI_API_KEY" not in slurm.logs(handle)


def test_the_lost_answer_of_sbatch_leads_to_the_job_and_not_to_a_second(
    slurm_settings: SlurmSettings, make_spec: MakeSpec, cluster: SlurmCluster, tmp_path: Path
) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("squeue", "scontrol", "scancel", "sinfo", "sacct"):
        (tools / name).symlink_to(str(shutil.which(name)))
    (tools / "sbatch").write_text(
        f'#!/bin/sh\n{shutil.which("sbatch")} "$@" >/dev/null\n'
        "echo 'sbatch: error: Batch job submission failed: Socket timed out on send/recv operation' >&2\nexit 1\n"
    )
    (tools / "sbatch").chmod(0o755)
    slurm = SlurmCompute(settings=slurm_settings.model_copy(update={"bin": str(tools)}))
    before = submissions(cluster)
    handle = slurm.submit(make_spec("naps"))
    assert slurm.submit(make_spec("naps")) == handle
    assert submissions(cluster) == before + 1
    slurm.cancel(handle, grace_s=0)


def test_a_crew_that_died_before_the_answer_finds_its_job(
    slurm: SlurmCompute, slurm_settings: SlurmSettings, make_spec: MakeSpec, cluster: SlurmCluster
) -> None:
    spec = make_spec("naps")
    handle = slurm.submit(spec)
    record = spec.config.parent / "job.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "id": None}))
    later = SlurmCompute(settings=slurm_settings)
    assert later.find("exp-1", spec.config.parent) == handle
    assert json.loads(record.read_text())["id"] == handle.id
    later.cancel(handle, grace_s=0)


def test_a_sweep_is_one_array_whose_tasks_are_jobs_of_their_own(slurm: SlurmCompute, make_spec: MakeSpec) -> None:
    specs = [make_spec("counts", f"exp-1-seed-{seed}") for seed in range(3)]
    handles = slurm.submit_many(specs)
    assert len({handle.id.split("_")[0] for handle in handles}) == 1
    assert slurm.submit_many(specs) == handles
    assert {job.label for job in slurm.alive(specs[0].config.parents[2])} == {spec.label for spec in specs}
    for handle in handles:
        ended(slurm, handle)
        assert slurm.logs(handle).splitlines()[-1] == "line 11"


def test_a_job_that_ignores_sigterm_is_ended_and_one_that_hears_it_says_so(
    slurm: SlurmCompute, make_spec: MakeSpec
) -> None:
    deaf, obedient = make_spec("is_deaf", "exp-1"), make_spec("obeys", "exp-2")
    handles = [slurm.submit(deaf), slurm.submit(obedient)]
    until(lambda: all(slurm.logs(handle) for handle in handles))
    pid = int(slurm.logs(handles[0]).split()[1])
    for handle in handles:
        slurm.cancel(handle, grace_s=1.0)
        slurm.cancel(handle)
        ended(slurm, handle)
        slurm.fetch(handle)
    until(lambda: not Path(f"/proc/{pid}").exists(), 10)
    assert (outcome(obedient)["error_class"], outcome(obedient)["message"]) == ("cancelled", "asked to")
    assert "error_class" in outcome(deaf)
    assert slurm.alive(deaf.config.parents[2]) == []


@pytest.mark.parametrize(
    ("kind", "error_class", "word"),
    [("exits_with_3", "crashed", "exit code 3"), ("forgets_its_outcome", "crashed", "share this file system")],
)
def test_a_job_without_an_outcome_gets_the_class_of_its_end(
    slurm: SlurmCompute, make_spec: MakeSpec, kind: str, error_class: str, word: str
) -> None:
    spec = make_spec(kind)
    handle = slurm.submit(spec)
    ended(slurm, handle)
    slurm.fetch(handle)
    assert outcome(spec)["error_class"] == error_class
    assert word in str(outcome(spec)["message"])


def test_a_controller_that_is_down_is_waited_for(
    slurm: SlurmCompute, slurm_settings: SlurmSettings, make_spec: MakeSpec, cluster: SlurmCluster
) -> None:
    handle = slurm.submit(make_spec("naps", "exp-1"))
    until(lambda: slurm.status(handle) == "running")
    cluster.stop_controller()
    impatient = SlurmCompute(settings=slurm_settings.model_copy(update={"command_seconds": 1.0}))
    with pytest.raises(BackendDownError, match="does not answer"):
        impatient.submit(make_spec("naps", "exp-2"))
    assert impatient.status(handle) == "running", "no answer is not the end of a job"
    assert impatient.trouble
    with pytest.raises(JobError, match="could not be cancelled"):
        impatient.cancel(handle)
    cluster.start_controller()
    until(lambda: cluster.nodes() and slurm.capacity().slots)
    second = slurm.submit(make_spec("naps", "exp-2"))
    assert slurm.trouble == ""
    for one in (handle, second):
        slurm.cancel(one, grace_s=0)


def test_slots_and_partitions_that_are_full_closed_or_unknown(
    slurm_settings: SlurmSettings, make_spec: MakeSpec
) -> None:
    one = SlurmCompute(slots=1, settings=slurm_settings)
    handle = one.submit(make_spec("naps", "exp-1"))
    with pytest.raises(SlotsBusyError, match="exp-1"):
        one.submit(make_spec("naps", "exp-2"))
    one.cancel(handle, grace_s=0)
    closed = SlurmCompute(settings=slurm_settings.model_copy(update={"partition": "closed"}))
    assert closed.capacity().slots == 0
    with pytest.raises(SlotsBusyError, match="sinfo -R"):
        closed.submit(make_spec("naps", "exp-3"))
    with pytest.raises(JobError, match="CREW_SLURM"):
        SlurmCompute(settings=slurm_settings.model_copy(update={"partition": "absent"})).capacity()
    greedy = SlurmCompute(settings=slurm_settings.model_copy(update={"mem": "900G"}))
    with pytest.raises(JobError, match="Slurm refuses"):
        greedy.submit(make_spec("naps", "exp-4"))
    assert greedy.find("exp-4", make_spec("naps", "exp-4").config.parent) is None


def test_two_nodes_meet_by_torchrun(slurm: SlurmCompute, make_spec: MakeSpec, code: Path) -> None:
    (code / "job_that_sums.py").write_text(
        "import json, os, torch, torch.distributed as dist\n"
        "dist.init_process_group('gloo')\n"
        "value = torch.tensor([float(dist.get_rank() + 1)])\n"
        "dist.all_reduce(value)\n"
        "print(os.environ['SLURMD_NODENAME'], 'sum', value.item(), flush=True)\n"
        "if dist.get_rank() == 0:\n    json.dump({'ok': True, 'wall_s': 1.0}, open('outcome.json', 'w'))\n"
        "dist.destroy_process_group()\n"
    )
    spec = make_spec("sums")
    spec = JobSpec(
        spec.label, spec.module, spec.config, spec.timeout_s, {**spec.environment, "GLOO_SOCKET_IFNAME": "lo"}, nodes=2
    )
    handle = slurm.submit(spec)
    ended(slurm, handle)
    log = slurm.logs(handle)
    assert "n1 sum 3.0" in log, log
    assert "n2 sum 3.0" in log, log


def test_a_node_that_dies_fails_the_job_and_the_run_starts_it_once_more_on_the_other(
    slurm: SlurmCompute, workspace: Workspace, cluster: SlurmCluster, code: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    diary = tmp_path / "diary.txt"
    monkeypatch.setenv("PYTHONPATH", str(code))
    run = Workspace(workspace.board, workspace.run, workspace.target, workspace.budget, slurm, workspace.events)
    directory = run.run.experiments / "exp-1"
    directory.mkdir(parents=True)
    monkeypatch.setenv("CREW_TEST_DIARY", str(diary))
    job = launch(run, JobRequest("exp-1", "evaluate", "base", "job_that_tells_where", directory, {}, 60.0))
    until(lambda: diary.exists())
    collector = Collector(run)
    handle = handle_of(run, job)
    assert handle is not None
    cluster.kill_node("n1")
    until(lambda: (collector.tick(orders_at_work=False), len(run.board.of(JobStarted)) == 2)[1])
    first = run.board.of(JobOutcome)[0].body
    assert (first.ok, first.error_class) == (False, "killed")
    assert "lost its node (NODE_FAIL" in first.message
    until(lambda: len(diary.read_text().splitlines()) == 2)
    (tmp_path / "enough").touch()
    second = run.board.of(JobStarted)[1]
    until(lambda: poll(run, second) == "ended")
    assert post_outcome(run, second).body.ok
    assert diary.read_text().splitlines() == ["n1 exp-1", "n2 exp-1.2"]
    assert len(run.board.of(JobStarted)) == 2
    until(lambda: slurm.alive(run.run.root) == [], 20)
