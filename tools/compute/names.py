"""The names that jobs carry on a backend that others use too.

A label is unique within its run; on a cluster it gets the run's tag in front. The tag is drawn once and lies in the
run's directory, so that it moves with it, and two runs of the same name on two machines do not meet.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from pathlib import Path

from posttrain_crew.errors import JobError
from posttrain_crew.files import sha256_text

__all__ = ["cluster_name", "root_of", "tag_of"]

TAG_FILE = ".compute-tag"
_BOARD = "blackboard.db"
_LONGEST = 80
_TAG = re.compile(r"[0-9a-f]{10}")


def root_of(directory: Path) -> Path:
    """The run that a job's directory belongs to; a job without a run is its own."""
    directory = directory.resolve()
    for folder in (directory, *directory.parents):
        if (folder / _BOARD).exists() or (folder / TAG_FILE).exists():
            return folder
    return directory


def tag_of(root: Path) -> str:
    """The run's tag, ten hexadecimal digits; drawn when it is asked for first. Raises JobError: it cannot be kept."""
    path = root / TAG_FILE
    try:
        if not path.exists():
            drawn = path.with_name(f"{TAG_FILE}.{os.getpid()}")
            drawn.write_text(secrets.token_hex(5), encoding="utf-8")
            with contextlib.suppress(FileExistsError):  # another process drew one at the same moment: its tag stands
                os.link(drawn, path)
            drawn.unlink()
        tag = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise JobError(f"{path} cannot be read or written ({error}): jobs on a cluster could not be found.") from error
    if not _TAG.fullmatch(tag):
        raise JobError(f"{path} holds {tag[:40]!r} and no tag of crew: delete it if no job of this run is at work.")
    return tag


def cluster_name(directory: Path, label: str) -> str:
    """`crew-TAG-LABEL` in letters, digits, `-` and `_`, at most 80 characters, and another for each label."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", label)
    if plain != label or len(plain) > _LONGEST - 16:
        plain = f"{plain[: _LONGEST - 26]}-{sha256_text(label)[:8]}"
    return f"crew-{tag_of(root_of(directory))}-{plain}"
