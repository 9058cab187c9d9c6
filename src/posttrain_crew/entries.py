"""The typed entries of the blackboard: one pydantic class per kind.

An entry is a claim with its support: `status` says what sort of claim it is, and `refs` (held by the row, not
by the body) are the ids of the entries that support it. A class states how many refs it needs in `min_refs`.
There is no free-text kind: what an agent wants on the record must fit one of these.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "BODY_TYPES",
    "BudgetReserved",
    "BudgetSettled",
    "Cause",
    "Comparison",
    "ContaminationVerdict",
    "DatasetProfile",
    "Decision",
    "Defect",
    "Diagnosis",
    "EntryBody",
    "ErrorClass",
    "Evaluation",
    "Experiment",
    "Incident",
    "JobOutcome",
    "JobStarted",
    "Method",
    "MetricEvidence",
    "PaperRead",
    "Preflight",
    "PreflightCheck",
    "Recipe",
    "RunStarted",
    "SessionStarted",
    "SourceShare",
    "Status",
    "TestLook",
    "TrainingSet",
    "WorkOrder",
    "WorkResult",
]

Status = Literal["hypothesis", "observation", "decision", "correction"]
Method = Literal["sft", "dpo", "grpo"]

ErrorClass = Literal[
    "config",  # the config is not valid for the installed trainer
    "data",  # a file is missing, malformed, or its sha256 is not the audited one
    "model",  # the parent checkpoint does not load
    "out_of_memory",
    "disk_full",
    "diverged",  # NaN or infinite loss, gradient or weights
    "stopped_by_rule",  # a watch rule ended the job; the diagnosis says which
    "timeout",
    "cancelled",
    "killed",  # the process is gone and left no outcome
    "crashed",  # any other exception
]

Cause = Literal[
    "healthy",
    "divergence",
    "reward_collapse",
    "zero_variance",
    "length_explosion",
    "never_ends",
    "reward_hacking",
    "overfitting",
    "entropy_collapse",
    "kl_explosion",
    "plateau",
    "infrastructure",
    "unknown",
]


class EntryBody(BaseModel):
    """Base of all bodies: immutable, and an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    kind: ClassVar[str] = ""
    prefix: ClassVar[str] = ""
    """Entry ids are `prefix-N`, N counting from 1 within a kind."""
    min_refs: ClassVar[int] = 0


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


class PaperRead(EntryBody):
    """A paper that the literature agent looked at."""

    kind: ClassVar[str] = "paper"
    prefix: ClassVar[str] = "pap"
    arxiv_id: str
    title: str
    year: int
    techniques: list[str]
    findings: list[str]
    source: str
    """Where it was read: `library`, `semantic_scholar`, `arxiv`, `huggingface`."""


class Recipe(EntryBody):
    """A training idea with its evidence: method + data + hyper-parameters, and the score it was reported to reach."""

    kind: ClassVar[str] = "recipe"
    prefix: ClassVar[str] = "rec"
    min_refs: ClassVar[int] = 1
    method: Method
    title: str
    hypothesis: str
    data_style: Literal["worked", "terse", "preference", "verifiable-prompts", "any"]
    hyperparameters: dict[str, float | int | str | bool] = {}
    reported: list[dict[str, Any]] = []
    arxiv_ids: list[str]
    addresses: list[str] = []
    """Which needs of the baseline it answers: format, reasoning, knowledge, noisy-data, small-model, plateau."""
    prior: float = Field(ge=0, le=1)


class Defect(EntryBody):
    """One thing wrong with a dataset, with the number that shows it."""

    name: Literal[
        "exact_duplicates",
        "near_duplicates",
        "label_noise",
        "contamination",
        "off_domain",
        "unreadable_rows",
        "missing_answers",
        "foreign_format",
        "no_worked_solutions",
        "answer_position_bias",
        "too_long",
        "too_small",
        "licence",
    ]
    value: float
    threshold: float
    severity: Literal["note", "clean", "reject"]
    """note: known, harmless; clean: rows must be dropped or rewritten first; reject: not usable at all."""
    detail: str


class DatasetProfile(EntryBody):
    """What an audit measured on a candidate. It holds rates and counts, never rows of the benchmark."""

    kind: ClassVar[str] = "dataset_profile"
    prefix: ClassVar[str] = "prof"
    dataset: str
    path: str
    rows: int
    columns: list[str]
    format: Literal["mcq", "messages", "sharegpt", "prompt_completion", "alpaca", "preference", "text", "unknown"]
    answer_style: Literal["worked", "terse", "mixed", "none"]
    licence: str | None
    defects: list[Defect]
    measures: dict[str, float]
    verdict: Literal["usable", "usable_after_cleaning", "rejected"]
    reason: str


class ContaminationVerdict(EntryBody):
    """Overlap of one file with the benchmark's items. Matched pairs stay with the evaluator: here are counts only."""

    sha256: str
    passed: bool
    rows_checked: int
    rows_matched: int
    benchmark_items: int
    by_check: dict[str, int]
    """Rows matched per check: exact, ngram13, ngram8, near_duplicate, reworded."""


