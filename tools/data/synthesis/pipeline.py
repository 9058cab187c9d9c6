"""From a plan to a dataset: generate, verify, drop repeats and what the benchmark has, keep what is neither too
easy nor too hard for the student, repeat by weight, write.

    OUT/README.md                 dataset card: licence, sources, how it was made
    OUT/data/train.jsonl          the rows (rows.record)
    OUT/provenance/card.json      plan, counts of every stage, cost, sha256, contamination verdict
    OUT/parts/                    samples as they were paid for, and the plan's hash

The same plan, sources and models give the same bytes. A call that is killed is called again: samples are read from
parts/ (samplers.py), everything else is computed anew. A finished folder is returned as it is. The contamination check
fails closed: without the benchmark's items there are no rows, and the finished file is checked once more as a whole.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from posttrain_crew.errors import DatasetError, GateError, InputError, RunBusyError
from posttrain_crew.files import atomic_write_json, atomic_write_text, canonical_json, sha256_file, sha256_text
from posttrain_crew.target import Target
from posttrain_crew.tools.data.contamination import ContaminationIndex
from posttrain_crew.tools.data.synthesis.base import (
    BatchVerifier,
    Request,
    Sampler,
    Source,
    SyntheticRow,
    Verification,
    Verifier,
)
from posttrain_crew.tools.data.synthesis.chat import Allowance
from posttrain_crew.tools.data.synthesis.dataset_card import Origin, dataset_card
from posttrain_crew.tools.data.synthesis.difficulty import rated, within
from posttrain_crew.tools.data.synthesis.duplicates import repeats
from posttrain_crew.tools.data.synthesis.plan import Card, Difficulty, Plan, UsageLine
from posttrain_crew.tools.data.synthesis.registry import find_generator, find_verifier, make_parameters
from posttrain_crew.tools.data.synthesis.rows import content_sha256, record
from posttrain_crew.tools.data.synthesis.samplers import RecordedSampler
from posttrain_crew.tools.data.synthesis.verifiers import Bench

__all__ = ["CARD", "DATA", "Samplers", "synthesize"]

DATA = Path("data") / "train.jsonl"
CARD = Path("provenance") / "card.json"
MAX_REASONS = 60
"""Different reasons counted: a plugin's verifier may write another one for each row."""
Counts = dict[str, dict[str, int]]


@dataclass(frozen=True)
class Samplers:
    """Who writes, judges and is taught."""

    writer: Sampler | None = None
    judge: Sampler | None = None
    student: Sampler | None = None
    allowance: Allowance | None = None
    """Shared by those that are paid for; what earlier attempts spent is counted into it, too."""


def synthesize(
    plan: Plan,
    target: Target,
    out: Path,
    *,
    index: ContaminationIndex,
    samplers: Samplers,
    sources: Sequence[Source] = (),
    source_counts: dict[str, int] | None = None,
    origin: Origin | None = None,
    notice: Callable[[str], None] = lambda _text: None,
) -> Card:
    """Make the dataset `out`, or go on with it, or return it where it is finished.

    Args:
        index: the benchmark's items.
        source_counts: what `usable_sources` counted, for the card.
        notice: told of each stage in a line.

    Raises:
        InputError: the plan cannot be carried out, or `out` holds another synthesis. GateError: a verifier may not run
        here, or rows cannot be checked against the benchmark. DatasetError: no row is left, with the counts of every
        stage. RunBusyError: another process works in `out`. ServiceError, ModelError, BudgetError: of the samplers.
    """
    parts = out / "parts"
    try:
        if out.is_dir() and not (parts / "plan.json").exists() and any(each.name != "parts" for each in out.iterdir()):
            raise InputError(f"{out} holds other files. Give an empty or new folder.")
        parts.mkdir(parents=True, exist_ok=True)
        with FileLock(str(parts / ".lock"), timeout=0):
            mark = _mark(plan, target, sources, samplers)
            _claim(parts / "plan.json", plan, mark, out)
            if (known := _finished(out, mark)) is not None:
                return known
            work = _Work(plan, target, out, index, samplers, notice)
            return work.run(sources, source_counts or {}, origin or Origin(), mark)
    except Timeout as error:
        raise RunBusyError(f"another process synthesises in {out}. Wait for it, or give another folder.") from error
    except OSError as error:
        raise InputError(f"{out} cannot be written ({error.strerror or error}). Choose another folder.") from error


