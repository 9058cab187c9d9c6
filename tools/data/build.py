"""From audited datasets to a training file that can be trusted: cleaned, in the benchmark's form, checked as a whole.

SFT rows  {"prompt": [{role: user, content}], "completion": [{role: assistant, content}]}
GRPO rows {"prompt": [{role: user, content}], "answer": label}

The file lies at data/<sha256 of its bytes>/train.jsonl with a card.json beside it. The same inputs give the same bytes.
"""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from posttrain_crew.entries import SourceShare, TrainingSet
from posttrain_crew.errors import DatasetError, GateError
from posttrain_crew.files import atomic_write_json, atomic_write_text, sha256_text
from posttrain_crew.tools.data.audit import Auditor
from posttrain_crew.tools.data.cleaning import Examination
from posttrain_crew.tools.data.formats import Example, normalise_row
from posttrain_crew.tools.data.labels import question_key
from posttrain_crew.tools.data.rendering import label_of, render_completion, render_prompt
from posttrain_crew.tools.data.text import normalised

__all__ = ["MINIMUM_ROWS", "BuildMethod", "BuildStyle", "build"]

BuildMethod = Literal["sft", "grpo"]
BuildStyle = Literal["worked", "terse", "any"]
MINIMUM_ROWS = 8
"""A smaller file is a mistake, not a training set."""


@dataclass
class _Line:
    """One row on its way into the file."""

    source: str
    example: Example
    record: dict[str, object]
    worked: bool
    rewritten: bool


@dataclass
class _Source:
    """What became of one dataset."""

    name: str
    rows_in: int
    dropped: Counter[str] = field(default_factory=Counter)
    lines: list[_Line] = field(default_factory=list)


def build(
    auditor: Auditor,
    examinations: Sequence[Examination],
    data_dir: Path,
    *,
    method: BuildMethod,
    style: BuildStyle,
    max_rows: int | None,
    seed: int,
) -> TrainingSet:
    """Write a training file and return its description. Repeating a call writes the same file again, or nothing.

    Args:
        data_dir: the run's `data` folder; the set's path is told relative to its parent.
        style: `worked` keeps rows with a working and shows it; `terse` gives the answer line only; `any` shows the
            working where there is one. GRPO has no completions: there, `worked` only chooses rows.
        max_rows: rows at most, shared fairly between the datasets; None is all.

    Raises:
        DatasetError: nothing usable is left. GateError: the finished file matches the benchmark.
    """
    sources = [_source(auditor, each, method, style, seed) for each in examinations]
    _drop_across(sources)
    _drop_contaminated(auditor, sources)
    _cut(sources, max_rows)
    lines = _interleave(sources)
    if len(lines) < MINIMUM_ROWS:
        told = "; ".join(f"{s.name}: {dict(s.dropped)} of {s.rows_in}" for s in sources)
        raise DatasetError(
            f"only {len(lines)} rows are left for method {method}, style {style} (dropped: {told}). Choose other "
            "datasets, or style `any`."
        )
    text = "".join(json.dumps(line.record, ensure_ascii=False) + "\n" for line in lines)
    sha = sha256_text(text)
    path = data_dir / sha / "train.jsonl"
    if not path.is_file():
        atomic_write_text(path, text)
    verdict = auditor.index.verdict(path)
    if verdict.sha256 != sha or not verdict.passed:
        raise GateError(
            f"the finished file {sha[:12]} is not fit for training: {verdict.rows_matched} of {verdict.rows_checked} "
            f"rows match the benchmark ({verdict.by_check}), or the file was changed. Leave the dataset out."
        )
    lengths = auditor.tokens.lengths([_content(line.record) for line in lines])
    body = TrainingSet(
        sha256=sha,
        path=path.relative_to(data_dir.parent).as_posix(),
        rows=len(lines),
        method=method,
        style=_style(method, lines),
        sources=[
            SourceShare(
                dataset=source.name,
                rows_in=source.rows_in,
                rows_out=len(source.lines),
                dropped=dict(sorted(source.dropped.items())),
                rewritten=sum(line.rewritten for line in source.lines),
            )
            for source in sources
        ],
        contamination=verdict,
        mean_tokens=round(lengths.mean, 2),
        max_tokens=lengths.maximum,
        seed=seed,
        note="" if auditor.tokens.exact else "token counts are guessed from characters: the base has no tokenizer.json",
    )
    atomic_write_json(path.parent / "card.json", body.model_dump(mode="json"))
    return body


