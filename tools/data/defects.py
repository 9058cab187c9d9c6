"""From measures to defects: one rule per defect, each with its number, its limit and what it means."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from posttrain_crew.entries import Defect
from posttrain_crew.tools.data.formats import Format
from posttrain_crew.tools.data.labels import LabelEstimate
from posttrain_crew.tools.data.thresholds import Thresholds

__all__ = ["Findings", "find_defects"]

Severity = Literal["note", "clean", "reject"]
CHECKED_ENOUGH = 0.5
"""Share of rows whose working can be compared with its label, from which (a) speaks for the set."""


@dataclass(frozen=True)
class Findings:
    """What the rules look at."""

    measures: dict[str, float]
    format: Format
    licence: str | None
    estimate: LabelEstimate | None
    """Label accuracy by agreement with the base model, where it was probed."""
    partners: tuple[float, ...]
    """Share of differing answers with each other candidate that has enough questions in common."""
    max_tokens: int
    denied: str | None = None
    """The pattern of the target's deny list that it meets."""
    fetched: bool = False
    """Whether it was brought from the Hub, and not named by the user."""

    @property
    def workings_speak(self) -> bool:
        """Whether enough workings can be checked against their labels, and enough of them agree."""
        checked = self.measures["workings_checked"] / max(1.0, self.measures["rows_read"])
        return checked >= CHECKED_ENOUGH and self.measures["working_contradiction_rate"] <= CHECKED_ENOUGH

    def remarks(self) -> list[str]:
        """What is not known."""
        return [*self._unread(), *self._doubts()]

    def _unread(self) -> list[str]:
        if self.measures["rows_all_read"]:
            return []
        read, size = self.measures["rows_read"], self.measures["bytes_read"] / 2**20
        return [f"only its first {read:.0f} rows ({size:.1f} MiB) were read and can be used"]

    def _doubts(self) -> list[str]:
        if self.estimate is not None:
            e = self.estimate
            told = f"the base agrees with {e.agreement:.0%} of {e.n} labels"
            if e.informative:
                return [f"{told}, which puts the right labels at {e.accuracy:.0%} ({e.low:.0%} to {e.high:.0%})"]
            return [f"{told}, but the sample is too small or the base too close to chance for that to say anything"]
        if self.measures["workings_checked"] < CHECKED_ENOUGH * self.measures["rows_read"]:
            return ["how many labels are right is not known: there is no working to compare with, and no probe"]
        return []


def find_defects(findings: Findings, limits: Thresholds) -> list[Defect]:
    """All defects, the gravest first."""
    order: dict[str, int] = {"reject": 0, "clean": 1, "note": 2}
    return sorted(_all(findings, limits), key=lambda defect: order[defect.severity])


def _all(findings: Findings, limits: Thresholds) -> Iterator[Defect]:
    m = findings.measures
    if findings.denied is not None:
        yield Defect(
            name="denied",
            value=1.0,
            threshold=0.0,
            severity="reject",
            detail=f"it meets `{findings.denied}` of the target's deny list and must not be trained on",
        )
    yield from _reading(findings, limits)
    yield from _labels(findings, limits)
    if (rate := m["contamination_rate"]) > limits.contamination:
        counts = ", ".join(
            f"{m[f'contamination_{name}']:.0f} {name}"
            for name in ("exact", "ngram13", "ngram8", "near_duplicate", "reworded")
            if m.get(f"contamination_{name}")
        )
        most = limits.contamination_reject_fetched if findings.fetched else limits.contamination_reject
        severity, limit = _graded(rate, limits.contamination, most)
        over = f", and {most:.0%} is the limit for one off the Hub" if findings.fetched and severity == "reject" else ""
        yield Defect(
            name="contamination",
            value=rate,
            threshold=limit,
            severity=severity,
            detail=f"{rate:.1%} of the rows are items of the benchmark ({counts}){over}",
        )
    for name, key, limit in (
        ("exact_duplicates", "exact_duplicate_rate", limits.exact_duplicates),
        ("near_duplicates", "near_duplicate_rate", limits.near_duplicates),
    ):
        if m[key] > limit:
            yield Defect(
                name="exact_duplicates" if name == "exact_duplicates" else "near_duplicates",
                value=m[key],
                threshold=limit,
                severity="clean",
                detail=f"{m[key]:.1%} of the rows {'repeat' if 'exact' in name else 'nearly repeat'} an earlier row",
            )
    readable = m["rows_read"] > 0 and m["unreadable_rate"] < 1  # of what cannot be read, no subject is known
    if readable and m["domain_match"] < limits.domain_cosine:
        yield Defect(
            name="off_domain",
            value=m["domain_match"],
            threshold=limits.domain_cosine,
            severity="reject",
            detail=f"its questions are about something else: vocabulary match {m['domain_match']:.2f}, "
            f"{m['domain_coverage']:.0%} of its words are known to the target",
        )
    if m["rows_clean"] < limits.minimum_rows:
        yield Defect(
            name="too_small",
            value=m["rows_clean"],
            threshold=limits.minimum_rows,
            severity="reject",
            detail=f"only {m['rows_clean']:.0f} clean rows",
        )


