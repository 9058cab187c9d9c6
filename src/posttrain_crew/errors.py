"""The exception tree of crew: one root, so that a caller can catch everything that crew raises on purpose.

Each class carries the exit code that the command line uses when the error ends a command (see README, "Exit codes"),
and each message is one paragraph that says what is wrong, where, and what to do about it.

    CrewError
      InputError            a value, path or file that the user gave cannot be used
        TargetError         a target YAML or one of its requirements
        RoleError           a role or prompt file
        ConfigError         a training or evaluation config
        DatasetError        a dataset that cannot be read or is not what it says
        ModelError          a model directory that is no model
      RunError              a run directory or its blackboard
        BlackboardError     the log is corrupt, or an entry is not acceptable
        RunBusyError        another process holds the run
      GateError             a law refused an action (no verdict, no preflight, test split asked for by an agent)
      BudgetError           a reservation does not fit
        BudgetTooSmallError not even one experiment fits
      JobError              a job failed in a way that no typed outcome describes
        SlotsBusyError      every slot is taken: the job starts when one is free
      AgentError            an agent or its LLM did not deliver a usable result
      PluginError           a plugin broke its contract
      ServiceError          a service (papers, datasets, jobs) did not give what was asked for
        ServiceUnavailableError  it is down, too slow, or broke off; the request may be repeated later
        RateLimitedError    it wants fewer requests
        AccessDeniedError   it wants a token, or terms accepted
        NotFoundError       it answers, and does not have this
        BadAnswerError      it answers in a form that cannot be read
"""

from __future__ import annotations

__all__ = [
    "AccessDeniedError",
    "AgentError",
    "BadAnswerError",
    "BlackboardError",
    "BudgetError",
    "BudgetTooSmallError",
    "ConfigError",
    "CrewError",
    "DatasetError",
    "GateError",
    "InputError",
    "JobError",
    "ModelError",
    "NotFoundError",
    "PluginError",
    "RateLimitedError",
    "RoleError",
    "RunBusyError",
    "RunError",
    "ServiceError",
    "ServiceUnavailableError",
    "SlotsBusyError",
    "TargetError",
]


class CrewError(Exception):
    """Root of the tree. `str(error)` is one paragraph: what, where, what to do."""

    exit_code: int = 1


class InputError(CrewError):
    """Something that the user gave cannot be used."""

    exit_code = 2


class TargetError(InputError):
    """A target is unknown, malformed, or cannot be run here."""


class RoleError(InputError):
    """A role or prompt file is malformed."""


class ConfigError(InputError):
    """A training or evaluation config is malformed or contradicts itself."""


class DatasetError(InputError):
    """A dataset cannot be read, or lacks what its use needs."""


class ModelError(InputError):
    """A path or id is not a loadable model."""


class RunError(CrewError):
    """A run directory is missing, unwritable or damaged."""

    exit_code = 2


class BlackboardError(RunError):
    """The blackboard is corrupt, or an entry breaks its rules."""


class RunBusyError(RunError):
    """Another live process holds this run."""


class GateError(CrewError):
    """A law refused the action; the message names the law's reason and the way to satisfy it."""


class BudgetError(CrewError):
    """A reservation does not fit what is left."""

    exit_code = 4


class BudgetTooSmallError(BudgetError):
    """Not even one experiment with its evaluations fits the budget."""


class JobError(CrewError):
    """A job could not be started, or ended without a readable outcome."""


class SlotsBusyError(JobError):
    """Every slot of a backend is taken; the job starts when one is free."""


class AgentError(CrewError):
    """An agent, or the LLM behind it, did not deliver a usable result."""


class PluginError(CrewError):
    """A plugin broke its contract."""


class ServiceError(CrewError):
    """A service did not give what was asked for. Never to be read as "there is nothing".

    Args:
        service: its name, for example `semantic_scholar`.
        status: HTTP status, where there was an answer.
        retry_after: seconds after which the service allows another try, where it said so.
        code: the service's own name of the failure (`X-Error-Code`, for example `GatedRepo`), where it gave one.
    """

    exit_code = 5

    def __init__(
        self,
        message: str,
        *,
        service: str = "",
        status: int | None = None,
        retry_after: float | None = None,
        code: str = "",
    ) -> None:
        super().__init__(message)
        self.service = service
        self.status = status
        self.retry_after = retry_after
        self.code = code


class ServiceUnavailableError(ServiceError):
    """It is down, too slow, or broke off: the same request may work later."""


class RateLimitedError(ServiceError):
    """It wants fewer requests."""


class AccessDeniedError(ServiceError):
    """It wants a token that it was not given, or terms that were not accepted."""


class NotFoundError(ServiceError):
    """It answers, and does not have what was asked for."""


class BadAnswerError(ServiceError):
    """It answers in a form that cannot be read: cut, not JSON, fields that moved."""
