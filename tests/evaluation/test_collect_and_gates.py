"""From result files to decisions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from posttrain_crew.blackboard import Entry
from posttrain_crew.crews.collector import Collector
from posttrain_crew.entries import Comparison, Evaluation, JobStarted
from posttrain_crew.errors import GateError, JobError
from posttrain_crew.state import RunState
from posttrain_crew.tools.compute.jobs import JobRequest, launch
from posttrain_crew.tools.evaluation.collect import collect, compare
from posttrain_crew.tools.evaluation.gates import final_gate, promotion
from posttrain_crew.tools.workspace import Workspace

Evaluated = Callable[..., Entry[Evaluation]]
Make = Callable[..., str]


def test_an_evaluation_is_what_the_files_say(workspace: Workspace, evaluated: Evaluated) -> None:
    entry = evaluated("base", strict=50, lenient=120)
    body = entry.body
    assert (body.n, body.score, body.lenient_score, body.split, body.few_shot) == (200, 0.25, 0.6, "dev", 0)
    assert body.ci_low < 0.25 < body.ci_high
    assert (body.format_valid_rate, body.accuracy_given_valid) == (0.25, 1.0)
    assert body.mean_output_chars == pytest.approx((50 * 9 + 150 * 2) / 200)
    assert body.truncated_rate == pytest.approx(3 / 200)
    job = workspace.board.of(JobStarted)[0]
    assert entry.refs == (job.id,)
    assert collect(workspace, job) == entry


def test_no_valid_answer_leaves_accuracy_given_valid_open(evaluated: Evaluated) -> None:
    assert evaluated("base", strict=0).body.accuracy_given_valid is None


@pytest.mark.parametrize("name", ["samples.jsonl", "results.json"])
def test_changed_or_missing_files_are_refused(
    workspace: Workspace, evaluated: Evaluated, experiment: Make, name: str
) -> None:
    base = evaluated("base", strict=50)
    candidate = evaluated(experiment(), strict=90)
    path = workspace.run.absolute(candidate.body.directory) / "samples.jsonl"
    path.write_text(path.read_text().replace('"strict_ok": false', '"strict_ok": true'))
    with pytest.raises(JobError, match="changed after"):
        compare(workspace, candidate, base, "strict")
    job = workspace.board.of(JobStarted)[-1]
    renamed = job.body.model_copy(update={"label": "again"})
    again = workspace.board.post(renamed, author="crew")
    with pytest.raises(JobError, match="not the file that was scored"):
        collect(workspace, again)
    (path.parent / name).unlink()
    with pytest.raises(JobError, match="no readable result files"):
        collect(workspace, again)


def test_counts_that_contradict_each_other_are_refused(workspace: Workspace, evaluated: Evaluated) -> None:
    base = evaluated("base", strict=50)
    results = workspace.run.absolute(base.body.directory) / "results.json"
    raw = json.loads(results.read_text())
    raw["strict"]["correct"] = 180
    results.write_text(json.dumps(raw))
    job = workspace.board.of(JobStarted)[-1]
    again = workspace.board.post(job.body.model_copy(update={"label": "again"}), author="crew")
    with pytest.raises(JobError, match="do not count the same"):
        collect(workspace, again)


def test_a_comparison_has_the_numbers_of_the_items(
    workspace: Workspace, evaluated: Evaluated, experiment: Make
) -> None:
    base = evaluated("base", [i < 50 for i in range(200)])
    candidate = evaluated(experiment(), [i >= 10 and i < 100 for i in range(200)])
    entry = compare(workspace, candidate, base, "strict")
    body = entry.body
    assert (body.gained, body.lost, body.n, body.delta) == (50, 10, 200, 0.2)
    assert body.ci_low > 0.1
    assert body.p_value < 1e-6
    assert entry.refs == (candidate.id, base.id)
    assert compare(workspace, candidate, base, "strict") == entry
    assert compare(workspace, base, candidate, "strict").body.delta == -0.2


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"n": 100}, "n 100 and 200"),
        ({"split": "test"}, "split test and dev"),
        ({"few_shot": 3}, "few_shot 3 and 0"),
        ({"salt": "another template"}, "prompt_hash"),
    ],
)
def test_unlike_evaluations_are_not_compared(
    workspace: Workspace, evaluated: Evaluated, experiment: Make, other: dict[str, object], named: str
) -> None:
    base = evaluated("base", strict=50)
    candidate = evaluated(experiment(), strict=60, **other)
    with pytest.raises(GateError, match=named):
        compare(workspace, candidate, base, "strict")
    assert not workspace.board.of(Comparison)


def test_a_clear_gain_is_promoted_and_the_next_must_beat_it(
    workspace: Workspace, evaluated: Evaluated, experiment: Make
) -> None:
    evaluated("base", strict=50)
    first, second, third = experiment(), experiment(), experiment()
    evaluated(first, strict=90)
    evaluated(second, strict=93)
    evaluated(third, strict=30)
    decision = promotion(workspace, first)
    assert decision.body.action == "promote"
    assert "+20.0%" in decision.body.reason
    assert RunState.of(workspace.board).best == first
    small = promotion(workspace, second)
    assert small.body.action == "discard"
    assert f"against {first}" in small.body.reason
    assert "no difference shown" in small.body.reason
    worse = promotion(workspace, third)
    assert (worse.body.action, worse.body.reason[:5]) == ("discard", "worse")
    assert promotion(workspace, first) == decision
    assert RunState.of(workspace.board).best == first


def test_an_experiment_waits_for_the_evaluation_of_one_before_it(
    workspace: Workspace, evaluated: Evaluated, experiment: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "job_that_naps.py").write_text("import time; time.sleep(100)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    evaluated("base", strict=50)
    first, second = experiment(), experiment()
    evaluated(second, strict=90)
    folder = workspace.run.evaluations / f"{first}-dev"
    folder.mkdir(parents=True)
    launch(workspace, JobRequest(f"{first}-dev", "evaluate", first, "job_that_naps", folder, {}, 60.0))
    collector = Collector(workspace)
    collector.tick(orders_at_work=True)
    assert RunState.of(workspace.board).best == "base", "the later one was decided first"
    collector.abandon_all("the time is over")
    state = RunState.of(workspace.board)
    told = {name: view.decision.body.action for name, view in state.experiments.items() if view.decision}
    assert told == {first: "abandon", second: "promote"}


def test_a_gain_that_could_be_chance_is_discarded(workspace: Workspace, evaluated: Evaluated, experiment: Make) -> None:
    evaluated("base", strict=50)
    name = experiment()
    evaluated(name, strict=55)  # 5 gained, 0 lost: the interval is above 0, the exact test is not below 0.05
    decision = promotion(workspace, name)
    assert decision.body.action == "discard"
    assert decision.refs == (workspace.board.of(Comparison)[-1].id,)


def test_an_ablation_is_kept_unless_it_is_better(workspace: Workspace, evaluated: Evaluated, experiment: Make) -> None:
    evaluated("base", strict=50)
    whole = experiment()
    evaluated(whole, strict=100)
    promotion(workspace, whole)
    worse, better = experiment("ablation", whole), experiment("ablation", whole)
    evaluated(worse, strict=70)
    evaluated(better, strict=140)
    assert promotion(workspace, worse).body.action == "keep_as_ablation"
    decision = promotion(workspace, better)
    assert decision.body.action == "promote"
    assert "ablation" in decision.body.reason


def test_an_ablation_of_what_is_no_longer_best_is_measured_against_both(
    workspace: Workspace, evaluated: Evaluated, experiment: Make
) -> None:
    evaluated("base", strict=50)
    whole, best = experiment(), experiment()
    evaluated(whole, strict=80)
    promotion(workspace, whole)
    evaluated(best, strict=140)
    promotion(workspace, best)
    part = experiment("ablation", whole)
    evaluated(part, strict=60)
    decision = promotion(workspace, part)
    assert decision.body.action == "keep_as_ablation"
    assert f"against the whole {whole}" in decision.body.reason
    assert len(decision.refs) == 2
    comparison = RunState.of(workspace.board).experiments[part].comparison
    assert comparison is not None
    assert comparison.body.reference == best


def test_nothing_is_decided_without_evaluations(workspace: Workspace, evaluated: Evaluated, experiment: Make) -> None:
    name = experiment()
    with pytest.raises(GateError, match="no experiment `exp-9`"):
        promotion(workspace, "exp-9")
    with pytest.raises(GateError, match="no zero-shot dev evaluation"):
        promotion(workspace, name)
    evaluated(name, strict=60)
    with pytest.raises(GateError, match="`base`, has no dev evaluation"):
        promotion(workspace, name)


@pytest.mark.parametrize(
    ("strict", "lenient", "action", "said"),
    [
        (140, 190, "accept", "better: lenient"),
        (140, 120, "accept", "one of answer format"),
        (52, 120, "reject", "no difference shown"),
        (20, 120, "reject", "worse"),
    ],
)
def test_the_final_gate(
    workspace: Workspace,
    evaluated: Evaluated,
    experiment: Make,
    strict: int,
    lenient: int,
    action: str,
    said: str,
) -> None:
    base = evaluated("base", strict=50, lenient=120, split="test")
    name = experiment()
    best = evaluated(name, strict=strict, lenient=lenient, split="test")
    decision = final_gate(workspace, base, best)
    assert (decision.body.action, decision.body.subject) == (action, name)
    assert said in decision.body.reason
    assert [workspace.board.typed(ref, Comparison).body.metric for ref in decision.refs] == ["strict", "lenient"]
    assert final_gate(workspace, base, best) == decision
    verdict = RunState.of(workspace.board).verdict
    assert verdict == decision


def test_the_final_gate_takes_test_evaluations_only(
    workspace: Workspace, evaluated: Evaluated, experiment: Make
) -> None:
    base = evaluated("base", strict=50)
    best = evaluated(experiment(), strict=60)
    with pytest.raises(GateError, match="test"):
        final_gate(workspace, base, best)
    tested = evaluated("base", strict=50, split="test")
    with pytest.raises(GateError, match="nothing to gate"):
        final_gate(workspace, tested, tested)


def test_result_files_lie_in_the_run(workspace: Workspace, evaluated: Evaluated) -> None:
    assert not Path(evaluated("base", strict=1).body.directory).is_absolute()
