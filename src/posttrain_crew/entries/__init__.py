"""The typed entries of the blackboard: one pydantic class per kind.

An entry is a claim with its support: `status` says what sort of claim it is, and `refs` (held by the row, not
by the body) are the ids of the entries that support it. A class states how many refs it needs in `min_refs`.
There is no free-text kind: what an agent wants on the record must fit one of these.
"""

from __future__ import annotations

from posttrain_crew.entries.base import Cause, EntryBody, ErrorClass, Method, Status
from posttrain_crew.entries.findings import Comparison, Decision, Diagnosis, Evaluation, Experiment, MetricEvidence
from posttrain_crew.entries.research import (
    ContaminationVerdict,
    DatasetProfile,
    Defect,
    PaperRead,
    Recipe,
    RecipeEvidence,
    SourceShare,
    TrainingSet,
)
from posttrain_crew.entries.work import (
    BudgetReserved,
    BudgetSettled,
    Incident,
    JobOutcome,
    JobStarted,
    Preflight,
    PreflightCheck,
    RunStarted,
    SessionStarted,
    TestLook,
    WorkOrder,
    WorkResult,
)

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
    "RecipeEvidence",
    "RunStarted",
    "SessionStarted",
    "SourceShare",
    "Status",
    "TestLook",
    "TrainingSet",
    "WorkOrder",
    "WorkResult",
]

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
