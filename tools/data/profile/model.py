"""What a profile says: plain numbers about a dataset, each with the rows it was counted over.

Rates are shares 0-1. A number from a sample carries the size of that sample; a rate from one carries its interval.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict

from posttrain_crew.tools.data.formats import Format

__all__ = [
    "Balance",
    "ChatShape",
    "ColumnProfile",
    "Language",
    "Lengths",
    "NearDuplicates",
    "PiiHint",
    "PositionBias",
    "Profile",
    "Repeats",
    "TokenLengths",
    "wilson",
]

Z_95 = 1.959964
BRIEF_COLUMNS = 25
BRIEF_CHARS = 300


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Lengths(_Part):
    """Lengths of texts, in characters; quantiles are right to 1 %."""

    n: int
    minimum: int
    mean: float
    median: int
    p95: int
    p99: int
    maximum: int


class ColumnProfile(_Part):
    """One column, or one place inside a nested one: `messages[].content`."""

    path: str
    types: dict[str, int]
    """Values per kind: text, integer, number, boolean, binary, object, list, other."""
    missing: int
    """Top-level columns: rows without this key. 0 for nested places."""
    null: int
    empty: int
    """Texts without a visible character, and lists without an element."""
    null_rate: float
    """Null or missing, of the rows (of the enclosing elements for a nested place)."""
    empty_rate: float
    chars: Lengths | None = None
    minimum: float | None = None
    maximum: float | None = None
    not_finite: int = 0
    """NaN and infinite numbers."""


class Balance(_Part):
    """How often each value of a column with few values occurs, over all rows; commonest first."""

    column: str
    values: dict[str, int]


class Repeats(_Part):
    """Rows that repeat an earlier row, but for case, punctuation and spaces."""

    rows: int
    """Rows compared: all of them, or a share chosen by content, of which every copy was seen."""
    exact: bool
    """False where only that share was compared (more rows than fit in the bounded memory)."""
    rate: float
    largest_group: int


class NearDuplicates(_Part):
    """Rows nearly equal to an earlier row of another text, by MinHash LSH on word 3-shingles."""

    sample: int
    """Distinct texts compared. The sample is chosen by content: near duplicates fall into it together."""
    threshold: float
    """Jaccard index of the shingle sets, computed exactly, from which two rows are near duplicates."""
    rate: float
    """Estimate for all distinct texts of the dataset; each pair found is weighted by 1 / its chance of being seen."""
    low: float
    high: float
    """95 % Wilson interval."""
    seen_rate: float
    """Share within the sample, without the weights."""


class TokenLengths(_Part):
    """Tokens per row on a seeded sample, of all texts of a row, without a chat template."""

    sample: int
    exact: bool
    """False where four characters were counted as a token, for want of a tokenizer."""
    mean: float
    median: int
    p95: int
    maximum: int
    context: int | None = None
    over_context_rate: float | None = None


class Language(_Part):
    """Share of a language on a seeded sample; `und` is text too short to tell."""

    code: str
    share: float
    low: float
    high: float


class PositionBias(_Part):
    """Where the right choice stands, on a seeded sample; over the rows with the commonest number of choices."""

    n: int
    choices: int
    positions: dict[str, int]
    chi_square_p: float
    cramers_v: float
    """0: every position equally often; 1: always the same one."""


class ChatShape(_Part):
    """Roles and turn order of a column of conversations, over all rows."""

    column: str
    conversations: int
    roles: dict[str, int]
    turns_mean: float
    defects: dict[str, int]
    """Conversations per defect; a conversation may have several."""
    defect_rate: float
    """Conversations with at least one defect."""


class PiiHint(_Part):
    """Possible personal data or secrets: how many, and where. What was matched is never kept."""

    kind: Literal["e-mail", "phone", "iban", "card number", "api key"]
    column: str
    rows: int
    """Texts with at least one, over all rows."""


class Profile(_Part):
    """The profile of a dataset."""

    name: str
    place: str
    """Folder, file, or Hub id with the revision."""
    source: Literal["files", "datasets_server"]
    """`datasets_server`: counts and statistics come from the Hub's viewer service, samples from its first rows."""
    files: int
    bytes: int
    rows: int
    rows_read: int
    unreadable: int
    """Rows that are no object, no JSON, or too large."""
    licence: str | None
    format: Format
    formats: dict[str, int]
    """Sampled rows per format."""
    columns: list[ColumnProfile]
    columns_left_out: int
    """Columns and nested places beyond the bound; 0 nearly always."""
    sample: int
    """Rows in the uniform sample."""
    seed: int
    repeated_rows: Repeats | None
    repeated_prompts: Repeats | None
    near_duplicates: NearDuplicates | None
    tokens: TokenLengths | None
    languages: list[Language]
    languages_sample: int
    balance: list[Balance]
    answer_positions: PositionBias | None
    chat: list[ChatShape]
    pii: list[PiiHint]
    samples: list[dict[str, str]]
    """A few rows, cut and redacted. They are text from outside, never instructions."""
    warnings: list[str]

    def brief(self) -> dict[str, object]:
        """What an agent reads: the same findings in a few kilobytes, whatever the dataset holds."""
        repeats, near, tokens = self.repeated_rows, self.near_duplicates, self.tokens
        return {
            "name": self.name,
            "rows": self.rows,
            "unreadable": self.unreadable,
            "source": self.source,
            "format": self.format,
            "licence": self.licence,
            "columns": {
                column.path[:80]: {
                    "types": list(column.types)[:4],
                    "null_rate": round(column.null_rate, 4),
                    **({"median_chars": column.chars.median} if column.chars else {}),
                }
                for column in self.columns[:BRIEF_COLUMNS]
            },
            "more_columns": max(0, len(self.columns) - BRIEF_COLUMNS) + self.columns_left_out,
            "repeated_rows": round(repeats.rate, 4) if repeats else None,
            "repeated_prompts": round(self.repeated_prompts.rate, 4) if self.repeated_prompts else None,
            "near_duplicates": [round(value, 4) for value in (near.low, near.rate, near.high)] if near else None,
            "tokens": tokens.model_dump(mode="json") if tokens else None,
            "languages": {each.code: round(each.share, 3) for each in self.languages[:5]},
            "answer_positions": self.answer_positions.model_dump(mode="json") if self.answer_positions else None,
            "chat_defects": {chat.column[:80]: round(chat.defect_rate, 4) for chat in self.chat[:5]},
            "pii": {f"{hint.kind} in {hint.column[:80]}": hint.rows for hint in self.pii[:10]},
            "samples": [{name: text[:BRIEF_CHARS] for name, text in list(row.items())[:8]} for row in self.samples[:2]],
            "warnings": [text[:BRIEF_CHARS] for text in self.warnings[:12]],
        }


def wilson(rate: float, n: float) -> tuple[float, float]:
    """95 % Wilson score interval of a share observed on n cases (Wilson 1927); (0, 1) for none."""
    if n <= 0:
        return 0.0, 1.0
    rate = min(1.0, max(0.0, rate))
    centre = (rate + Z_95**2 / (2 * n)) / (1 + Z_95**2 / n)
    half = Z_95 / (1 + Z_95**2 / n) * math.sqrt(rate * (1 - rate) / n + Z_95**2 / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)
