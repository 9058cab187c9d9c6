"""HfJobsCompute with the unmodified client, on a loopback Hub whose jobs are real processes."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from posttrain_crew.errors import BudgetError, ConfigError, JobError, SlotsBusyError
from posttrain_crew.tools.compute import hf_jobs
from posttrain_crew.tools.compute.backend_settings import HfJobsSettings
from posttrain_crew.tools.compute.base import Compute, JobHandle, JobSpec
from posttrain_crew.tools.compute.contact import BackendDownError
from posttrain_crew.tools.compute.hf_jobs import TRANSFER_S, HfJobsCompute
from posttrain_crew.tools.compute.hf_logs import LogFollower

from .conftest import ended, until

if TYPE_CHECKING:
    from tests.loopback.world import Loopback

MakeSpec = Callable[..., JobSpec]
TOKEN = "hf_" + "t" * 34


@pytest.fixture
def hub(hf_settings: HfJobsSettings) -> HfJobsCompute:
    return HfJobsCompute(settings=hf_settings, token=TOKEN)


def outcome(spec: JobSpec) -> dict[str, object]:
    told: dict[str, object] = json.loads((spec.config.parent / "outcome.json").read_text())
    return told


@pytest.mark.slow
def test_a_job_gets_its_files_and_hands_its_own_back(
    hub: HfJobsCompute, hf_settings: HfJobsSettings, make_spec: MakeSpec, code: Path, tmp_path: Path, world: Loopback
) -> None:
    assert isinstance(hub, Compute)
    (code / "job_that_reads.py").write_text(
        "import json, os, pathlib, sys, yaml\n"
        "config = yaml.safe_load(open(sys.argv[1]))\n"
        "text = open(config['data']).read() + open(config['model'] + '/weights').read()\n"
        "pathlib.Path('model').mkdir()\npathlib.Path('model/model.safetensors').write_text(text)\n"
        "print('secrets', [n for n in os.environ if n.endswith('_TOKEN')], os.environ['CREW_JOB_LABEL'])\n"
        "print('checkpoint', pathlib.Path('checkpoints/step-1/state').read_text(), config['output'])\n"
        "json.dump({'ok': True, 'checkpoint': 'model', 'wall_s': 1.0}, open('outcome.json', 'w'))\n"
    )
    data, model = tmp_path / "train.jsonl", tmp_path / "base"
    data.write_text("rows and ")
    model.mkdir()
    (model / "weights").write_text("weights")
    spec = make_spec("reads", timeout_s=50.0)
    spec.config.write_text(yaml.safe_dump({"data": str(data), "model": str(model), "output": "model"}))
    (spec.config.parent / "checkpoints" / "step-1").mkdir(parents=True)
    (spec.config.parent / "checkpoints" / "step-1" / "state").write_text("of the first attempt")
    handle = hub.submit(spec)
    assert hub.submit(spec) == handle
    later = HfJobsCompute(settings=hf_settings, token=TOKEN)
    assert later.find("exp-1", spec.config.parent) == handle
    assert [job.label for job in later.alive(spec.config.parents[2])] in (["exp-1"], [])
    ended(hub, handle)
    assert outcome(spec)["ok"]
    assert (spec.config.parent / "model" / "model.safetensors").read_text() == "rows and weights"
    assert "secrets [] exp-1" in hub.logs(handle)
    assert "checkpoint of the first attempt model" in hub.logs(handle)
    assert yaml.safe_load(spec.config.read_text())["data"] == str(data), "the config here stays as it was"
    (job,) = world.jobs.run.values()
    assert job.spec["timeoutSeconds"] == 50 + TRANSFER_S
    assert TOKEN not in json.dumps({k: v for k, v in job.spec.items() if k != "secrets"})
    assert {path for _, path, *_ in world.requests if path.startswith("/api/jobs/")} >= {"/api/jobs/loopback"}
    assert hub.alive(spec.config.parents[2]) == []
    assert world.unknown_paths == []


@pytest.mark.slow
def test_lost_answers_and_cut_logs_cost_nothing_twice(hub: HfJobsCompute, make_spec: MakeSpec, world: Loopback) -> None:
    world.jobs.lose_answers = 1
    world.jobs.cut_logs_after = [3, 8]
    spec = make_spec("counts")
    handle = hub.submit(spec)
    assert len(world.jobs.run) == 1
    ended(hub, handle)
    assert len(world.jobs.run) == 1
    assert [line for line in hub.stream(handle).text.splitlines() if line] == [f"line {n}" for n in range(12)]
    rows = [json.loads(line) for line in (spec.config.parent / "metrics.jsonl").read_text().splitlines()]
    assert rows == [{"step": number} for number in range(12)]


@pytest.mark.slow
def test_ends_are_told_by_their_class(hub: HfJobsCompute, make_spec: MakeSpec) -> None:
    specs = {
        "cancelled": make_spec("is_deaf", "exp-1"),
        "timeout": make_spec("obeys", "exp-2", timeout_s=2.0),
        "crashed": make_spec("exits_with_3", "exp-3"),
    }
    handles = {kind: hub.submit(spec) for kind, spec in specs.items()}
    until(lambda: "deaf" in hub.logs(handles["cancelled"]))
    pid = int(hub.logs(handles["cancelled"]).split()[1])
    hub.cancel(handles["cancelled"], grace_s=1.0)
    for kind, handle in handles.items():
        ended(hub, handle)
        assert outcome(specs[kind])["error_class"] == kind
    until(lambda: not Path(f"/proc/{pid}").exists(), 10)
    assert "no such thing" in hub.logs(handles["crashed"])
    assert hub.alive(specs["crashed"].config.parents[2]) == []


@pytest.mark.slow
def test_files_that_take_long_keep_nobody_and_are_sent_once(
    hf_settings: HfJobsSettings, make_spec: MakeSpec, world: Loopback
) -> None:
    hub = HfJobsCompute(settings=hf_settings.model_copy(update={"send_seconds": 0.0}), token=TOKEN)
    spec = make_spec("counts")
    with pytest.raises(SlotsBusyError, match="being sent to loopback/crew-jobs"):
        hub.submit(spec)
    handles: list[JobHandle] = []

    def submitted() -> bool:
        with contextlib.suppress(SlotsBusyError):
            handles.append(hub.submit(spec))
        return bool(handles)

    until(submitted)
    ended(hub, handles[0])
    assert outcome(spec)["ok"]
    assert len(world.jobs.run) == 1
    commits = [path for method, path, *_ in world.requests if method == "POST" and "/commit/" in path]
    assert len(commits) == 2, "its inputs, and what it wrote"


@pytest.mark.slow
def test_results_that_cannot_be_stored_are_a_failure_that_says_so(
    hub: HfJobsCompute, make_spec: MakeSpec, world: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hf_jobs, "PATIENCE_S", 2.0)
    spec = make_spec("counts")
    handle = hub.submit(spec)
    world.faults.add("hub", "503", times=None, path="/commit/")
    ended(hub, handle)
    told = outcome(spec)
    assert told["error_class"] == "crashed"
    assert "the files could not be stored" in str(told["message"])
    assert "503" in str(told["message"])


@pytest.mark.slow
def test_a_short_outage_at_the_end_costs_no_result_and_the_bill_is_the_hubs(
    hub: HfJobsCompute, make_spec: MakeSpec, world: Loopback
) -> None:
    spec = make_spec("counts")
    handle = hub.submit(spec)
    world.faults.add("hub", "503", times=2, path="/commit/")
    ended(hub, handle)
    assert outcome(spec)["ok"]
    billed = json.loads((spec.config.parent / "job.json").read_text())["billed_s"]
    assert billed > float(str(outcome(spec)["wall_s"])), "files come and go at the user's cost"


@pytest.mark.slow
def test_a_cancelled_job_leaves_nothing_in_its_scratch_folder(
    hub: HfJobsCompute, make_spec: MakeSpec, world: Loopback
) -> None:
    before = set(world.jobs.scratch.glob("crew-*"))  # of jobs that ended by SIGKILL in other tests
    handle = hub.submit(make_spec("obeys"))
    until(lambda: "awake" in hub.logs(handle))
    (folder,) = set(world.jobs.scratch.glob("crew-*")) - before
    hub.cancel(handle, grace_s=5.0)
    ended(hub, handle)
    assert not folder.exists()


def test_prices_stay_known_while_the_hub_is_silent(
    hub: HfJobsCompute, world: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hf_jobs, "PRICES_S", -1.0)
    assert hub.price() == pytest.approx(0.01)
    world.faults.add("hub", "503", times=None, path="/api/")
    assert hub.price() == pytest.approx(0.01)
    assert "503" in hub.trouble


def test_without_credit_a_price_or_a_slot_nothing_is_submitted(
    hub: HfJobsCompute, hf_settings: HfJobsSettings, make_spec: MakeSpec, world: Loopback
) -> None:
    assert hub.price() == pytest.approx(0.01)
    world.jobs.broke = {"loopback"}
    with pytest.raises(BudgetError, match="credit"):
        hub.submit(make_spec("naps", "exp-1"))
    world.jobs.broke = set()
    for item in world.jobs.hardware:
        item["unitLabel"] = "fortnight"
    unpriced = HfJobsCompute(settings=hf_settings, token=TOKEN)
    assert unpriced.price() is None
    with pytest.raises(BudgetError, match="unknown prices are refused"):
        unpriced.submit(make_spec("naps", "exp-2"))
    wrong = HfJobsCompute(settings=hf_settings.model_copy(update={"flavor": "abacus"}), token=TOKEN)
    with pytest.raises(ConfigError, match="cpu-basic"):
        wrong.capacity()
    assert world.jobs.run == {}
    one = HfJobsCompute(slots=1, settings=hf_settings, token=TOKEN)
    world.jobs.reset()
    handle = one.submit(make_spec("naps", "exp-3"))
    with pytest.raises(SlotsBusyError, match="Hugging Face"):
        one.submit(make_spec("naps", "exp-4"))
    one.cancel(handle, grace_s=0)


def test_a_hub_that_is_down_is_waited_for_and_a_token_that_may_not_is_refused(
    hub: HfJobsCompute, hf_settings: HfJobsSettings, make_spec: MakeSpec, world: Loopback
) -> None:
    assert hub.namespace == "loopback"
    world.faults.add("hub", "503", times=None, path="/api/")
    with pytest.raises(BackendDownError):
        hub.submit(make_spec("naps"))
    assert "503" in hub.trouble
    with pytest.raises(JobError, match="cannot be listed"):
        hub.alive(make_spec("naps").config.parents[2])
    world.faults.clear()
    stranger = HfJobsCompute(settings=hf_settings.model_copy(update={"namespace": "x"}), token="not-a-token")
    with pytest.raises(JobError, match="the token may not"):
        stranger.submit(make_spec("naps"))
    assert world.jobs.run == {}


def test_it_needs_a_token_and_the_network(hf_settings: HfJobsSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="HF_HUB_OFFLINE"):
        HfJobsCompute(settings=hf_settings, token=TOKEN)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(ConfigError, match="HF_TOKEN"):
        HfJobsCompute(settings=hf_settings)


def test_a_log_that_a_kill_cut_in_a_line_goes_on_without_a_gap(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text('of an earlier attempt\none\ncrew-metrics {"step": 0}\ntw')
    lines = ["one", 'crew-metrics {"step": 0}', "two", 'crew-metrics {"step": 1}']
    over = threading.Event()
    follower = LogFollower(tmp_path, lambda: lines, over.is_set, 1, (OSError,), pause_s=0.01)
    over.set()
    follower.finish(10)
    assert (tmp_path / "log.txt").read_text().splitlines() == ["of an earlier attempt", *lines]
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 0}\n{"step": 1}\n'