class _Work:
    """One attempt."""

    def __init__(
        self,
        plan: Plan,
        target: Target,
        out: Path,
        index: ContaminationIndex,
        samplers: Samplers,
        notice: Callable[[str], None],
    ) -> None:
        self.plan, self.target, self.out, self.index, self.notice = plan, target, out, index, notice
        self.counts: Counts = {}
        self.recorded: dict[str, RecordedSampler] = {}
        for role, sampler in (("writer", samplers.writer), ("judge", samplers.judge), ("student", samplers.student)):
            if sampler is not None:
                kept = RecordedSampler(sampler, out / "parts" / f"{role}.jsonl")
                self.recorded[role] = kept
                if samplers.allowance is not None and role != "student" and not samplers.allowance.per_call:
                    samplers.allowance.spent += kept.usage
        self.generator = find_generator(plan.generator)
        self.params = make_parameters(self.generator.parameters, plan.params, f"the generator `{plan.generator}`")
        bench = Bench(target, plan.seed, self.recorded.get("writer"), self.recorded.get("judge"))
        # made now, so that a refusal (no sandbox, no judge) comes before the first sample is paid for
        self.verifiers = [(choice.name, find_verifier(choice.name, bench, choice.params)) for choice in plan.verifiers]
        if plan.difficulty is not None and "student" not in self.recorded:
            raise InputError("the difficulty filter needs the student's model: give --student.")

    def run(self, sources: Sequence[Source], source_counts: dict[str, int], origin: Origin, mark: str) -> Card:
        if source_counts:
            self.counts["sources"] = source_counts
        rows = self._generate(sources)
        rows = self._verify(rows)
        rows = self._deduplicate(rows)
        rows = self._decontaminate(rows)
        if self.plan.difficulty is not None:
            rows = self._by_difficulty(rows, self.plan.difficulty)
        if not rows:
            raise DatasetError(
                f"no row is left of this synthesis: {canonical_json(self.counts)}, left out {dict(self._left_out())}. "
                "Look at which stage dropped them; with other parameters, use another folder."
            )
        lines = self._repeat(rows)
        return self._write(lines, len(rows), origin, mark)

    def _generate(self, sources: Sequence[Source]) -> list[SyntheticRow]:
        request = Request(
            self.plan.rows, self.plan.seed, self.target, self.params, self.recorded.get("writer"), sources
        )
        rows: list[SyntheticRow] = []
        for row in self.generator.generate(request):
            rows.append(row)
            if len(rows) >= self.plan.rows:
                break  # a generator of a plugin may know no end
        self._count("generated", {**dict(sorted(request.tally.items())), "out": len(rows)})
        return rows

    def _verify(self, rows: list[SyntheticRow]) -> list[SyntheticRow]:
        counts: Counter[str] = Counter({"in": len(rows)})
        for name, verifier in self.verifiers:
            kept: list[SyntheticRow] = []
            for row, verdict in zip(rows, _verdicts(verifier, rows), strict=True):
                if verdict.ok:
                    kept.append(row.model_copy(update={"checks": {**row.checks, name: "ok"}}))
                else:
                    reason = f"{name}: {verdict.reason[:80]}"
                    counts[reason if reason in counts or len(counts) < MAX_REASONS else f"{name}: other"] += 1
            rows = kept
        self._count("verified", {**counts, "out": len(rows)})
        return rows

    def _deduplicate(self, rows: list[SyntheticRow]) -> list[SyntheticRow]:
        found = repeats(rows, self.plan.similarity)
        kinds = Counter(found.values())
        rows = [row for i, row in enumerate(rows) if i not in found]
        self._count("deduplicated", {"exact": kinds["exact"], "near": kinds["near"], "out": len(rows)})
        return rows

    def _decontaminate(self, rows: list[SyntheticRow]) -> list[SyntheticRow]:
        matches = self.index.check([row.example() for row in rows])
        if matches.checked != len(rows):
            raise GateError(f"the contamination check read {matches.checked} of {len(rows)} rows: none may be used.")
        bad = set(matches.rows)
        rows = [row for i, row in enumerate(rows) if i not in bad]
        self._count("decontaminated", {**{k: v for k, v in matches.by_check.items() if v}, "out": len(rows)})
        return rows

    def _by_difficulty(self, rows: list[SyntheticRow], how: Difficulty) -> list[SyntheticRow]:
        rows, counts = within(rated(rows, self.recorded["student"], how, self.target, self.plan.seed), how)
        self._count("difficulty", {**counts, "out": len(rows)})
        return rows

    def _repeat(self, rows: Sequence[SyntheticRow]) -> list[tuple[SyntheticRow, int]]:
        """Each row as often as its weight says: whole times, and the rest by a draw that only the seed decides."""
        rng = random.Random(f"{self.plan.seed} repeats")
        how = self.plan.upsampling
        lines: list[tuple[SyntheticRow, int]] = []
        times: Counter[int] = Counter()
        for row in rows:
            hard = 1.0 if row.pass_rate is None else 1.0 + (how.hard_weight - 1.0) * (1.0 - row.pass_rate)
            weight = row.weight * hard
            count = min(how.max_repeats, int(weight) + (rng.random() < weight % 1))
            times[count] += 1
            lines += [(row, copy) for copy in range(count)]
        if not lines:
            lines = [(rows[0], 0)]
        rng.shuffle(lines)
        self._count("upsampled", {**{f"rows_{n}_times": k for n, k in sorted(times.items())}, "out": len(lines)})
        return lines

    def _write(self, lines: Sequence[tuple[SyntheticRow, int]], distinct: int, origin: Origin, mark: str) -> Card:
        text = "".join(json.dumps(record(row, copy), ensure_ascii=False) + "\n" for row, copy in lines)
        path = self.out / DATA
        atomic_write_text(path, text)
        verdict = self.index.verdict(path)
        if not verdict.passed or verdict.sha256 != sha256_text(text) or verdict.rows_checked != len(lines):
            path.unlink()
            raise GateError(
                f"the finished file is not fit for training: {verdict.rows_matched} of {verdict.rows_checked} rows "
                f"match the benchmark ({verdict.by_check}), or it was changed meanwhile. It was removed."
            )
        card = Card(
            plan=self.plan,
            plan_sha256=mark,
            target=self.target.name,
            sources=list(origin.datasets),
            rows=len(lines),
            distinct=len({row.id for row, _ in lines}),
            path=DATA.as_posix(),
            sha256=verdict.sha256,
            counts=self.counts,
            left_out=dict(self._left_out()),
            usage={role: UsageLine.of(kept.model, kept.usage) for role, kept in self.recorded.items()},
            contamination=verdict,
        )
        atomic_write_text(self.out / "README.md", dataset_card(card, origin))
        atomic_write_json(self.out / CARD, card.model_dump(mode="json"))
        return card

    def _left_out(self) -> Counter[str]:
        counters = {id(kept.left_out): kept.left_out for kept in self.recorded.values()}
        return sum((Counter(counter) for counter in counters.values()), Counter())

    def _count(self, stage: str, counts: dict[str, int]) -> None:
        self.counts[stage] = counts
        self.notice(f"{stage}: " + ", ".join(f"{name} {count}" for name, count in counts.items()))


