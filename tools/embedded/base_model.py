"""The embedded base model in the user's cache: made once, verified at every use, made again when damaged.

A copy lives in `CACHE/embedded-base/KEY/`, where KEY is the hash of the sources and the configuration it is made from:
change a family and the old model is no longer found. A lock file lets one process build while others wait; a finished
model appears by an atomic rename; `files.sha256.json` lists its files and is checked by every caller.

Nothing here imports torch until the model is really made, and that happens in a process of its own:

    python -m posttrain_crew.tools.embedded.base_model --out DIR     # about two minutes on two cores
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from posttrain_crew.errors import JobError

__all__ = ["base_key", "default_cache_dir", "ensure_base", "is_intact"]

logger = logging.getLogger(__name__)

SOURCES = ("families.py", "benchmark.py", "corpus.py", "structured_init.py", "pretraining.py")
"""What the model is made from; its configuration is a dataclass of pretraining.py."""
CHECKSUMS = "files.sha256.json"
NEEDED = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


def default_cache_dir() -> Path:
    """`$CREW_CACHE`, else `posttrain-crew` in the user's cache folder."""
    chosen = os.environ.get("CREW_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "posttrain-crew"


def base_key() -> str:
    """16 hex digits that change with anything the model is made from."""
    digest = hashlib.sha256()
    for name in SOURCES:
        digest.update(name.encode() + b"\0" + Path(__file__).with_name(name).read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _checksums(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name != CHECKSUMS
    }


def is_intact(folder: Path) -> bool:
    """Whether `folder` holds a complete base model whose listed files are unchanged."""
    try:
        listed = json.loads((folder / CHECKSUMS).read_text(encoding="utf-8"))
        found = _checksums(folder)
    except (OSError, ValueError):
        return False
    if not isinstance(listed, dict) or not set(NEEDED) <= set(listed):
        return False
    return all(found.get(name) == digest for name, digest in listed.items())


def ensure_base(cache_dir: Path, on_progress: Callable[[str], None] | None = None) -> Path:
    """The folder of an intact base model, made first when the cache has none (minutes; one line of progress at a time).

    Raises:
        JobError: the subprocess that makes the model failed; the message has the end of its output.
    """
    report = on_progress or logger.info
    shelf = cache_dir.expanduser().absolute() / "embedded-base"
    folder = shelf / base_key()
    if is_intact(folder):
        return folder
    shelf.mkdir(parents=True, exist_ok=True)
    with _locked(shelf / f"{folder.name}.lock", report):
        if is_intact(folder):  # another process made it while this one waited
            return folder
        if folder.exists():
            report(f"the cached base model in {folder} is damaged and is made again")
            shutil.rmtree(folder)
        prefix = f"making-{folder.name}-"
        for abandoned in shelf.glob(f"{prefix}*"):  # by a process that was killed: this one has the lock
            shutil.rmtree(abandoned)
        with tempfile.TemporaryDirectory(prefix=prefix, dir=shelf) as workshop:
            made = Path(workshop) / "base"
            _make_in_subprocess(made, report)
            made.rename(folder)
    return folder


@contextlib.contextmanager
def _locked(path: Path, report: Callable[[str], None]) -> Iterator[None]:
    lock = FileLock(str(path))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        report("another process is making the embedded base model; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _make_in_subprocess(out_dir: Path, report: Callable[[str], None]) -> None:
    command = [sys.executable, "-m", "posttrain_crew.tools.embedded.base_model", "--out", str(out_dir)]
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as complaints,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=complaints, text=True) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            report(line.rstrip())
        status = process.wait()
        complaints.seek(0)
        tail = "".join(complaints.readlines()[-20:])
    if status != 0 or not is_intact(out_dir):
        raise JobError(
            f"making the embedded base model failed with exit status {status}. Run it by hand to see more: "
            f"{' '.join(command)}. End of its error output:\n{tail}"
        )


def main(argv: list[str] | None = None) -> None:
    """Make a base model in `--out`, which must not exist yet."""
    parser = argparse.ArgumentParser(description="make the embedded base model from scratch")
    parser.add_argument("--out", type=Path, required=True)
    out_dir: Path = parser.parse_args(argv).out
    progress = sys.stdout

    def show(line: str) -> None:
        progress.write(line + "\n")
        progress.flush()

    with contextlib.redirect_stdout(sys.stderr):  # some libraries log to stdout, which is for progress alone
        from posttrain_crew.tools.embedded.pretraining import PretrainingConfig, pretrain  # torch

        out_dir.mkdir(parents=True)
        pretrain(out_dir, PretrainingConfig(), show)
    (out_dir / CHECKSUMS).write_text(json.dumps(_checksums(out_dir), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
