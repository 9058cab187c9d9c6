"""The audit: what a candidate dataset holds, what is wrong with it, and whether it may be used.

Every defect comes with the number that shows it and the limit it broke (thresholds.py). A dataset is judged by what is
measured in it: nothing here knows a dataset by name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from posttrain_crew.entries import DatasetProfile, Defect
from posttrain_crew.target import Target
from posttrain_crew.tools.data.cleaning import Examination, Reading, examine, read
from posttrain_crew.tools.data.contamination import ContaminationIndex
from posttrain_crew.tools.data.defects import Findings, find_defects
from posttrain_crew.tools.data.formats import Example
from posttrain_crew.tools.data.labels import (
    LabelEstimate,
    answers_by_question,
    conflict_rate,
    estimate_label_accuracy,
)
from posttrain_crew.tools.data.measuring import TokenCounter, Vocabulary, position_p_value
from posttrain_crew.tools.data.reader import is_denied, open_dataset
from posttrain_crew.tools.data.rendering import render_prompt
from posttrain_crew.tools.data.thresholds import Thresholds

__all__ = ["Auditor", "LabelEvidence", "audit_path"]


@dataclass(frozen=True)
class LabelEvidence:
    """What a probe of the labels with the base model found, and how good that model is."""

    n: int
    answered: int
    agree: int
    base_accuracy: float
    """Accuracy of the base, 0-1, in the sense that `reference` says."""
    reference: Literal["dev", "workings"] = "dev"
    """`dev`: lenient dev accuracy, over all items; `workings`: agreement, over the answered questions, with labels of
    other candidates that their workings bear out. The second is better where candidates are harder than the
    benchmark, or easier."""


class Auditor:
    """Audits datasets for one target; the benchmark's index and vocabulary are made once.

    Args:
        base_model: folder of the base model, whose tokenizer and context are used; None guesses lengths.

    Raises:
        TargetError, DatasetError: the benchmark's items cannot be read. ModelError: the base model cannot.
    """

    def __init__(self, target: Target, base_model: Path | None = None, thresholds: Thresholds | None = None) -> None:
        self.target = target
        self.thresholds = thresholds or Thresholds()
        self.index = ContaminationIndex.of_target(target)
        self.tokens = TokenCounter(base_model)
        self.vocabulary = Vocabulary(target)

    @property
    def max_tokens(self) -> int:
        """Longest row that can be trained on, tokens."""
        return min(self.thresholds.max_tokens, self.tokens.context or self.thresholds.max_tokens)

    def examine(self, reading: Reading) -> Examination:
        """The row checks of a dataset."""
        return examine(reading, self.index, self.thresholds.near_duplicate_similarity)

    def audit(
        self,
        examination: Examination,
        *,
        evidence: LabelEvidence | None = None,
        others: Sequence[Mapping[str, set[str]]] = (),
    ) -> DatasetProfile:
        """Judge a dataset.

        Args:
            evidence: a probe of its labels with the base model, where there was one.
            others: answers by question (`labels.answers_by_question`) of the other candidates.
        """
        reading = examination.reading
        examples = [examination.example(i) for i in examination.readable]
        findings, measures = self._measure(examination, examples, evidence, others)
        defects = find_defects(findings, self.thresholds)
        verdict: Literal["usable", "usable_after_cleaning", "rejected"] = (
            "rejected"
            if any(d.severity == "reject" for d in defects)
            else "usable_after_cleaning"
            if any(d.severity == "clean" for d in defects)
            else "usable"
        )
        return DatasetProfile(
            dataset=reading.dataset.name,
            path=str(reading.dataset.folder),
            rows=len(reading.examples),
            columns=[name[:100] for name in reading.columns],
            format=reading.format,
            answer_style=_style(examples, measures["worked_share"]),
            licence=reading.dataset.card.licence,
            defects=defects,
            measures={name: round(value, 6) for name, value in measures.items()},
            verdict=verdict,
            reason=_reason(verdict, defects, findings, len(reading.examples)),
        )

    def _measure(
        self,
        examination: Examination,
        examples: list[Example],
        evidence: LabelEvidence | None,
        others: Sequence[Mapping[str, set[str]]],
    ) -> tuple[Findings, dict[str, float]]:
        total, readable = len(examination.reading.examples), len(examples)
        consistency = Counter(examination.consistency.values())
        decided = consistency.total() - consistency["unknown"]
        contradicting = consistency["contradicts"] + consistency["unsupported"]
        kinds = Counter(examination.duplicate.values())
        position_p, position_share = position_p_value(examples)
        lengths = self.tokens.lengths([self._as_text(example) for example in examples])
        affinity, coverage = self.vocabulary.match(example.question for example in examples)
        choices = Counter(len(e.choices) for e in examples if e.choices).most_common(1)
        width = choices[0][0] if choices else 0
        mine = answers_by_question(examples)
        shared = [(count, rate) for count, rate in (conflict_rate(mine, dict(other)) for other in others) if count]
        estimate: LabelEstimate | None = None
        if evidence is not None and width > 1:
            estimate = estimate_label_accuracy(
                evidence.agree,
                evidence.n if evidence.reference == "dev" else evidence.answered,
                evidence.base_accuracy,
                width,
                self.thresholds.label_minimum_rows,
                self.thresholds.label_minimum_lift,
            )
        measures: dict[str, float] = {
            "rows_read": total,
            "rows_limit": self.thresholds.audit_rows,
            "rows_all_read": float(examination.reading.whole),
            "bytes_read": examination.reading.bytes,
            "unreadable_rate": _share(total - readable, total),
            "missing_answer_rate": _share(
                sum(e.answer_text is None and e.rejected is None for e in examples), readable
            ),
            "choices": width,
            "worked_share": _share(sum(e.worked for e in examples), readable),
            "exact_duplicate_rate": _share(kinds["duplicate"], readable),
            "near_duplicate_rate": _share(kinds["near_duplicate"], readable),
            "workings_checked": decided,
            "working_contradiction_rate": _share(contradicting, decided),
            "conflict_rate": _share(len(examination.conflicting), readable),
            "shared_questions": sum(count for count, _ in shared),
            "cross_conflict_rate": _share(sum(count * rate for count, rate in shared), sum(c for c, _ in shared)),
            "contamination_rate": examination.matches.rate,
            "answer_position_p": position_p,
            "answer_position_share": position_share,
            "mean_tokens": lengths.mean,
            "max_tokens": lengths.maximum,
            "too_long_rate": _share(sum(count > self.max_tokens for count in lengths.counts), readable),
            "domain_match": affinity,
            "domain_coverage": coverage,
            "rows_clean": readable - sum(reason != "unreadable" for reason in examination.drops.values()),
        }
        measures |= {f"contamination_{name}": count for name, count in examination.matches.by_check.items()}
        measures["contamination_unchecked"] = len(examination.matches.unchecked)
        if estimate is not None:
            measures |= {
                "label_agreement": estimate.agreement,
                "label_accuracy": estimate.accuracy,
                "label_accuracy_low": estimate.low,
                "label_accuracy_high": estimate.high,
                "label_probe_rows": estimate.n,
                "label_base_accuracy": evidence.base_accuracy if evidence is not None else 0.0,
                "label_probe_informative": float(estimate.informative),
            }
        findings = Findings(
            measures=measures,
            format=examination.reading.format,
            licence=examination.reading.dataset.card.licence,
            estimate=estimate,
            partners=tuple(rate for count, rate in shared if count >= self.thresholds.cross_minimum_shared),
            max_tokens=self.max_tokens,
            denied=is_denied(examination.reading.dataset, self.target.deny_datasets),
            fetched=examination.reading.dataset.fetched,
        )
        return findings, measures

    def _as_text(self, example: Example) -> str:
        """Roughly what would be trained on: for counting tokens."""
        if len(example.choices) > len(self.target.answer.labels):
            return f"{example.question} {' '.join(example.choices)} {example.raw_completion or ''}"
        return f"{render_prompt(example, self.target.answer)}\n{example.raw_completion or ''}"


def audit_path(
    path: Path,
    target: Target,
    base_model: Path | None = None,
    *,
    evidence: LabelEvidence | None = None,
    thresholds: Thresholds | None = None,
) -> DatasetProfile:
    """Audit a folder or file outside of any run: nothing is posted, no model is run.

    Raises:
        DatasetError: it cannot be read. TargetError: the benchmark's items cannot. ModelError: the base model cannot.
    """
    auditor = Auditor(target, base_model, thresholds)
    return auditor.audit(
        auditor.examine(read(open_dataset(path), auditor.thresholds.audit_rows)),
        evidence=evidence,
    )


def _style(examples: Sequence[Example], worked: float) -> Literal["worked", "terse", "mixed", "none"]:
    if not any(example.answer_text is not None for example in examples):
        return "none"
    return "worked" if worked >= 0.9 else "terse" if worked <= 0.1 else "mixed"


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _reason(verdict: str, defects: Sequence[Defect], findings: Findings, rows: int) -> str:
    """One paragraph with the numbers that led to the verdict; what is known to be unknown is said, too."""
    decisive = {"rejected": "reject", "usable_after_cleaning": "clean"}.get(verdict, "note")
    parts = [defect.detail for defect in defects if defect.severity == decisive]
    notes = [defect.detail for defect in defects if defect.severity == "note" and decisive != "note"]
    lead = {
        "rejected": "rejected",
        "usable_after_cleaning": f"usable once cleaned, {findings.measures['rows_clean']:.0f} of {rows} rows remain",
        "usable": f"usable as it is, {findings.measures['rows_clean']:.0f} of {rows} rows are clean",
    }[verdict]
    text = "; ".join([*parts, *notes, *findings.remarks()])
    return f"{lead}: {text}." if text else f"{lead}."
