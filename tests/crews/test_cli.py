"""What a user sees of `crew`: answers, errors and exit codes, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

CREW = [sys.executable, "-m", "posttrain_crew.crews.cli"]


def crew(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CREW_")}
    return subprocess.run(
        [*CREW, *arguments],
        cwd=cwd,
        env={**kept, "COLUMNS": "200", **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def last_json(done: subprocess.CompletedProcess[str]) -> Any:
    return json.loads(done.stdout.strip().splitlines()[-1])


def refused(done: subprocess.CompletedProcess[str], *words: str, code: int = 2) -> None:
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.strip().splitlines()) == 1, "one paragraph"
    for word in words:
        assert word in done.stderr


# --- light commands --------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--help"], ["run", "posttrain", "--help"], ["report", "--help"]])
def test_help_documents_without_heavy_imports(arguments: list[str], tmp_path: Path) -> None:
    program = (
        "import sys\nfrom posttrain_crew.crews.cli import main\ntry:\n    main(sys.argv[1:])\nfinally:\n"
        "    heavy = {'torch', 'crewai', 'litellm', 'transformers', 'datasets', 'sqlalchemy', 'matplotlib'}\n"
        "    print('LOADED', sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("LOADED []")


def test_status_and_runs_need_no_heavy_imports(finished: Any, tmp_path: Path) -> None:
    program = (
        "import sys\nfrom posttrain_crew.crews.cli import main\n"
        "for words in (['status'], ['status', 'demo', '--json'], ['runs'], ['log', 'demo'], ['report', 'demo']):\n"
        "    try:\n        main(words)\n    except SystemExit as leaving:\n        assert not leaving.code, words\n"
        "    assert not {'torch', 'crewai', 'litellm', 'transformers'} & set(sys.modules), words\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_exit_codes_are_in_the_help(tmp_path: Path) -> None:
    text = " ".join(crew("--help", cwd=tmp_path).stdout.split())
    for line in ("3 the run finished, without a significant gain", "4 the budget is too small", "130 interrupted"):
        assert line in text


# --- what a run looks like --------------------------------------------------------------------------------


def test_status_of_the_newest_run(finished: Any, tmp_path: Path) -> None:
    done = crew("status", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "run demo on gpqa-mini: finished" in done.stdout
    assert "80.0 % (95 % CI 77.0 to 83.0): exp-4" in done.stdout
    assert last_json(crew("status", "demo", "--json", cwd=tmp_path))["best"] == "exp-4"


def test_status_of_a_dead_run_is_interrupted(finished: Any, tmp_path: Path) -> None:
    finished.status(state="running")
    done = crew("status", "demo", cwd=tmp_path)
    assert "demo on gpqa-mini: interrupted" in done.stdout
    assert "crew resume demo" in done.stdout


def test_runs_dir_by_flag_and_environment(finished: Any, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    place = str(finished.run.root.parent)
    assert "demo" in crew("runs", "--runs-dir", place, cwd=elsewhere).stdout
    assert last_json(crew("runs", "--json", cwd=elsewhere, CREW_RUNS_DIR=place))[0]["run"] == "demo"
    assert "no runs in" in crew("runs", cwd=elsewhere).stdout


def test_log_lists_and_filters(finished: Any, tmp_path: Path) -> None:
    lines = crew("log", "demo", cwd=tmp_path).stdout.splitlines()
    assert len(lines) == len(finished.board.since())
    assert "arXiv is down" in " ".join(lines)
    done = crew("log", "demo", "--kind", "decision", "--json", cwd=tmp_path)
    entries = [json.loads(line) for line in done.stdout.splitlines()]
    assert {entry["kind"] for entry in entries} == {"decision"}
    assert len(entries) == 6


def test_log_into_a_closed_pipe_is_quiet(finished: Any, tmp_path: Path) -> None:
    command = f"{sys.executable} -m posttrain_crew.crews.cli log demo --json | head -n 1"
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False)  # noqa: S602
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1


def test_report_is_written_anew(finished: Any, tmp_path: Path) -> None:
    done = crew("report", "demo", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Improved. On 600 test items")
    assert finished.run.report_html.is_file()
    assert last_json(crew("report", str(finished.run.root), "--json", cwd=tmp_path))["verdict"] == "improved"


def test_stop_of_a_run_that_does_not_run(finished: Any, tmp_path: Path) -> None:
    done = crew("stop", "demo", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "demo is not running: there is nothing to stop.\n")
    assert not finished.run.stop_request.exists()


def test_stop_waits_until_the_lock_is_free(finished: Any, tmp_path: Path) -> None:
    loop = (
        "import sys, time\nfrom pathlib import Path\nfrom posttrain_crew.rundir import RunDirectory\n"
        "run = RunDirectory.open(Path(sys.argv[1]))\nwith run.locked():\n    print('held', flush=True)\n"
        "    while not run.stop_request.exists(): time.sleep(0.05)\n    time.sleep(0.5)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", loop, str(finished.run.root)], stdout=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "held\n"
        assert "still at work" in crew("stop", "demo", "--wait", "0", cwd=tmp_path).stdout
        begun = time.monotonic()
        done = crew("stop", "demo", cwd=tmp_path)
        assert time.monotonic() - begun < 20
    assert done.returncode == 0, done.stderr
    assert "demo has stopped" in done.stdout or "not running" in done.stdout


# --- bad input --------------------------------------------------------------------------------


def test_unknown_target_names_the_nearest(tmp_path: Path) -> None:
    done = crew("run", "posttrain", "--target", "gpqa-mni", "--json", cwd=tmp_path)
    refused(done, "no target `gpqa-mni`", "Did you mean `gpqa-mini`")
    assert last_json(done)["error"] == "TargetError"
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


def test_unknown_run_names_the_nearest(finished: Any, tmp_path: Path) -> None:
    for command in ("status", "log", "report", "resume", "stop"):
        refused(crew(command, "demmo", cwd=tmp_path), "no run `demmo`", "Did you mean demo?")


def test_status_without_any_run(tmp_path: Path) -> None:
    refused(crew("status", cwd=tmp_path), "no runs in", "crew run posttrain")


def test_unwritable_place_for_runs(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file, not a folder")
    done = crew("run", "posttrain", "--target", "gpqa-mini", cwd=tmp_path)
    refused(done, str(tmp_path / "runs"))


def test_unwritable_home(tmp_path: Path) -> None:
    done = crew("run", "posttrain", "--target", "gpqa-mini", cwd=tmp_path, HOME="/proc/nowhere")
    refused(done, "/proc/nowhere", "Set HOME")
    assert not (tmp_path / "runs").exists()


def test_corrupt_blackboard(finished: Any, tmp_path: Path) -> None:
    finished.board.close()
    finished.run.blackboard.write_bytes(b"this is no database" * 500)
    for suffix in ("-wal", "-shm"):
        finished.run.blackboard.with_name(f"blackboard.db{suffix}").unlink(missing_ok=True)
    for command in ("log", "report", "resume"):
        done = crew(command, "demo", cwd=tmp_path)
        refused(done, "blackboard")


def test_second_process_on_a_run(finished: Any, tmp_path: Path) -> None:
    with finished.run.locked():
        refused(crew("resume", "demo", cwd=tmp_path), f"pid {os.getpid()}", "crew stop demo")


def test_damaged_status_file(finished: Any, tmp_path: Path) -> None:
    finished.run.status.write_text('{"run": "de')
    refused(crew("status", "demo", cwd=tmp_path), "status.json", "crew log demo")
    assert "damaged" in crew("runs", cwd=tmp_path).stdout


def test_impossible_numbers(tmp_path: Path) -> None:
    for option, value in (("--hours", "-1"), ("--hours", "nan"), ("--usd", "0"), ("--tokens", "-5")):
        refused(crew("run", "posttrain", "--target", "gpqa-mini", option, value, cwd=tmp_path), option)


def test_usage_error_is_2_with_a_json_line(tmp_path: Path) -> None:
    done = crew("status", "--no-such-option", "--json", cwd=tmp_path)
    assert done.returncode == 2
    assert last_json(done)["error"] == "UsageError"


def test_unknown_kind_of_entry(finished: Any, tmp_path: Path) -> None:
    refused(crew("log", "demo", "--kind", "wish", cwd=tmp_path), "no kind of entry `wish`", "decision")


def test_model_that_is_no_model(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    refused(crew("eval", str(empty), "--target", "gpqa-mini", cwd=tmp_path), "config.json")
    refused(crew("eval", "nowhere", "--target", "gpqa-mini", "--split", "train", cwd=tmp_path), "dev or test")


def test_dataset_and_config_that_are_not_there(tmp_path: Path) -> None:
    refused(crew("audit", "nowhere", "--target", "gpqa-mini", cwd=tmp_path), "no dataset at nowhere")
    refused(crew("train", "nowhere.yaml", cwd=tmp_path), "nowhere.yaml")


def test_targets_and_roles(tmp_path: Path) -> None:
    assert "gpqa-mini" in crew("targets", cwd=tmp_path).stdout
    assert last_json(crew("targets", "show", "gpqa-mini", "--json", cwd=tmp_path))["name"] == "gpqa-mini"
    assert "coordinator" in crew("roles", cwd=tmp_path).stdout
    done = crew("roles", "eject", "literature", "--to", "prompts", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "prompts").glob("*.yaml")) != []
    refused(crew("roles", "show", "nobody", cwd=tmp_path), "no role `nobody`")


def test_doctor_says_what_is_wrong(tmp_path: Path) -> None:
    good = crew("doctor", "--json", cwd=tmp_path, CREW_LLM="openai/gpt-x", CREW_LLM_API_KEY="sk-very-secret-value-1")
    checks = {check["name"]: check for check in last_json(good)["checks"]}
    assert "very-secret" not in good.stdout + good.stderr
    assert "a key is set" in checks["llm"]["detail"]
    bad = crew("doctor", cwd=tmp_path, HOME="/proc/nowhere", XDG_CACHE_HOME=str(tmp_path))
    assert bad.returncode == 2
    assert "HOME" in bad.stdout


def test_crash_saves_a_traceback(tmp_path: Path) -> None:
    program = (
        "from posttrain_crew.crews import cli, runs\n"
        "def broken(folder): raise RuntimeError('a fault of ours')\n"
        "runs.list_runs = broken\ncli.main(['runs', '--json'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    refused(done, "a fault of ours", code=1)
    saved = list(tmp_path.glob("crew-traceback-*.txt"))
    assert len(saved) == 1
    assert "RuntimeError" in saved[0].read_text()
    assert last_json(done)["error"] == "InternalError"
