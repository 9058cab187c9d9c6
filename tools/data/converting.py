"""Whole datasets: converted for a trainer, or freed of the benchmark's items. One pass, a row at a time, counts only.

A row of the benchmark is dropped wherever it is met, and the finished file is checked as a whole before it gets its
name; nothing here returns, prints or writes a matched text.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from posttrain_crew.errors import DatasetError, GateError
from posttrain_crew.files import atomic_write_json, sha256_file
from posttrain_crew.target import Target
from posttrain_crew.tools.data.chat_template import CONTROL_TOKENS, ChatTemplate
from posttrain_crew.tools.data.contamination import UNCHECKED, ContaminationIndex
from posttrain_crew.tools.data.convert import Goal, Record, convert_row
from posttrain_crew.tools.data.formats import copy_of, provenance_of
from posttrain_crew.tools.data.measuring import TokenCounter
from posttrain_crew.tools.data.reader import Dataset, RawRow
from posttrain_crew.tools.data.roles import Refusal, Turn
from posttrain_crew.tools.data.thresholds import Thresholds

__all__ = ["Converted", "Decontaminated", "convert", "decontaminate"]

BATCH = 5_000
"""Rows of a parquet row group on the way out."""


@dataclass(frozen=True)
class Converted:
    """What became of a dataset."""

    path: str
    sha256: str
    goal: Goal
    rows_in: int
    rows_out: int
    dropped: dict[str, int]
    by_check: dict[str, int]
    """Dropped as items of the benchmark, by check."""
    template_problem: str | None
    """The first disagreement of a row with the chat template, without the row's text being a benchmark's."""


@dataclass(frozen=True)
class Decontaminated:
    """What was left of a dataset."""

    path: str | None
    """None where nothing is left: no file is written."""
    sha256: str | None
    rows_in: int
    rows_out: int
    matched: int
    unchecked: int
    by_check: dict[str, int]
    benchmark_items: int


def convert(
    dataset: Dataset,
    goal: Goal,
    target: Target,
    index: ContaminationIndex,
    out: Path,
    *,
    model: Path | None = None,
    wrong_samples: Mapping[str, Sequence[str]] | None = None,
) -> Converted:
    """Write OUT/train.jsonl and OUT/card.json. Exact repeats go, and so does what matches the benchmark.

    Synthetic rows keep their generator, seed and parent, and the repeats that their weight gave them.

    Args:
        model: folder of the model that will be trained. With it the chat template is checked, first on probes and then
            on every row, and rows longer than the model's context are dropped.

    Raises:
        DatasetError: the data cannot be read, or no row is left. ConfigError: the chat template contradicts itself.
        GateError: the finished file matches the benchmark. ModelError: the model cannot be loaded.
    """
    template = ChatTemplate(model) if model is not None else None
    counter = TokenCounter(model)
    longest = min(Thresholds().max_tokens, counter.context or Thresholds().max_tokens)
    dropped: Counter[str] = Counter()
    by_check: Counter[str] = Counter()
    seen: set[bytes] = set()
    rows_in = rows_out = 0
    problem: str | None = None
    path = out / "train.jsonl"
    with _written(path) as stream:
        for row in dataset.rows():
            rows_in += 1
            record, reason, told = _one(row, goal, target, index, template, wrong_samples)
            if told is not None and problem is None:
                problem = told
            if record is None:
                dropped[reason] += 1
                if reason.startswith("contaminated:"):
                    by_check[reason.partition(":")[2]] += 1
                continue
            mark = hashlib.blake2b(json.dumps([record, copy_of(row or {})]).encode(), digest_size=16).digest()
            line = json.dumps({**record, **(provenance_of(row or {}) or {})}, ensure_ascii=False) + "\n"
            if mark in seen:
                dropped["duplicate"] += 1
            elif counter.lengths([_text(record)]).maximum > longest:
                dropped["too_long"] += 1
            else:
                seen.add(mark)
                stream.write(line)
                rows_out += 1
        dropped_by_reason = _merged(dropped)
        if not rows_out:
            raise DatasetError(
                f"no row of {dataset.name} can be converted to {goal} for {target.name}: of {rows_in} rows, "
                f"{_told(dropped_by_reason)}.{f' The first: {problem}' if problem else ''}"
            )
    sha = _checked(path, index)
    converted = Converted(str(path), sha, goal, rows_in, rows_out, dropped_by_reason, dict(by_check), problem)
    source = {"name": dataset.name, "licence": dataset.card.licence, "files": [file.name for file in dataset.files]}
    atomic_write_json(
        out / "card.json", {**asdict(converted), "path": path.name, "target": target.name, "source": source}
    )
    return converted


def decontaminate(dataset: Dataset, index: ContaminationIndex, out: Path) -> Decontaminated:
    """Write the rows that match nothing to OUT (.jsonl or .parquet, by its suffix), otherwise as they were read.

    A row that cannot be checked is dropped as well. Binary columns (images) come out empty, for the reader skips them,
    and so do NaN and infinity in .jsonl, which has none.

    Raises:
        DatasetError: the data cannot be read, or OUT has another suffix. GateError: what was written still matches.
    """
    if out.suffix not in (".jsonl", ".parquet"):
        raise DatasetError(f"--out must end with .jsonl or .parquet; {out.name} does not.")
    by_check: Counter[str] = Counter()
    rows_in = 0

    def kept() -> Iterator[RawRow]:
        nonlocal rows_in
        for row in dataset.rows():
            rows_in += 1
            name = index.match_raw(row)
            if name is None and row is not None:
                yield row
            else:
                by_check[name or UNCHECKED] += 1

    rows_out = _write_parquet(out, kept()) if out.suffix == ".parquet" else _write_jsonl(out, kept())
    unchecked = by_check.pop(UNCHECKED, 0)
    sha = _checked(out, index) if rows_out else None
    return Decontaminated(
        str(out) if rows_out else None,
        sha,
        rows_in,
        rows_out,
        sum(by_check.values()),
        unchecked,
        dict(by_check),
        index.size,
    )


def _one(
    row: RawRow | None,
    goal: Goal,
    target: Target,
    index: ContaminationIndex,
    template: ChatTemplate | None,
    wrong_samples: Mapping[str, Sequence[str]] | None,
) -> tuple[Record | None, str, str | None]:
    """(the training row or None, the reason of a drop, what is wrong with its rendering)."""
    record = convert_row(row, goal, target.answer, wrong_samples)
    if isinstance(record, Refusal):
        return None, record.reason, None
    name = index.match_raw(row) or index.match_raw(record)  # as it was, and as it will be
    if name is not None:
        return None, UNCHECKED if name == UNCHECKED else f"contaminated:{name}", None
    prompt = [Turn(turn["role"], turn["content"]) for turn in _turns(record, "prompt")]
    replies = [turn["content"] for key in ("completion", "chosen", "rejected") for turn in _turns(record, key)]
    texts = [*(turn.content for turn in prompt), *replies]
    if template.has_control_tokens(texts) if template else any(t in text for t in CONTROL_TOKENS for text in texts):
        return None, "control_token", None
    if template is not None:
        for reply in replies or [target.answer.template.format(answer="A")]:
            if (told := template.problem(prompt, reply)) is not None:
                return None, "template_mismatch", told[:500]
    return record, "", None


def _turns(record: Record, key: str) -> list[Any]:
    value = record.get(key)
    return value if isinstance(value, list) else []


def _text(record: Record) -> str:
    """What is read at once: the prompt with the longer reply."""
    prompt = "\n".join(turn["content"] for turn in _turns(record, "prompt"))
    replies = ["\n".join(t["content"] for t in _turns(record, key)) for key in ("completion", "chosen", "rejected")]
    return f"{prompt}\n{max(replies, key=len)}"


def _merged(dropped: Counter[str]) -> dict[str, int]:
    merged: Counter[str] = Counter()
    for reason, count in dropped.items():
        merged[reason.partition(":")[0]] += count
    return dict(sorted(merged.items()))


def _told(dropped: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in dropped.items()) or "none were read"


def _checked(path: Path, index: ContaminationIndex) -> str:
    verdict = index.verdict(path)
    if not verdict.passed:
        path.unlink(missing_ok=True)
        raise GateError(
            f"the written file did not pass the check after all ({verdict.rows_matched} rows match the benchmark, "
            f"{verdict.rows_unchecked} cannot be checked) and was removed."
        )
    if sha256_file(path) != verdict.sha256:
        raise GateError(f"{path} was changed while it was checked.")
    return verdict.sha256


@contextmanager
def _written(path: Path) -> Iterator[IO[str]]:
    """A stream to a file that gets its name when all is written; nothing is left where an error comes up."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8") as stream:
            yield stream
        temporary.replace(path)
    except OSError as error:
        raise DatasetError(f"{path} cannot be written: {error.strerror or error}.") from error
    finally:
        temporary.unlink(missing_ok=True)


