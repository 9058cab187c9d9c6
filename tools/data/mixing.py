"""Several sources in one training file: how many rows of each, how often, in which order.

Without weights every source gives all of its rows, or a fair share of `max_rows`. With weights the shares of the file
follow them, within bounds: `cap` rows of a source at most, `min_share` of the file at least, and no row more often than
`max_repeats`: up to four epochs of the same data are nearly as good as new data, more is not (arXiv 2305.16264). What a
bound takes from one source goes to the others; a minimum that a small source cannot fill makes the file smaller.

Order: `interleaved` spreads every source evenly, `length` goes from short to long, `difficulty` from what the student
answers to what it does not (`pass_rate` of a row, 0-1). TRL shuffles: the trainer's desk tells it not to
(`train_sampling_strategy: sequential`, in GRPO `shuffle_dataset: false`) where the training set has such an order.

The same sources, settings and seed give the same bytes.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from posttrain_crew.errors import ConfigError, DatasetError
from posttrain_crew.files import atomic_write_json, atomic_write_text, sha256_text

__all__ = ["MAX_REPEATS", "Mixed", "Mixture", "Order", "Row", "Source", "Taken", "allocate", "mix"]

MAX_REPEATS = 4.0
Order = Literal["interleaved", "length", "difficulty"]
Record = Mapping[str, object]


@dataclass(frozen=True)
class Row:
    """A finished training row; only `record` is written."""

    record: Record
    length: int
    """Tokens or characters, for the order by length."""
    pass_rate: float | None = None
    """Share of the student's own answers that were right, 0-1, where it was measured."""


@dataclass(frozen=True)
class Source:
    """One source, its rows in the order in which they are taken."""

    name: str
    rows: Sequence[Row]
    weight: float | None = None
    """Relative; None where no source has one. 0 leaves the source out."""
    cap: int | None = None
    min_share: float = 0.0
    rows_in: int | None = None
    """Rows before cleaning; None is as many as are here."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Rows lost on the way here, by reason."""
    revision: str | None = None
    licence: str | None = None


@dataclass(frozen=True)
class Mixture:
    """Settings."""

    max_rows: int | None = None
    order: Order = "interleaved"
    max_repeats: float = MAX_REPEATS
    seed: int = 0


@dataclass(frozen=True)
class Taken:
    """What one source gave."""

    source: Source
    count: int
    """Rows in the file, repeats included."""
    left_out: int
    """Rows of the source that are not in the file."""

    @property
    def epochs(self) -> float:
        """How often a row of this source comes on average."""
        return self.count / len(self.source.rows) if self.source.rows else 0.0

    def card(self) -> dict[str, Any]:
        """Provenance, as the card has it."""
        source = self.source
        dropped = dict(source.dropped) | ({"not_drawn": self.left_out} if self.left_out else {})
        return {
            "name": source.name,
            "revision": source.revision,
            "licence": source.licence,
            "rows_in": len(source.rows) if source.rows_in is None else source.rows_in,
            "rows_out": self.count,
            "different_rows": len(source.rows) - self.left_out,
            "epochs": round(self.epochs, 4),
            "weight": source.weight,
            "dropped": dict(sorted(dropped.items())),
        }


@dataclass(frozen=True)
class Mixed:
    """A mixture: its rows in order, and what each source gave."""

    rows: tuple[Row, ...]
    origins: tuple[int, ...]
    """For each row the index of its source."""
    taken: tuple[Taken, ...]
    mixture: Mixture

    @property
    def text(self) -> str:
        """The file, JSON lines."""
        return "".join(json.dumps(row.record, ensure_ascii=False) + "\n" for row in self.rows)

    def card(self) -> dict[str, Any]:
        """Settings and provenance."""
        return {
            "order": self.mixture.order,
            "seed": self.mixture.seed,
            "max_rows": self.mixture.max_rows,
            "max_repeats": self.mixture.max_repeats,
            "sources": [each.card() for each in self.taken],
        }

    def write(self, folder: Path) -> tuple[Path, str]:
        """Write FOLDER/<sha256>/train.jsonl with a card.json beside it. Returns (path of the rows, their sha256).

        The file is not checked against any benchmark: that is the caller's part (build.py, `crew data decontaminate`).
        """
        text = self.text
        sha = sha256_text(text)
        path = folder / sha / "train.jsonl"
        atomic_write_text(path, text)
        atomic_write_json(path.parent / "card.json", {"sha256": sha, "rows": len(self.rows), **self.card()})
        return path, sha


def mix(sources: Sequence[Source], mixture: Mixture) -> Mixed:
    """Draw rows from the sources and put them in order.

    Raises:
        ConfigError: weights, caps, shares or repeats that contradict each other; an order without its measurement.
        DatasetError: no rows come out.
    """
    counts = allocate(sources, mixture)
    if not sum(counts):
        raise DatasetError(f"the mixture of {', '.join(s.name for s in sources) or 'no sources'} has no rows.")
    placed: list[tuple[float, int, Row]] = []
    taken: list[Taken] = []
    for number, (source, count) in enumerate(zip(sources, counts, strict=True)):
        drawn = _drawn(source, count, mixture.seed)
        placed += [((i + 0.5) / len(drawn), number, row) for i, row in enumerate(drawn)]
        taken.append(Taken(source, count, max(0, len(source.rows) - count)))
    placed.sort(key=lambda place: place[:2])
    if mixture.order == "length":
        placed.sort(key=lambda place: place[2].length)
    elif mixture.order == "difficulty":
        placed = _by_difficulty(placed)
    return Mixed(tuple(row for *_, row in placed), tuple(number for _, number, _ in placed), tuple(taken), mixture)


