"""The lines and the live picture that a user sees during a run, and the end of `crew run`."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from posttrain_crew.crews import cli, posttrain
from posttrain_crew.crews.status_view import duration, one_line, plain_line, status_lines, summary_lines
from posttrain_crew.crews.view import LiveView

EVENTS: list[dict[str, Any]] = [
    {"event": "run_started", "run": "demo", "target": "gpqa-mini", "hours": 0.5, "directory": "/runs/demo"},
    {
        "event": "order_started",
        "specialist": "trainer",
        "objective": "Train on [bold]set[/bold] ts-1.",
        "order": "wo-3",
    },
    {"event": "tool_call", "tool": "launch", "role": "trainer"},
    {"event": "evaluation", "subject": "base", "split": "dev", "score": 0.123, "ci_low": 0.1, "ci_high": 0.15},
    {"event": "job_started", "label": "exp-1", "role": "train", "subject": "exp-1"},
    {"event": "job_progress", "label": "exp-1", "step": 30, "total_steps": 60, "loss": 1.25, "eta_s": 70},
    {"event": "evaluation", "subject": "exp-0", "split": "dev", "score": 0.5, "ci_low": 0.47, "ci_high": 0.53},
    {"event": "decision", "action": "promote", "subject": "exp-0", "reason": "lower bound above zero"},
]
SUMMARY: dict[str, Any] = {
    "run": "demo",
    "target": "gpqa-mini",
    "base": {"score": 0.13, "ci_low": 0.1, "ci_high": 0.16, "n": 600, "split": "test"},
    "final": {"score": 0.81, "ci_low": 0.78, "ci_high": 0.84, "n": 600, "split": "test"},
    "comparison": {"delta": 0.68, "ci_low": 0.64, "ci_high": 0.72, "p_value": 1e-30},
    "verdict": "improved",
    "experiments": 4,
    "test_evaluations": 2,
    "wall_s": 431.0,
    "final_model": "/runs/demo/final_model",
    "report": "/runs/demo/report.html",
}


def picture(view: LiveView) -> str:
    console = Console(file=io.StringIO(), width=140, force_terminal=False)
    console.print(view.render())
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_live_view_shows_who_works_on_what() -> None:
    now = 1000.0
    view = LiveView(Console(file=io.StringIO(), width=140), clock=lambda: now)
    for event in EVENTS:
        view.handle(event)
    now = 1360.0
    text = picture(view)
    for wanted in (
        "demo on gpqa-mini",
        "trainer",
        "Train on [bold]set[/bold] ts-1.",
        "30/60",
        "loss 1.25",
        "1 min 10 s left",
        "12.3 %",
        "50.0 %",
        "47.0 % to 53.0 %",
        "24 min 00 s left of 30 min 00 s",
        "lower bound above zero",
    ):
        assert wanted in text


def test_live_view_forgets_what_has_ended() -> None:
    view = LiveView(Console(file=io.StringIO(), width=140))
    for event in EVENTS:
        view.handle(event)
    view.handle({"event": "job_ended", "label": "exp-1", "ok": True, "wall_s": 60.0})
    view.handle({"event": "order_ended", "specialist": "trainer", "order": "wo-3", "ok": True})
    text = picture(view)
    assert "loss 1.25" not in text
    assert "choosing what to do next" in text


@pytest.mark.parametrize(
    ("event", "wanted"),
    [
        (
            {"event": "job_ended", "label": "exp-2", "ok": False, "error_class": "diverged", "wall_s": 61},
            "failed (diverged)",
        ),
        ({"event": "evaluation", "subject": "base", "split": "dev", "score": 0.1}, "score of base on dev: 10.0 %"),
        ({"event": "incident", "where": "hub", "what": "down", "instead": "cache"}, "Instead: cache"),
        ({"event": "dataset_audited", "dataset": "x", "verdict": "usable"}, "dataset_audited: dataset=x"),
        ({"event": "setup", "message": "making the base model"}, "making the base model"),
    ],
)
def test_plain_line(event: dict[str, Any], wanted: str) -> None:
    line = plain_line({"time": 0.0, **event})
    assert line is not None
    assert wanted in line


def test_plain_line_of_hostile_text_is_one_line() -> None:
    line = plain_line({"event": "decision", "action": "stop", "subject": "a", "reason": "x\ny\x1b[2J\r" + "z" * 999})
    assert line is not None
    assert "\n" not in line
    assert "\x1b" not in line
    assert len(line) < 420


def test_words_for_numbers() -> None:
    assert [duration(s) for s in (42, 185, 7800, None)] == ["42 s", "3 min 05 s", "2 h 10 min", "-"]
    assert one_line("a\tb") == "a b"


def test_status_of_a_running_job() -> None:
    job = {
        "role": "train",
        "subject": "exp-2",
        "step": 3,
        "total_steps": 9,
        "metric": "reward",
        "value": 0.5,
        "eta_s": 9,
    }
    lines = status_lines(
        {"run": "demo", "target": "t", "state": "running", "phase": "experiments", "running": [job], "hours": 1}
    )
    assert any("training exp-2, step 3/9, reward 0.5, 9 s left" in line for line in lines)


def test_summary_of_a_run() -> None:
    text = "\n".join(summary_lines(SUMMARY))
    for wanted in ("verdict: improved", "81.0 % (95 % CI 78.0 to 84.0) on 600 test items", "+68.0 points", "p = 1e-30"):
        assert wanted in text
    assert "verdict: none" in "\n".join(summary_lines({}))


def run_with(monkeypatch: pytest.MonkeyPatch, work: Any, *more: str) -> int:
    monkeypatch.setattr(posttrain, "start", work)
    with pytest.raises(SystemExit) as leaving:
        cli.main(["run", "posttrain", "--target", "gpqa-mini", *more])
    return int(leaving.value.code or 0)


@pytest.mark.parametrize("code", [0, 3])
def test_run_ends_with_the_summary_and_its_code(
    code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[posttrain.RunOptions] = []

    def work(options: posttrain.RunOptions, listener: Any) -> posttrain.RunResult:
        seen.append(options)
        for event in EVENTS:
            listener(event)
        return posttrain.RunResult("demo", Path("/runs/demo"), SUMMARY, code)

    assert run_with(monkeypatch, work, "--json", "--seed", "2", "--hours", "0.2") == code
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[:-1] == EVENTS
    assert lines[-1] == SUMMARY
    assert (seen[0].seed, seen[0].hours, seen[0].target) == (2, 0.2, "gpqa-mini")
    assert run_with(monkeypatch, work) == code
    text = capsys.readouterr().out
    assert "trainer starts wo-3" in text
    assert "verdict: improved" in text


def test_interrupt_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def work(options: posttrain.RunOptions, listener: Any) -> posttrain.RunResult:
        listener(EVENTS[0])
        raise KeyboardInterrupt

    assert run_with(monkeypatch, work, "--json") == 130
    said = capsys.readouterr()
    assert "crew resume /runs/demo" in said.err
    assert json.loads(said.out.splitlines()[-1])["error"] == "Interrupted"


def test_budget_too_small_is_4(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from posttrain_crew.errors import BudgetTooSmallError

    def work(options: posttrain.RunOptions, listener: Any) -> posttrain.RunResult:
        raise BudgetTooSmallError("give more hours")

    assert run_with(monkeypatch, work, "--json") == 4
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["error"] == "BudgetTooSmallError"
