"""From audited datasets to a training file that can be trusted: cleaned, in the benchmark's form, checked as a whole.

SFT rows  {"prompt": [{role: user, content}], "completion": [{role: assistant, content}]}
DPO rows  {"prompt": [{role: user, content}], "chosen": [{role: assistant, content}], "rejected": [...]}
GRPO rows {"prompt": [{role: user, content}], "answer": label}

A synthetic row keeps its generator, seed and parent in columns of these names, which no trainer reads. A row with a
token that ends turns (`<|im_end|>`) is dropped: it would teach other turns than it shows.

DPO pairs come from preference datasets as they are, and from worked questions: the worked right answer is preferred to
a wrong answer of the student where samples are given, or else to a bare answer line with a wrong label, which is the
weaker choice (convert.py says why).

The file lies at data/<sha256 of its bytes>/train.jsonl with a card.json beside it: the description of the set, and how
it was mixed. The same inputs give the same bytes.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from posttrain_crew.entries import SourceShare, TrainingSet
from posttrain_crew.errors import ConfigError, DatasetError, GateError
from posttrain_crew.files import atomic_write_json, atomic_write_text, sha256_text
from posttrain_crew.tools.data.audit import Auditor
from posttrain_crew.tools.data.chat_template import CONTROL_TOKENS
from posttrain_crew.tools.data.cleaning import Examination
from posttrain_crew.tools.data.convert import wrong_completion
from posttrain_crew.tools.data.formats import Example, row_texts
from posttrain_crew.tools.data.labels import question_key
from posttrain_crew.tools.data.mixing import MAX_REPEATS, Mixed, Mixture, Order, Row, Source, mix
from posttrain_crew.tools.data.rendering import label_of, render_completion, render_prompt
from posttrain_crew.tools.data.text import normalised

__all__ = ["MINIMUM_ROWS", "BuildMethod", "BuildStyle", "Share", "build"]

BuildMethod = Literal["sft", "dpo", "grpo"]
BuildStyle = Literal["worked", "terse", "any"]
MINIMUM_ROWS = 8
"""A smaller file is a mistake, not a training set."""


@dataclass(frozen=True)
class Share:
    """What one dataset shall have of the file; see mixing.py."""

    weight: float | None = None
    cap: int | None = None
    min_share: float = 0.0
    revision: str | None = None
    """Revision of the dataset on its service, for the card."""


@dataclass
class _Line:
    """One row on its way into the file."""

    source: str
    example: Example
    record: dict[str, object]
    worked: bool
    rewritten: bool
    tokens: int = 0


@dataclass
class _Source:
    """What became of one dataset."""

    name: str
    rows_in: int
    dropped: Counter[str] = field(default_factory=Counter)
    lines: list[_Line] = field(default_factory=list)
    licence: str | None = None


def build(
    auditor: Auditor,
    examinations: Sequence[Examination],
    data_dir: Path,
    *,
    method: BuildMethod,
    style: BuildStyle,
    max_rows: int | None,
    seed: int,
    shares: Mapping[str, Share] | None = None,
    order: Order = "interleaved",
    max_repeats: float = MAX_REPEATS,
    wrong_samples: Mapping[str, Sequence[str]] | None = None,
) -> TrainingSet:
    """Write a training file and return its description. Repeating a call writes the same file again, or nothing.

    Args:
        data_dir: the run's `data` folder; the set's path is told relative to its parent.
        style: `worked` keeps rows with a working and shows it; `terse` gives the answer line only; `any` shows the
            working where there is one. GRPO has no completions: there, `worked` only chooses rows.
            For DPO, rows that are no preference pairs need a working; `terse` has none.
        max_rows: rows at most; None is all. Shared fairly between the datasets, or by `shares`.
        shares: weight, cap and least share by dataset; with weights, rows of a small dataset may be repeated, up to
            `max_repeats` times.
        order: of the file; the trainer keeps it where it is a curriculum (`length`, `difficulty`).
        wrong_samples: for DPO, the student's own wrong replies by user prompt.

    Raises:
        DatasetError: nothing usable is left. GateError: the finished file matches the benchmark, or a row of it cannot
            be checked. ConfigError: shares that contradict each other, or name a dataset that is not here.
    """
    if unknown := sorted((shares or {}).keys() - {each.reading.dataset.name for each in examinations}):
        raise ConfigError(f"shares are given for {', '.join(unknown)}, which are not among the datasets.")
    if method == "dpo" and style == "terse":
        raise ConfigError("method dpo needs chosen replies with a working: take style `worked` or `any`.")
    sources = [_source(auditor, each, method, style, seed, wrong_samples or {}) for each in examinations]
    _drop_across(sources)
    _drop_contaminated(auditor, sources)
    mixed, lines = _mixed(sources, shares or {}, Mixture(max_rows, order, max_repeats, seed))
    if len(lines) < MINIMUM_ROWS:
        told = "; ".join(f"{s.name}: {dict(s.dropped)} of {s.rows_in}" for s in sources)
        raise DatasetError(
            f"only {len(lines)} rows are left for method {method}, style {style} (dropped: {told}). Choose other "
            "datasets, or style `any`."
        )
    text = mixed.text
    sha = sha256_text(text)
    path = data_dir / sha / "train.jsonl"
    if not path.is_file():
        atomic_write_text(path, text)
    verdict = auditor.index.verdict(path)
    if verdict.sha256 != sha or not verdict.passed:
        raise GateError(
            f"the finished file {sha[:12]} is not fit for training: {verdict.rows_matched} of {len(lines)} rows match "
            f"the benchmark ({verdict.by_check}), {verdict.rows_unchecked} cannot be checked, or the file was changed. "
            "Leave the dataset out."
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
                rows_out=taken.count,
                dropped=dict(sorted(source.dropped.items())),
                rewritten=sum(line.rewritten for line in lines if line.source == source.name),
            )
            for source, taken in zip(sources, mixed.taken, strict=True)
        ],
        contamination=verdict,
        mean_tokens=round(lengths.mean, 2),
        max_tokens=lengths.maximum,
        seed=seed,
        order=order,
        note="" if auditor.tokens.exact else "token counts are guessed from characters: the base has no tokenizer.json",
    )
    atomic_write_json(path.parent / "card.json", {**body.model_dump(mode="json"), "mixture": mixed.card()})
    return body


def _source(
    auditor: Auditor,
    examination: Examination,
    method: BuildMethod,
    style: BuildStyle,
    seed: int,
    wrong: Mapping[str, Sequence[str]],
) -> _Source:
    """The usable rows of one dataset, rendered and in random order."""
    reading, answer = examination.reading, auditor.target.answer
    source = _Source(reading.dataset.name, len(reading.examples), Counter(examination.dropped()))
    source.licence = reading.dataset.card.licence
    for example in examination.clean():
        label = label_of(example, answer)
        paired = method == "dpo" and example.rejected is not None
        if label is None and not paired:
            source.dropped["other_form"] += 1
            continue
        if not paired and not example.worked and (style == "worked" or method == "dpo"):
            source.dropped["no_working"] += 1
            continue
        line = _line(source.name, example, label, auditor, method, style, reading.format == "mcq", wrong)
        if any(token in text for text in row_texts(line.record) for token in CONTROL_TOKENS):
            source.dropped["control_token"] += 1
            continue
        source.lines.append(line)
    lengths = auditor.tokens.lengths([_content(line.record) for line in source.lines])
    fitting = [n <= auditor.max_tokens for n in lengths.counts]
    if too_long := fitting.count(False):
        source.dropped["too_long"] += too_long
    kept = [(line, n) for line, n, fits in zip(source.lines, lengths.counts, fitting, strict=True) if fits]
    for line, n in kept:
        line.tokens = n
    source.lines = [line for line, _ in kept]
    random.Random(f"{seed} {source.name}").shuffle(source.lines)
    return source


def _line(
    name: str,
    example: Example,
    label: str | None,
    auditor: Auditor,
    method: BuildMethod,
    style: BuildStyle,
    native: bool,
    wrong: Mapping[str, Sequence[str]],
) -> _Line:
    """One row in the benchmark's form. A preference pair keeps its two replies."""
    answer = auditor.target.answer
    asked = render_prompt(example, answer) if example.choices and label is not None else example.question
    record: dict[str, object] = {"prompt": [{"role": "user", "content": asked}]}
    made = example.provenance or {}
    shown = style != "terse" and example.worked
    if method == "grpo":
        return _Line(name, example, {**record, "answer": label, **made}, shown, not native)
    if method == "dpo" and example.rejected is not None:
        chosen, rejected = example.raw_completion or "", example.rejected
    else:
        assert label is not None
        chosen = render_completion(example, label, answer, worked=shown)
        rejected = wrong_completion(example, label, answer, wrong.get(asked, ())) if method == "dpo" else ""
    changed = chosen != example.raw_completion
    if method == "sft":
        return _Line(name, example, {**record, "completion": [_reply(chosen)], **made}, shown, changed)
    pair = {"chosen": [_reply(chosen)], "rejected": [_reply(rejected)]}
    return _Line(name, example, {**record, **pair, **made}, shown, changed)