def _reading(findings: Findings, limits: Thresholds) -> Iterator[Defect]:
    m = findings.measures
    if (rate := m["unreadable_rate"]) > limits.unreadable:
        severity, limit = _graded(rate, limits.unreadable, limits.unreadable_reject)
        yield Defect(
            name="unreadable_rows",
            value=rate,
            threshold=limit,
            severity=severity,
            detail=f"{rate:.1%} of the rows cannot be read",
        )
    if (rate := m["missing_answer_rate"]) > limits.missing_answers:
        severity, limit = _graded(rate, limits.missing_answers, limits.missing_answers_reject)
        yield Defect(
            name="missing_answers",
            value=rate,
            threshold=limit,
            severity=severity,
            detail=f"{rate:.1%} of the rows have no answer, or one that names no choice",
        )
    if findings.format not in ("mcq", "unknown"):
        yield Defect(
            name="foreign_format",
            value=1.0,
            threshold=0.0,
            severity="clean",
            detail=f"its format is {findings.format}: prompts and answers have to be rewritten for the target",
        )
    if m["worked_share"] < limits.worked_share and m["unreadable_rate"] < 1:
        yield Defect(
            name="no_worked_solutions",
            value=m["worked_share"],
            threshold=limits.worked_share,
            severity="note",
            detail=f"{m['worked_share']:.0%} of the rows show a working",
        )
    if m["answer_position_p"] < limits.position_p:
        yield Defect(
            name="answer_position_bias",
            value=m["answer_position_share"],
            threshold=limits.position_p,
            severity="note",
            detail=f"the most frequent label holds {m['answer_position_share']:.0%} of the rows",
        )
    if (rate := m["too_long_rate"]) > limits.too_long_share:
        yield Defect(
            name="too_long",
            value=rate,
            threshold=limits.too_long_share,
            severity="clean",
            detail=f"{rate:.1%} of the rows are longer than {findings.max_tokens} tokens",
        )
    if findings.licence is None:
        yield Defect(name="licence", value=0.0, threshold=1.0, severity="note", detail="its card names no licence")


def _labels(findings: Findings, limits: Thresholds) -> Iterator[Defect]:
    m = findings.measures
    if (rate := m["working_contradiction_rate"]) > limits.contradictions:
        severity, limit = _graded(rate, limits.contradictions, limits.contradictions_reject)
        yield _noise(
            rate,
            limit,
            severity,
            f"{rate:.1%} of {m['workings_checked']:.0f} workings do not end with the labelled choice",
        )
    if (rate := m["conflict_rate"]) > limits.conflicts:
        severity, limit = _graded(rate, limits.conflicts, limits.conflicts_reject)
        yield _noise(
            rate,
            limit,
            severity,
            f"{rate:.1%} of the rows have another answer elsewhere in the set",
        )
    e = findings.estimate
    # the estimate is low, too, where the questions are harder than those that the base was measured on: the bound
    # decides, and a low estimate alone is told
    comparable = m["domain_match"] >= limits.domain_cosine  # elsewhere the base's dev accuracy says nothing
    if e is not None and e.informative and comparable and e.accuracy < limits.label_accuracy:
        yield _noise(
            1 - e.accuracy,
            1 - limits.label_accuracy,
            "reject" if e.high < limits.label_accuracy else "note",
            f"by the base's agreement, about {e.accuracy:.0%} ({e.low:.0%} to {e.high:.0%}) of the labels are right",
        )
    believed = e is not None and e.informative and e.low > limits.label_accuracy
    if (
        not findings.workings_speak
        and not believed
        and len(findings.partners) >= limits.cross_minimum_partners
        and (least := min(findings.partners)) > limits.cross_conflicts_reject
    ):
        yield _noise(
            least,
            limits.cross_conflicts_reject,
            "reject",
            f"each of {len(findings.partners)} other candidates gives another answer to at least {least:.0%} of the "
            "questions in common",
        )


def _graded(rate: float, clean: float, reject: float) -> tuple[Severity, float]:
    """How grave a rate above `clean` is, and the limit that it broke."""
    return ("reject", reject) if rate > reject else ("clean", clean)


def _noise(value: float, threshold: float, severity: Severity, detail: str) -> Defect:
    return Defect(name="label_noise", value=value, threshold=threshold, severity=severity, detail=detail)
