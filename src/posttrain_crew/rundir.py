"""The run directory: where everything of one run lies, and the lock that keeps a second process out.

RUN/blackboard.db manifest.json status.json events.jsonl
    experiments/ID/   config.yaml metrics.jsonl outcome.json job.json log.txt model/
    evaluations/ID/   config.yaml results.json samples.jsonl outcome.json job.json log.txt
    data/SHA256/      train.jsonl card.json
    final_model/      a plain Hugging Face folder with a model card
    report.html report.json
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from posttrain_crew.errors import RunBusyError, RunError

__all__ = ["RunDirectory", "free_gib"]


def free_gib(path: Path) -> float:
    """Free disk space, GiB, of the file system that holds `path` or its nearest existing parent."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free / 2**30


class RunDirectory:
    """Paths of one run. Making the object touches nothing; `create` and `open` do.

    Args:
        root: the run's own directory; its name is the run id.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.id = self.root.name
        self.blackboard = self.root / "blackboard.db"
        self.manifest = self.root / "manifest.json"
        self.status = self.root / "status.json"
        self.events = self.root / "events.jsonl"
        self.experiments = self.root / "experiments"
        self.evaluations = self.root / "evaluations"
        self.data = self.root / "data"
        self.final_model = self.root / "final_model"
        self.report_html = self.root / "report.html"
        self.report_json = self.root / "report.json"
        self.stop_request = self.root / "stop.requested"

    @classmethod
    def create(cls, root: Path) -> RunDirectory:
        """Make a new run directory.

        Raises:
            RunError: it exists already with something in it, or cannot be written.
        """
        run = cls(root)
        try:
            if run.root.exists() and any(run.root.iterdir()):
                raise RunError(
                    f"the directory {run.root} is not empty. Give another `--out`, or go on with "
                    f"`crew resume {run.id}`."
                )
            for folder in (run.experiments, run.evaluations, run.data):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(
                f"the run directory {run.root} cannot be made or written ({error.strerror or error}). "
                "Choose a place that you can write to with `--runs-dir` or `--out`."
            ) from error
        return run

    @classmethod
    def open(cls, root: Path) -> RunDirectory:
        """An existing run. Raises RunError when there is none."""
        run = cls(root)
        if not run.blackboard.is_file():
            raise RunError(
                f"there is no run at {run.root} (no blackboard.db). `crew runs` lists the runs; "
                "`--runs-dir` says where to look."
            )
        return run

    def relative(self, path: Path) -> str:
        """A path inside the run as the blackboard holds it."""
        return path.resolve().relative_to(self.root).as_posix()

    def absolute(self, relative: str) -> Path:
        """The reverse of `relative`. Raises RunError for a path that leaves the run directory."""
        path = (self.root / relative).resolve()
        if not path.is_relative_to(self.root):
            raise RunError(f"the path {relative!r} leaves the run directory {self.root}.")
        return path

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for this process. The kernel frees the lock when the process dies, however it dies.

        Raises:
            RunBusyError: another live process holds it.
        """
        path = self.root / "lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise
                holder = os.pread(descriptor, 64, 0).decode().strip() or "unknown"
                raise RunBusyError(
                    f"the run {self.id} is being worked on by another process (pid {holder}). "
                    f"Watch it with `crew status {self.id}`, or end it with `crew stop {self.id}`."
                ) from error
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            yield
        finally:
            os.close(descriptor)

    def holder(self) -> int | None:
        """Pid of the live process that holds the run, or None."""
        path = self.root / "lock"
        if not path.exists():
            return None
        with path.open("r+") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                text = path.read_text().strip()
                return int(text) if text.isdigit() else None
        return None
