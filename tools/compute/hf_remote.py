"""What runs inside a Hugging Face job: bring the files, run the module, send back what it wrote.

The text of this file is the job's program (`python -c`), before any of crew is there: standard library and
huggingface_hub alone. It is told everything by CREW_REMOTE, a JSON object:

    repo          private repository that the files travel through
    endpoint      of the Hub
    code          path in the repo of the zip with crew's package
    job           folder in the repo of this job: files.json says which file goes where; out/ is what comes back
    command       of the job; {root} stands for the folder that the files are put into
    directory     of the job, under {root}
    timeout_s     the module is ended then, with SIGTERM, and ten seconds later with SIGKILL
    sync_s        seconds between two copies of a running job's checkpoints to the repo
    keep          names of the secrets that the module itself gets
    patience_s    how long the Hub is asked again where it does not take or give the files

Files that cannot be had or stored end the program with exit code 75 (EX_TEMPFAIL) and a last line that says why.

The rows of metrics.jsonl are printed as they come, behind METRICS, so that whoever follows the log can watch.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

METRICS = "crew-metrics "
RESTART = "crew-metrics-from-the-start"
NOT_BACK = ["config.yaml", ".crew-*", ".cache/*", "log.txt"]
GRACE_S = 10.0
NO_FILES = 75
LONGEST_PAUSE_S = 30.0


def main() -> int:
    """The job's exit code is the module's."""
    told: dict[str, Any] = json.loads(os.environ["CREW_REMOTE"])
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(128 + signal.SIGTERM))  # before there is a child
    with tempfile.TemporaryDirectory(prefix="crew-", ignore_cleanup_errors=True) as folder:
        return _work(told, Path(folder))


def _work(told: dict[str, Any], root: Path) -> int:
    from huggingface_hub import HfApi

    api = HfApi(endpoint=told["endpoint"], token=os.environ["HF_TOKEN"])
    directory: Path = _patiently(told, "brought", lambda: _bring(api, told, root))
    environment = {name: value for name, value in os.environ.items() if name not in ("HF_TOKEN", "CREW_REMOTE")}
    environment |= {name: os.environ[name] for name in told["keep"] if name in os.environ}
    environment["PYTHONPATH"] = os.pathsep.join([str(root / "code"), *filter(None, [environment.get("PYTHONPATH")])])
    environment["CREW_JOB_DIRECTORY"] = str(directory)
    command = [part.replace("{root}", str(root)) for part in told["command"]]
    child = subprocess.Popen(command, cwd=directory, env=environment)
    signal.signal(signal.SIGTERM, lambda _number, _frame: child.send_signal(signal.SIGTERM))
    over = threading.Event()
    telling = threading.Thread(target=_tell_metrics, args=(directory / "metrics.jsonl", over))
    telling.start()
    code = _watch(child, api, told, directory)
    over.set()
    telling.join()
    _patiently(told, "stored", lambda: _send(api, told, directory, "files of the ended job"))
    return code if code >= 0 else 128 - code


def _bring(api: Any, told: dict[str, Any], root: Path) -> Path:
    repo, job = told["repo"], told["job"]
    plan = json.loads(Path(api.hf_hub_download(repo, f"{job}/files.json", local_dir=root / "hub")).read_text())
    wanted = [told["code"], *(f"{source}*" if plan[source]["folder"] else source for source in plan)]
    place = Path(api.snapshot_download(repo, allow_patterns=wanted, local_dir=root / "hub"))
    with zipfile.ZipFile(place / told["code"]) as code:
        code.extractall(root / "code")
    for source, target in plan.items():
        path = root / target["to"].lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        if target["folder"]:
            shutil.copytree(place / source, path, dirs_exist_ok=True)
        else:
            shutil.copy2(place / source, path)
    directory = root / str(told["directory"]).lstrip("/")
    config = directory / "config.yaml"
    config.write_text(config.read_text().replace("{crew-root}", str(root)))
    return directory


def _watch(child: subprocess.Popen[bytes], api: Any, told: dict[str, Any], directory: Path) -> int:
    started = synced = time.monotonic()
    while True:
        try:
            return child.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            now = time.monotonic()
        if now - started > told["timeout_s"]:
            return _end(child, told, directory, now - started)
        if now - synced > told["sync_s"] and (directory / "checkpoints").is_dir():
            try:
                _send(api, told, directory, "checkpoints of the running job")
            except Exception as error:  # noqa: BLE001 - whatever the client raises, the next round may work
                _complain("the checkpoints could not be stored", error)
            synced = time.monotonic()


def _end(child: subprocess.Popen[bytes], told: dict[str, Any], directory: Path, used: float) -> int:
    child.terminate()
    try:
        code = child.wait(timeout=GRACE_S)
    except subprocess.TimeoutExpired:
        child.kill()
        code = child.wait()
    path = directory / "outcome.json"
    outcome = json.loads(path.read_text()) if path.exists() else {"steps": 0, "metrics": {}}
    if not outcome.get("ok"):
        message = f"ended after {used:.0f} s: its time limit was {told['timeout_s']:.0f} s"
        ending = {"ok": False, "error_class": "timeout", "message": message, "wall_s": used, "checkpoint": None}
        path.write_text(json.dumps({**outcome, **ending}))
    return code


def _send(api: Any, told: dict[str, Any], directory: Path, message: str) -> None:
    """One commit."""
    api.upload_folder(
        repo_id=told["repo"],
        folder_path=directory,
        path_in_repo=f"{told['job']}/out",
        ignore_patterns=NOT_BACK,
        commit_message=message,
    )


def _patiently(told: dict[str, Any], what: str, work: Callable[[], Any]) -> Any:
    """`work`, again and again while the Hub does not do it: a result that was paid for outlives a bad quarter of an
    hour. Ends the program where it does not help."""
    deadline, pause = time.monotonic() + told["patience_s"], 1.0
    while True:
        try:
            return work()
        except Exception as error:  # noqa: BLE001 - whatever the client raises, the next try may work
            _complain(f"the files could not be {what}", error)
            if time.monotonic() + pause > deadline:
                sys.exit(NO_FILES)
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_S)


def _complain(what: str, error: Exception) -> None:
    sys.stderr.write(f"{what} ({type(error).__name__}: {' '.join(str(error).split())[:300]})\n")
    sys.stderr.flush()


def _tell_metrics(path: Path, over: threading.Event) -> None:
    position, rest = -1, ""
    while True:
        last = over.is_set()
        if path.exists():
            if position < 0 or path.stat().st_size < position:
                position, rest = 0, ""
                sys.stdout.write(f"{RESTART}\n")
            with path.open(encoding="utf-8") as stream:
                stream.seek(position)
                rest += stream.read()
                position = stream.tell()
            *rows, rest = rest.split("\n")
            sys.stdout.write("".join(f"{METRICS}{row}\n" for row in rows))
            sys.stdout.flush()
        if last:
            return
        over.wait(0.5)


if __name__ == "__main__":
    sys.exit(main())