class SourceShare(EntryBody):
    """How many rows of a training set came from one dataset, and what was dropped on the way, by reason."""

    dataset: str
    rows_in: int
    rows_out: int
    dropped: dict[str, int] = {}
    rewritten: int = 0


class TrainingSet(EntryBody):
    """A prepared file: conversational JSONL (`prompt` + `completion` for SFT, `prompt` + `answer` for GRPO)."""

    kind: ClassVar[str] = "training_set"
    prefix: ClassVar[str] = "ts"
    min_refs: ClassVar[int] = 1
    sha256: str
    path: str
    """Relative to the run directory: data/<sha256>/train.jsonl."""
    rows: int
    method: Method
    style: Literal["worked", "terse", "mixed", "verifiable-prompts", "preference"]
    sources: list[SourceShare]
    contamination: ContaminationVerdict
    mean_tokens: float
    max_tokens: int
    seed: int
    note: str = ""


class Experiment(EntryBody):
    """A node of the search tree: parent, hypothesis, training config. Its stage is derived from later entries."""

    kind: ClassVar[str] = "experiment"
    prefix: ClassVar[str] = "exp"
    min_refs: ClassVar[int] = 1
    parent: str
    """`base`, or the id of the experiment whose checkpoint it starts from."""
    hypothesis: str
    method: Method
    training_set: str
    recipe: str | None = None
    config: dict[str, Any]
    """The trainer's own field names and values (TRL), without paths."""
    purpose: Literal["candidate", "ablation", "remedy"] = "candidate"
    ablates: str | None = None
    """For an ablation: the experiment of which one part was left out."""
    seed: int


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
    directory: str
    """Relative to the run directory."""
    attempt: int = 1
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


class MetricEvidence(EntryBody):
    """A number that shows a cause."""

    metric: str
    step: int
    value: float
    threshold: float


class Diagnosis(EntryBody):
    """Why a job went as it went: a cause of a fixed set, the numbers that show it, and what to change."""

    kind: ClassVar[str] = "diagnosis"
    prefix: ClassVar[str] = "dia"
    min_refs: ClassVar[int] = 1
    cause: Cause
    evidence: list[MetricEvidence]
    confidence: float = Field(ge=0, le=1)
    remedy: dict[str, float | int | str | bool] = {}
    """Config changes by TRL field name; empty where none helps."""
    advice: str


class Evaluation(EntryBody):
    """Scores of one checkpoint on one split, read from the result file."""

    kind: ClassVar[str] = "evaluation"
    prefix: ClassVar[str] = "eval"
    min_refs: ClassVar[int] = 1
    subject: str
    """`base` or an experiment id."""
    split: Literal["dev", "test"]
    task: str
    few_shot: int
    n: int
    score: float
    """Strict score, 0-1: the answer in the required format is right."""
    ci_low: float
    ci_high: float
    lenient_score: float
    """Score, 0-1, with lenient answer extraction."""
    lenient_ci_low: float
    lenient_ci_high: float
    format_valid_rate: float
    accuracy_given_valid: float | None
    mean_output_chars: float
    truncated_rate: float
    harness: str
    directory: str
    samples_sha256: str


class Comparison(EntryBody):
    """A paired test of two evaluations on the same items (equal prompt and document hashes)."""

    kind: ClassVar[str] = "comparison"
    prefix: ClassVar[str] = "cmp"
    min_refs: ClassVar[int] = 2
    candidate: str
    reference: str
    """Subjects: `base` or experiment ids. The evaluations are the refs: candidate first, then reference."""
    split: Literal["dev", "test"]
    metric: Literal["strict", "lenient"]
    n: int
    delta: float
    ci_low: float
    ci_high: float
    """95 % paired bootstrap interval of the difference, in score units (0-1)."""
    p_value: float
    """Exact two-sided McNemar."""
    gained: int
    """Items right for the candidate only."""
    lost: int


class Decision(EntryBody):
    """What was decided and on which entries it rests."""

    kind: ClassVar[str] = "decision"
    prefix: ClassVar[str] = "dec"
    min_refs: ClassVar[int] = 1
    action: Literal["promote", "discard", "keep_as_ablation", "stop", "abandon", "accept", "reject"]
    """accept / reject: the final gate's verdict on the test comparison."""
    subject: str
    reason: str


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


BODY_TYPES: dict[str, type[EntryBody]] = {
    body.kind: body
    for body in (
        RunStarted,
        SessionStarted,
        WorkOrder,
        WorkResult,
        PaperRead,
        Recipe,
        DatasetProfile,
        TrainingSet,
        Experiment,
        Preflight,
        JobStarted,
        JobOutcome,
        Diagnosis,
        Evaluation,
        Comparison,
        Decision,
        TestLook,
        Incident,
        BudgetReserved,
        BudgetSettled,
    )
}
