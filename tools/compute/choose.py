"""Which backend a run computes on: the one that the user names; without a name this machine, and where that is too
small, Hugging Face Jobs, if the run has a limit in US dollars that pays for them."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

from posttrain_crew.errors import (
    BudgetError,
    ConfigError,
    InputError,
    JobError,
    ServiceUnavailableError,
    TargetError,
)
from posttrain_crew.plugins import hooks, merged
from posttrain_crew.tools.compute.base import Capacity, Compute

__all__ = ["check_name", "choose_backend", "make_backend"]

RENTED = "hf-jobs"


def make_backend(name: str, slots: int = 0) -> Compute:
    """A backend by its registered name.

    Args:
        slots: jobs side by side; 0: the backend's own number.

    Raises:
        InputError: there is none of this name. ConfigError: its settings are not right.
    """
    made: Compute = check_name(name)(slots=slots)
    return made


def check_name(name: str) -> Callable[..., Any]:
    """The maker of the backends of this name. Raises InputError: there is none of this name."""
    backends: dict[str, Callable[..., Any]] = merged(hooks().register_compute())
    if name not in backends:
        near = difflib.get_close_matches(name, backends, n=1)
        hint = f" Did you mean `{near[0]}`?" if near else ""
        raise InputError(f"there is no compute backend `{name}`; there are {', '.join(sorted(backends))}.{hint}")
    return backends[name]


def choose_backend(
    wanted: str | None,
    lacking: Callable[[Capacity], list[str]],
    *,
    hours: float,
    usd: float | None,
    slots: int = 0,
    make: Callable[[str, int], Compute] = make_backend,
) -> tuple[Compute, str]:
    """The backend, and why it is not this machine ("" where it is, or where the user named it).

    Args:
        wanted: the name that the user gave, or None.
        lacking: what a target needs and a capacity does not have, one sentence each.
        hours: of the run; one job at a time for so long is what it may cost.
        usd: the run's limit in US dollars; without one nothing is rented.

    Raises:
        TargetError: what was named, or everything that may be used, is too small. BudgetError: it would fit, and costs
        more than the limit or nobody knows what. InputError, ConfigError: the named backend cannot be used.
        ServiceUnavailableError: it does not answer, or has nothing to run on.
    """
    name = wanted or "local"
    compute = make(name, slots)
    try:
        capacity = compute.capacity()
    except JobError as error:
        raise ServiceUnavailableError(str(error), service=name) from error
    if capacity.slots == 0:
        raise ServiceUnavailableError(
            f"there is nothing to run on at present: {capacity.description}. Try again when there is, or name another "
            "backend with `--compute`.",
            service=name,
        )
    missing = lacking(capacity)
    if not missing and usd is not None and compute.price() is None:
        remedy = "Choose another flavor with CREW_HF_JOBS_FLAVOR (`hf jobs hardware`)"
        if name != RENTED:
            remedy = f"Set CREW_{name.upper().replace('-', '_')}_USD_PER_HOUR (0 where it costs you nothing)"
        raise BudgetError(
            f"the price of a job on `{name}` is not known, and the run has a limit of {usd:g} USD: unknown prices are "
            f"refused. {remedy}, or leave `--usd` away."
        )
    if not missing:
        return compute, ""
    here = f"it cannot be run on `{name}`: {' '.join(missing)}"
    if wanted is not None:
        raise TargetError(here)
    if usd is None:
        raise TargetError(
            f"{here} Name another backend with `--compute`, or give a limit with `--usd`: then Hugging Face Jobs are "
            "rented within it."
        )
    try:
        rented = make(RENTED, 0)
        missing = lacking(rented.capacity())
        price = rented.price()
    except (ConfigError, JobError) as error:
        raise TargetError(f"{here} Hugging Face Jobs cannot be used instead: {error}") from error
    if missing:
        raise TargetError(
            f"{here} Nor on Hugging Face Jobs: {' '.join(missing)} CREW_HF_JOBS_FLAVOR names a larger machine."
        )
    if price is None:
        raise BudgetError(
            f"{here} Hugging Face Jobs would do, but their price is not known: unknown prices are refused."
        )
    if price * hours > usd:
        raise BudgetError(
            f"{here} Hugging Face Jobs would do for {price:.2f} USD/h: {hours:g} h of one job are {price * hours:.2f} "
            f"USD, and the limit is {usd:g}. Give more `--usd`, or fewer `--hours`."
        )
    small = " ".join(lacking(capacity))
    return rented, f"this machine is too small ({small}), so the jobs run on Hugging Face for {price:.2f} USD/h each"
