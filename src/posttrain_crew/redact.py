"""Keep secrets out of logs, traces, reports and child processes.

Two nets: the exact values of the secrets that this process holds (also in base64 and URL-encoded form), and the known
shapes of keys. Neither suffices alone: a self-chosen password has no shape, another process's key no known value.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping
from urllib.parse import quote

__all__ = ["child_environment", "is_secret_name", "redact"]

_SECRET_NAME = re.compile(
    r"(TOKEN|API_?KEY|SECRET|PASSWORD|PASSWD|CREDENTIAL|_KEY$|_PASS$|_PAT$|WEBHOOK|DATABASE_URL|ACCESS_KEY)",
    re.IGNORECASE,
)
_NOT_SECRET = re.compile(r"^(TOKENIZERS_PARALLELISM|CREW_.*MAX_TOKENS)$")
_SHAPES = re.compile(
    r"""hf_[A-Za-z0-9]{20,} | sk-[A-Za-z0-9_-]{16,} | gh[pousr]_[A-Za-z0-9]{20,} | github_pat_[A-Za-z0-9_]{20,}
    | A[KS]IA[A-Z0-9]{16} | eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{5,}
    | (?<=earer\ )[A-Za-z0-9._~+/-]{12,}=* | (?<=write_token=)[A-Za-z0-9_-]+ | (?<=://)[^/\s:@]+:[^/\s@]+(?=@)
    | (?<=api-key:\ )\S+""",
    re.VERBOSE,
)


def is_secret_name(name: str) -> bool:
    """Whether an environment variable of this name holds a secret."""
    return bool(_SECRET_NAME.search(name)) and not _NOT_SECRET.match(name)


def redact(text: str, environment: Mapping[str, str] | None = None) -> str:
    """The text with every known secret replaced by `[redacted]`."""
    for name, value in (os.environ if environment is None else environment).items():
        if len(value) >= 8 and is_secret_name(name):
            for form in (value, base64.b64encode(value.encode()).decode(), quote(value, safe="")):
                text = text.replace(form, "[redacted]")
    return _SHAPES.sub("[redacted]", text)


def child_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without its secrets, plus `extra`, for jobs that need none."""
    kept = {name: value for name, value in os.environ.items() if not is_secret_name(name)}
    return {**kept, **(extra or {})}
