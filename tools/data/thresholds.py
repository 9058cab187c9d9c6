"""Where an audit draws its lines: the one place for all of them.

All rates are shares of the rows that the check applies to, 0-1.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Thresholds"]


class Thresholds(BaseModel):
    """Limits of an audit. A measure beyond its limit becomes a defect."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    exact_duplicates: float = Field(default=0.01, ge=0, le=1)
    """clean: more of the rows than this repeat an earlier row, but for case, spaces and punctuation."""
    near_duplicates: float = Field(default=0.02, ge=0, le=1)
    """clean: more of the rows than this are nearly an earlier row."""
    near_duplicate_similarity: float = Field(default=0.8, ge=0, le=1)
    """Jaccard index of word pairs from which two rows with equal numbers and answers are near duplicates."""
    contradictions: float = Field(default=0.01, ge=0, le=1)
    """clean: more of the workings than this do not end with the labelled choice; those rows can be dropped."""
    contradictions_reject: float = Field(default=0.5, ge=0, le=1)
    """reject: as above; what is left after dropping was right by chance too often."""
    conflicts: float = Field(default=0.005, ge=0, le=1)
    """clean: more of the rows than this have another answer elsewhere in the same set."""
    conflicts_reject: float = Field(default=0.2, ge=0, le=1)
    cross_conflicts_reject: float = Field(default=0.5, ge=0, le=1)
    """reject: a set without workings gives another answer than every other candidate to more than this share of the
    questions that they have in common."""
    cross_minimum_shared: int = Field(default=30, ge=1)
    cross_minimum_partners: int = Field(default=2, ge=1)
    label_accuracy: float = Field(default=0.6, ge=0, le=1)
    """reject: by the base model's agreement, even the upper bound of the share of right labels is smaller; note: the
    estimate is. Random labels among four: 0.25. Measured on gpqa-mini with 120 rows: right labels 0.5 to 0.8 against
    dev accuracy (the candidates are harder than dev), upper bound 0.68 at least; random ones at most 0.22, 0.38."""
    label_minimum_rows: int = Field(default=40, ge=1)
    label_minimum_lift: float = Field(default=0.10, ge=0, le=1)
    """Least distance of the base's agreement with right and with wrong labels for an estimate to say anything."""
    contamination: float = Field(default=0.0, ge=0, le=1)
    """clean: more of the rows than this match an item of the benchmark."""
    contamination_reject: float = Field(default=0.5, ge=0, le=1)
    """reject: a set made of the benchmark. Of a candidate that the user names, fewer rows than this are dropped, and
    the rest is used: whoever names it knows where it is from."""
    contamination_reject_fetched: float = Field(default=0.05, ge=0, le=1)
    """reject, for a set that was fetched from the Hub: its makers had the benchmark at hand, so rows that no check
    finds (translated, reworded inside long texts) would stay in, and there are other sets to choose. Rows that match
    by accident, or because both copied a textbook, are far fewer: the checks' false alarms are below 1 %."""
    domain_cosine: float = Field(default=0.25, ge=0, le=1)
    """reject: the vocabulary of the questions is further from that of the dev items than this."""
    unreadable: float = Field(default=0.01, ge=0, le=1)
    unreadable_reject: float = Field(default=0.5, ge=0, le=1)
    missing_answers: float = Field(default=0.01, ge=0, le=1)
    missing_answers_reject: float = Field(default=0.8, ge=0, le=1)
    worked_share: float = Field(default=0.5, ge=0, le=1)
    """note: fewer of the rows than this show a working."""
    position_p: float = Field(default=1e-4, ge=0, le=1)
    """note: p-value of the chi-squared test that all answer positions are equally frequent."""
    too_long_share: float = Field(default=0.01, ge=0, le=1)
    max_tokens: int = Field(default=2048, ge=1)
    """A row longer than this, or than the base model's context, is too long."""
    minimum_rows: int = Field(default=100, ge=1)
    """reject: fewer rows than this are left after cleaning."""
    audit_rows: int = Field(default=50_000, ge=1)
    """An audit reads no more rows than this of one dataset, and no more than fit into memory (cleaning.MAX_BYTES);
    `measures` says in rows_read, bytes_read and rows_all_read (0 or 1) what it read."""