def _reply(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def _drop_across(sources: Sequence[_Source]) -> None:
    """Questions that an earlier source has already, or to which two sources give different answers."""
    answers: Mapping[str, set[str]] = defaultdict(set)
    for source in sources:
        for line in source.lines:
            answers[question_key(line.example)].add(normalised(line.example.answer_text or ""))
    seen: set[tuple[str, int]] = set()
    for source in sources:
        kept: list[_Line] = []
        for line in source.lines:
            key = question_key(line.example)
            once = key, line.example.copy  # a wanted repeat of a synthetic row is none
            if len(answers[key]) > 1:
                source.dropped["conflicting_answers"] += 1
            elif once in seen:
                source.dropped["duplicate"] += 1
            else:
                seen.add(once)
                kept.append(line)
        source.lines = kept


def _drop_contaminated(auditor: Auditor, sources: Sequence[_Source]) -> None:
    """Rows that match only in their final form, for instance because a prompt was taken apart."""
    for source in sources:
        matches = auditor.index.check_raw(line.record for line in source.lines)
        gone = {*matches.rows, *matches.unchecked}
        if matches.rows:
            source.dropped["contaminated"] += len(matches.rows)
        if matches.unchecked:
            source.dropped["unchecked"] += len(matches.unchecked)
        source.lines = [line for i, line in enumerate(source.lines) if i not in gone]


def _mixed(sources: Sequence[_Source], shares: Mapping[str, Share], mixture: Mixture) -> tuple[Mixed, list[_Line]]:
    """The mixture, and the line behind each of its rows."""
    behind: dict[int, _Line] = {}
    given: list[Source] = []
    for source in sources:
        share = shares.get(
            source.name, Share(weight=1.0 if any(s.weight is not None for s in shares.values()) else None)
        )
        rows = [Row(line.record, line.tokens, line.example.pass_rate) for line in source.lines]
        behind.update((id(row), line) for row, line in zip(rows, source.lines, strict=True))
        given.append(
            Source(source.name, rows, share.weight, share.cap, share.min_share, source.rows_in, dict(source.dropped),
                   share.revision, source.licence)
        )  # fmt: skip
    if not any(source.rows for source in given):
        return Mixed((), (), (), mixture), []
    mixed = mix(given, mixture)
    for source, taken in zip(sources, mixed.taken, strict=True):
        if taken.left_out:
            source.dropped["over_max_rows"] += taken.left_out
    return mixed, [behind[id(row)] for row in mixed.rows]


def _style(
    method: BuildMethod, lines: Sequence[_Line]
) -> Literal["worked", "terse", "mixed", "verifiable-prompts", "preference"]:
    if method != "sft":
        return "verifiable-prompts" if method == "grpo" else "preference"
    worked = sum(line.worked for line in lines)
    return "worked" if worked == len(lines) else "terse" if worked == 0 else "mixed"


def _content(record: Mapping[str, object]) -> str:
    """The texts of a row that are read at once, for counting tokens: the prompt with its longest reply."""
    texts = {
        name: "\n".join(str(message["content"]) for message in turns)
        for name in ("prompt", "completion", "chosen", "rejected")
        if isinstance(turns := record.get(name), list)
    }
    prompt = texts.pop("prompt", "")
    return "\n".join([prompt, max(texts.values(), key=len)] if texts else [prompt])
