"""Entries about the run's own course: sessions, orders, jobs, budget, incidents."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from posttrain_crew.entries.base import EntryBody, ErrorClass

__all__ = [
    "BudgetReserved",
    "BudgetSettled",
    "Incident",
    "JobOutcome",
    "JobStarted",
    "Preflight",
    "PreflightCheck",
    "RunStarted",
    "SessionStarted",
    "TestLook",
    "WorkOrder",
    "WorkResult",
]


class RunStarted(EntryBody):
    """First entry of every run: what was asked for."""

    kind: ClassVar[str] = "run"
    prefix: ClassVar[str] = "run"
    run: str
    target: str
    base_model: str
    """The path or id that the user gave, or the target's own."""
    base_model_path: str
    """The local directory that is trained from."""
    llm: str
    seed: int
    hours: float
    usd: float | None = None
    tokens: int | None = None
    prompts: str | None = None
    """Directory of role prompts given with `--prompts`."""
    sources: str = "shipped"
    """Where papers and datasets are looked up: `shipped`, `live`, `loopback`, or two of them."""
    compute: str = "local"
    """The backend of its jobs; a resume stays with it."""


class SessionStarted(EntryBody):
    """One process began to work on the run (the first, or a resume)."""

    kind: ClassVar[str] = "session"
    prefix: ClassVar[str] = "ses"
    pid: int
    host: str
    resumed: bool


class WorkOrder(EntryBody):
    """What the coordinator sends to a specialist."""

    kind: ClassVar[str] = "work_order"
    prefix: ClassVar[str] = "wo"
    specialist: str
    objective: str
    inputs: list[str] = []
    """Ids of the entries the specialist starts from."""
    parameters: dict[str, Any] = {}
    """Typed hints by name; which names a specialist understands is said in its task template."""
    budget_seconds: float = Field(gt=0)
    result_type: str


class WorkResult(EntryBody):
    """What came back: the validated result, or the class of the failure."""

    kind: ClassVar[str] = "work_result"
    prefix: ClassVar[str] = "wr"
    min_refs: ClassVar[int] = 1
    specialist: str
    ok: bool
    error: str | None = None
    result: dict[str, Any] = {}
    wall_s: float = 0.0
    llm_calls: int = 0
    tokens: int = 0
    usd: float = 0.0


class PreflightCheck(EntryBody):
    """One check before a launch."""

    name: str
    ok: bool
    detail: str


class Preflight(EntryBody):
    """The checks that a config passed or failed; a launch needs a passed one for exactly its config (by sha256)."""

    kind: ClassVar[str] = "preflight"
    prefix: ClassVar[str] = "pre"
    min_refs: ClassVar[int] = 1
    config_sha256: str
    passed: bool
    checks: list[PreflightCheck]
    estimate_seconds: float
    estimate_memory_gib: float


class JobStarted(EntryBody):
    """One execution on a compute backend. `label` is unique in the run and is looked up before a launch."""

    kind: ClassVar[str] = "job"
    prefix: ClassVar[str] = "job"
    label: str
    role: Literal["train", "evaluate", "smoke", "probe"]
    subject: str
    """Experiment id, or for an evaluation the id of what is evaluated."""
    backend: str
    module: str
    """The Python module that the job runs."""
    directory: str
    """Relative to the run directory."""
    attempt: int = 1
    final: bool = False
    """Belongs to the end of the run and may use the time kept for it."""
    nodes: int = 1
    """Machines."""
    processes: int = 1
    """Processes on each machine, one per accelerator."""
    estimate_seconds: float


class JobOutcome(EntryBody):
    """How a job ended, read from its outcome file; a job without one was killed."""

    kind: ClassVar[str] = "job_outcome"
    prefix: ClassVar[str] = "out"
    min_refs: ClassVar[int] = 1
    label: str
    ok: bool
    error_class: ErrorClass | None = None
    message: str = ""
    wall_s: float
    steps: int = 0
    checkpoint: str | None = None
    """Relative to the run directory; a plain Hugging Face model folder."""
    metrics: dict[str, float] = {}


class TestLook(EntryBody):
    """A look at the test split, posted before the evaluation starts."""

    __test__ = False  # the name begins with Test, but pytest must not collect it

    kind: ClassVar[str] = "test_look"
    prefix: ClassVar[str] = "look"
    min_refs: ClassVar[int] = 1
    subjects: list[str]
    purpose: str


class Incident(EntryBody):
    """Something did not work and something else was done instead: degradation is never silent."""

    kind: ClassVar[str] = "incident"
    prefix: ClassVar[str] = "inc"
    where: str
    what: str
    instead: str


class BudgetReserved(EntryBody):
    """A part of the budget is set aside before the work starts."""

    kind: ClassVar[str] = "budget_reserved"
    prefix: ClassVar[str] = "bud"
    label: str
    wall_s: float = 0.0
    device_s: float = 0.0
    usd: float = 0.0
    tokens: int = 0


class BudgetSettled(EntryBody):
    """What the work in truth cost."""

    kind: ClassVar[str] = "budget_settled"
    prefix: ClassVar[str] = "set"
    min_refs: ClassVar[int] = 1
    label: str
    wall_s: float = 0.0
    device_s: float = 0.0
    usd: float = 0.0
    tokens: int = 0