def _verdicts(verifier: Verifier, rows: Sequence[SyntheticRow]) -> list[Verification]:
    return verifier.verify_all(rows) if isinstance(verifier, BatchVerifier) else [verifier.verify(row) for row in rows]


def _mark(plan: Plan, target: Target, sources: Sequence[Source], samplers: Samplers) -> str:
    everyone = (samplers.writer, samplers.judge, samplers.student)
    models = [None if sampler is None else [sampler.model, sampler.identity] for sampler in everyone]
    asked = [[source.name, content_sha256(source.example)] for source in sources]
    answer = target.answer.model_dump(mode="json")
    return sha256_text(canonical_json([plan.model_dump(mode="json"), target.name, answer, asked, models]))


def _claim(path: Path, plan: Plan, mark: str, out: Path) -> None:
    """The folder belongs to this call: samples of another one must not be mixed in."""
    if path.exists():
        try:
            known = str(json.loads(path.read_text(encoding="utf-8"))["sha256"])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is damaged: give another folder.") from error
        if known != mark:
            raise InputError(
                f"{out} holds a synthesis with another plan, other questions or another model. Give another folder "
                "(`--out`), or delete this one."
            )
        return
    atomic_write_json(path, {"sha256": mark, "plan": plan.model_dump(mode="json")})


def _finished(out: Path, mark: str) -> Card | None:
    """The card of a finished folder whose file is unchanged; None where there is something left to do."""
    try:
        card = Card.model_validate_json((out / CARD).read_text(encoding="utf-8"))
        intact = card.plan_sha256 == mark and sha256_file(out / card.path) == card.sha256
    except (OSError, ValueError):
        return None
    return card if intact and not card.left_out.get("budget") else None