def _json(row: RawRow) -> str:
    try:
        return json.dumps(row, ensure_ascii=False, default=str, allow_nan=False)
    except ValueError:  # JSON has no NaN, and readers other than Python's refuse the file
        return json.dumps(_finite(row), ensure_ascii=False, default=str, allow_nan=False)


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return {name: _finite(part) for name, part in value.items()} if isinstance(value, dict) else value


def _write_jsonl(path: Path, rows: Iterator[RawRow]) -> int:
    count = 0
    with _written(path) as stream:
        for row in rows:
            stream.write(_json(row) + "\n")
            count += 1
    if not count:
        path.unlink(missing_ok=True)
    return count


def _write_parquet(path: Path, rows: Iterator[RawRow]) -> int:
    import pyarrow as pa

    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    count, writer, batch = 0, None, list[RawRow]()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for row in rows:
            batch.append(row)
            count += 1
            if len(batch) == BATCH:
                writer = _flushed(temporary, writer, batch)
                batch = []
        if batch:
            writer = _flushed(temporary, writer, batch)
        if writer is not None:
            writer.close()
            temporary.replace(path)
    except (pa.ArrowException, OverflowError, OSError) as error:
        raise DatasetError(
            f"{path} cannot be written as parquet: {str(error)[:300]}. Its rows may have columns of changing types: "
            "write .jsonl."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    return count


def _flushed(path: Path, writer: Any, batch: list[RawRow]) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = list(dict.fromkeys(name for row in batch for name in row))
    if writer is not None and (new := [name for name in names if name not in writer.schema.names]):
        raise DatasetError(
            f"{path} cannot be written as parquet: the columns {', '.join(new)[:200]} come up after row {BATCH}, and "
            "its columns are fixed by then. Write .jsonl."
        )
    # pyarrow takes the columns of the first row for those of all
    columns = names if writer is None else writer.schema.names
    rows = [{name: row.get(name) for name in columns} for row in batch]
    table = pa.Table.from_pylist(rows, schema=writer.schema if writer is not None else None)
    if writer is None:
        writer = pq.ParquetWriter(path, table.schema)
    writer.write_table(table)
    return writer