def _source(auditor: Auditor, examination: Examination, method: BuildMethod, style: BuildStyle, seed: int) -> _Source:
    """The usable rows of one dataset, rendered and in random order."""
    reading, answer = examination.reading, auditor.target.answer
    source = _Source(reading.dataset.name, len(reading.examples), Counter(examination.dropped()))
    for example in examination.clean():
        label = label_of(example, answer)
        if label is None:
            source.dropped["other_form"] += 1
            continue
        if style == "worked" and not example.worked:
            source.dropped["no_working"] += 1
            continue
        shown = style != "terse" and example.worked
        prompt = [{"role": "user", "content": render_prompt(example, answer)}]
        record: dict[str, object] = {"prompt": prompt}
        if method == "sft":
            completion = render_completion(example, label, answer, worked=shown)
            record["completion"] = [{"role": "assistant", "content": completion}]
            changed = completion != example.raw_completion
        else:
            record["answer"], changed = label, reading.format != "mcq"
        source.lines.append(_Line(source.name, example, record, shown, changed))
    lengths = auditor.tokens.lengths([_content(line.record) for line in source.lines])
    fitting = [n <= auditor.max_tokens for n in lengths.counts]
    if too_long := fitting.count(False):
        source.dropped["too_long"] += too_long
    source.lines = [line for line, fits in zip(source.lines, fitting, strict=True) if fits]
    random.Random(f"{seed} {source.name}").shuffle(source.lines)
    return source


def _drop_across(sources: Sequence[_Source]) -> None:
    """Questions that an earlier source has already, or to which two sources give different answers."""
    answers: Mapping[str, set[str]] = defaultdict(set)
    for source in sources:
        for line in source.lines:
            answers[question_key(line.example)].add(normalised(line.example.answer_text or ""))
    seen: set[str] = set()
    for source in sources:
        kept: list[_Line] = []
        for line in source.lines:
            key = question_key(line.example)
            if len(answers[key]) > 1:
                source.dropped["conflicting_answers"] += 1
            elif key in seen:
                source.dropped["duplicate"] += 1
            else:
                seen.add(key)
                kept.append(line)
        source.lines = kept


def _drop_contaminated(auditor: Auditor, sources: Sequence[_Source]) -> None:
    """Rows that match only in their final form, for instance because a prompt was taken apart."""
    nothing = Example("", (), None, None, None)
    for source in sources:
        rendered = [normalise_row(line.record, "prompt_completion") or nothing for line in source.lines]
        matched = set(auditor.index.check(rendered).rows)
        if matched:
            source.dropped["contaminated"] += len(matched)
            source.lines = [line for i, line in enumerate(source.lines) if i not in matched]


def _cut(sources: Sequence[_Source], max_rows: int | None) -> None:
    """Fair shares: a source that has fewer rows than its share leaves the rest to the others."""
    if max_rows is None:
        return
    left, waiting = max_rows, sorted(sources, key=lambda source: len(source.lines))
    while waiting:
        source = waiting.pop(0)
        share = min(len(source.lines), left // (len(waiting) + 1))
        if over := len(source.lines) - share:
            source.dropped["over_max_rows"] += over
        source.lines, left = source.lines[:share], left - share


def _interleave(sources: Sequence[_Source]) -> list[_Line]:
    """All sources spread evenly over the file, so that any stretch of it has the mixture of the whole."""
    placed = [
        ((i + 0.5) / len(source.lines), number, line)
        for number, source in enumerate(sources)
        for i, line in enumerate(source.lines)
    ]
    return [line for _, _, line in sorted(placed, key=lambda place: place[:2])]


def _style(method: BuildMethod, lines: Sequence[_Line]) -> Literal["worked", "terse", "mixed", "verifiable-prompts"]:
    if method == "grpo":
        return "verifiable-prompts"
    worked = sum(line.worked for line in lines)
    return "worked" if worked == len(lines) else "terse" if worked == 0 else "mixed"


def _content(record: Mapping[str, object]) -> str:
    """The texts of a row, for counting tokens."""
    turns = [turn for name in ("prompt", "completion") if isinstance(turn := record.get(name), list)]
    return "\n".join(str(message["content"]) for part in turns for message in part)
