"""How crew uses huggingface_hub where it uses it: without its progress bars, and with what 1.x and 2.x raise."""

from __future__ import annotations

import importlib

__all__ = ["client_errors", "without_progress_bars"]


def client_errors() -> tuple[type[Exception], ...]:
    """What huggingface_hub raises for a bad answer and for none: 1.x is on httpx, 2.x on httpx2."""
    from huggingface_hub.errors import HfHubHTTPError

    found: list[type[Exception]] = [HfHubHTTPError]
    for library in ("httpx", "httpx2"):
        try:
            found.append(importlib.import_module(library).HTTPError)
        except ImportError:
            continue
    return tuple(found)


def without_progress_bars() -> None:
    """They would run over the run's view. A function of the client for the whole process."""
    importlib.import_module("huggingface_hub.utils").disable_progress_bars()
