"""One request to a language model through litellm, for the agents and for synthesis: its retries and its price."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

__all__ = ["ATTEMPTS", "complete", "denied", "price"]

ATTEMPTS = 5
LONGEST_WAIT_S = 60.0


def denied() -> tuple[type[Exception], ...]:
    """litellm's exceptions for a wrong key, name or address."""
    from litellm import exceptions

    return exceptions.AuthenticationError, exceptions.PermissionDeniedError, exceptions.NotFoundError


def price(model: str, tokens_in: int, tokens_out: int, price_in: float | None, price_out: float | None) -> float | None:
    """USD of a call by the user's prices per token, else by litellm's map; None where neither knows the model."""
    if price_in is not None and price_out is not None:
        return tokens_in * price_in + tokens_out * price_out
    import litellm

    try:
        cost_in, cost_out = litellm.cost_per_token(model=model, prompt_tokens=tokens_in, completion_tokens=tokens_out)
    except Exception:  # noqa: BLE001 - litellm raises several bare types for a model that it has no price for
        return None
    return float(cost_in) + float(cost_out)


def complete(
    model: str, messages: Sequence[Any], *, timeout_s: float, retry_wait_s: float, attempts: int = ATTEMPTS, **more: Any
) -> Any:
    """litellm's answer, with retries of what can pass: busy, down, broken answers.

    litellm's own `num_retries` is not used: it tries again at once, whatever Retry-After says, and it clears the
    process-wide setting of the same name.

    Args:
        retry_wait_s: before the first retry where the server names no time; doubled each time.
        more: further arguments of `litellm.completion`; None leaves one out.

    Raises:
        litellm.exceptions.BadRequestError and those of `denied` at once; otherwise what the last attempt raised.
    """
    import litellm
    from litellm import exceptions

    litellm.suppress_debug_info = True
    request: dict[str, Any] = {
        "model": model,
        "messages": messages,
        "timeout": timeout_s,
        "num_retries": 0,
        "max_retries": 0,
        "drop_params": True,
        "_skip_mcp_handler": True,  # needs a newer `mcp` than crewai allows (some litellm versions)
        **{name: value for name, value in more.items() if value is not None},
    }
    final: tuple[type[Exception], ...] = (exceptions.BadRequestError, *denied())
    for attempt in range(1, attempts + 1):
        try:
            return litellm.completion(**request)
        except final:
            raise
        except Exception as error:
            if attempt == attempts:
                raise
            time.sleep(_wait(error, attempt, retry_wait_s))
    raise AssertionError("unreachable")


def _wait(error: Exception, attempt: int, first_s: float) -> float:
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    try:
        return min(LONGEST_WAIT_S, float(headers["retry-after"]))
    except (KeyError, ValueError):
        return float(min(LONGEST_WAIT_S, first_s * 2 ** (attempt - 1)))