def allocate(sources: Sequence[Source], mixture: Mixture) -> list[int]:
    """Rows of each source in the file, repeats included. Raises ConfigError as `mix` does."""
    _check(sources, mixture)
    if all(source.weight is None for source in sources) and not any(source.min_share for source in sources):
        return _fair([_capped(source) for source in sources], mixture.max_rows)
    weights = [1.0 if source.weight is None else source.weight for source in sources]
    most = [
        min(math.floor(mixture.max_repeats * len(source.rows)), source.cap if source.cap is not None else 10**12)
        if weight > 0
        else 0
        for source, weight in zip(sources, weights, strict=True)
    ]
    wanted = mixture.max_rows or sum(_capped(s) for s, weight in zip(sources, weights, strict=True) if weight > 0)
    for source, bound in zip(sources, most, strict=True):
        if source.min_share > 0:
            wanted = min(wanted, math.floor(bound / source.min_share + 1e-9))
    wanted = min(wanted, sum(most))
    least = [min(bound, math.ceil(s.min_share * wanted - 1e-9)) for s, bound in zip(sources, most, strict=True)]
    if sum(least) > wanted:  # by the rounding up of each
        wanted = sum(least)
    return _filled(weights, least, most, wanted)


def _check(sources: Sequence[Source], mixture: Mixture) -> None:
    given = [source.weight is not None for source in sources]
    if any(given) and not all(given):
        without = ", ".join(source.name for source in sources if source.weight is None)
        raise ConfigError(f"give every source of a mixture a weight, or none: {without} lack one.")
    for source in sources:
        if source.weight is not None and not (math.isfinite(source.weight) and source.weight >= 0):
            raise ConfigError(f"the weight of {source.name} must be 0 or more; {source.weight} was given.")
        if source.cap is not None and source.cap < 0:
            raise ConfigError(f"the cap of {source.name} must be 0 or more; {source.cap} was given.")
        if not 0 <= source.min_share <= 1:
            raise ConfigError(f"the least share of {source.name} must be from 0 to 1; {source.min_share} was given.")
        if source.min_share and (source.weight == 0 or not source.rows or source.cap == 0):
            raise ConfigError(f"{source.name} has a least share of {source.min_share} but nothing to fill it with.")
    if len({source.name for source in sources}) != len(sources):
        raise ConfigError("two sources of a mixture have the same name.")
    if sum(source.min_share for source in sources) > 1 + 1e-9:
        raise ConfigError("the least shares of a mixture add up to more than 1.")
    if mixture.max_repeats < 1:
        raise ConfigError(f"max_repeats must be at least 1; {mixture.max_repeats} was given.")
    if mixture.max_rows is not None and mixture.max_rows < 1:
        raise ConfigError(f"max_rows must be at least 1; {mixture.max_rows} was given.")


def _capped(source: Source) -> int:
    return len(source.rows) if source.cap is None else min(source.cap, len(source.rows))


def _fair(available: Sequence[int], max_rows: int | None) -> list[int]:
    """Equal shares; a source that has fewer rows than its share leaves the rest to the others."""
    if max_rows is None:
        return list(available)
    counts = [0] * len(available)
    left, waiting = max_rows, sorted(range(len(available)), key=lambda i: available[i])
    while waiting:
        i = waiting.pop(0)
        counts[i] = min(available[i], left // (len(waiting) + 1))
        left -= counts[i]
    return counts


def _filled(weights: Sequence[float], least: Sequence[int], most: Sequence[int], wanted: int) -> list[int]:
    """Rows in proportion to the weights, each within its bounds, `wanted` in all where the bounds allow it."""

    def at(level: float) -> list[float]:
        return [min(high, max(low, level * w)) for w, low, high in zip(weights, least, most, strict=True)]

    low, high = 0.0, max((bound / w for bound, w in zip(most, weights, strict=True) if w > 0), default=0.0)
    for _ in range(100):  # bisection: the sum grows with the level
        middle = (low + high) / 2
        low, high = (middle, high) if sum(at(middle)) < wanted else (low, middle)
    exact = at(high)
    counts = [math.floor(value + 1e-9) for value in exact]
    order = sorted(range(len(exact)), key=lambda i: (counts[i] - exact[i], i))
    for i in order:  # the largest remainders first
        if sum(counts) < wanted and counts[i] < most[i]:
            counts[i] += 1
    return counts


def _drawn(source: Source, count: int, seed: int) -> list[Row]:
    """`count` rows: whole epochs, each after the first in an order of its own, and a sample for what is left."""
    rows = list(source.rows)
    drawn = rows[:count]
    epoch = 1
    while len(drawn) < count:
        random.Random(f"{seed} {source.name} epoch {epoch}").shuffle(rows)
        drawn += rows[: count - len(drawn)]
        epoch += 1
    return drawn


def _by_difficulty(placed: list[tuple[float, int, Row]]) -> list[tuple[float, int, Row]]:
    """What the student answers first; a row that was not measured counts as one of middling difficulty."""
    rates = sorted(row.pass_rate for *_, row in placed if row.pass_rate is not None)
    if not rates:
        raise ConfigError(
            "order `difficulty` needs rows with a `pass_rate` column, and no row has one. Measure it (`crew data "
            "synthesize` does), or take order `length`."
        )
    middle = rates[len(rates) // 2]
    return sorted(placed, key=lambda place: -(middle if place[2].pass_rate is None else place[2].pass_rate))
