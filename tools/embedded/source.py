"""gpqa-mini as `builtin:gpqa-mini`: items, candidates, base model and tasks, all made here and needing no network."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from filelock import FileLock

from posttrain_crew.tools.embedded import benchmark
from posttrain_crew.tools.sources import BenchmarkItem

__all__ = ["GpqaMini"]

SOURCES = ("families.py", "benchmark.py", "catalogue.py", "off_domain.py")
"""What the catalogue is made from."""


class GpqaMini:
    """The embedded source; see tools/sources.BuiltinSource for what each method promises."""

    def items(self, split: Literal["dev", "test"]) -> Sequence[BenchmarkItem]:
        """The 600 items of a split."""
        return [BenchmarkItem(item.id, item.question, item.choices, item.answer) for item in benchmark.items(split)]

    def candidates(self, cache: Path, seed: int) -> Path:
        """CACHE/catalogues/gpqa-mini-VERSION-seedN, complete: it appears by a rename, or is found there already."""
        from posttrain_crew.tools.embedded.catalogue import write_catalogue

        shelf = cache.expanduser().absolute() / "catalogues"
        folder = shelf / f"gpqa-mini-{_version()}-seed{seed}"
        if folder.is_dir():
            return folder
        shelf.mkdir(parents=True, exist_ok=True)
        with FileLock(str(shelf / f"{folder.name}.lock")):
            if not folder.is_dir():
                prefix = f".making-{folder.name}-"
                for abandoned in shelf.glob(f"{prefix}*"):  # by a process that was killed: this one has the lock
                    shutil.rmtree(abandoned)
                with tempfile.TemporaryDirectory(prefix=prefix, dir=shelf) as workshop:
                    made = Path(workshop) / "catalogue"
                    write_catalogue(made, seed)
                    made.rename(folder)
        return folder

    def base_model(self, cache: Path, on_progress: Callable[[str], None] | None = None) -> Path:
        """The embedded base model, made in minutes when the cache has none. Raises JobError when that fails."""
        from posttrain_crew.tools.embedded.base_model import ensure_base

        return ensure_base(cache, on_progress)

    def task_folder(self) -> Path:
        """The folder with gpqa_mini_dev.yaml and gpqa_mini_test.yaml."""
        return benchmark.TASKS_DIR


def _version() -> str:
    digest = hashlib.sha256()
    for name in SOURCES:
        digest.update(name.encode() + b"\0" + Path(__file__).with_name(name).read_bytes() + b"\0")
    return digest.hexdigest()[:12]
