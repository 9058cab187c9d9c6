"""How well recipes are read from the fixture papers: precision and recall of fields, by paper and all together.

A field is one of: method, base model, each dataset, each hyper-parameter, GPU, GPU count, hours, each score (before
and after
count as two). Recipes are paired with the true ones so that most fields agree; what is paired with nothing is all
wrong.

    python -m tests.literature.extraction.table [--wrong] [2609.90001 ...]
"""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from posttrain_crew.tools.literature.extraction.mentions import model_key
from posttrain_crew.tools.literature.extraction.read import read_recipes
from posttrain_crew.tools.literature.extraction.recipe import ExtractedRecipe
from posttrain_crew.tools.literature.reading.document import Document
from posttrain_crew.tools.literature.reading.html import parse_html

PAPERS = Path(__file__).parents[2] / "loopback" / "papers"
BLIND_PAPERS = Path(__file__).parent / "blind"
"""Written, with their gold, by one who had not read the rules; the rules were widened on them after the first figure.
The loopback world does not serve them; `tests/loopback/papers/render.py` with the full path of a folder renders one."""
BLIND_2 = ("2611.92001", "2611.92002", "2611.92003", "2611.92004")
"""A second such set, by another writer, on which nothing was tuned: the figure to expect of other people's papers."""
HELD_BACK = ("2609.90010", "2609.90011", "2609.90012")
"""Written before the rules and not looked at while they were made; their figure stands apart."""

Fields = set[tuple[str, str]]


@dataclass
class Count:
    """Fields right, wrong and missed."""

    right: int = 0
    wrong: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)

    def __add__(self, other: Count) -> Count:
        return Count(self.right + other.right, self.wrong + other.wrong, self.missed + other.missed)

    @property
    def precision(self) -> float:
        return self.right / max(self.right + len(self.wrong), 1)

    @property
    def recall(self) -> float:
        return self.right / max(self.right + len(self.missed), 1)


def papers() -> list[str]:
    return sorted(path.parent.name for path in PAPERS.glob("*/gold.yaml"))


def blind_papers() -> list[str]:
    return sorted(path.parent.name for path in BLIND_PAPERS.glob("*/gold.yaml") if path.parent.name not in BLIND_2)


def _folder(name: str) -> Path:
    blind = BLIND_PAPERS / name
    return blind if blind.is_dir() else PAPERS / name


def document(name: str) -> Document:
    return parse_html((_folder(name) / "paper.html").read_bytes(), name)


def gold(name: str) -> list[Fields]:
    rows = yaml.safe_load((_folder(name) / "gold.yaml").read_text(encoding="utf-8"))["recipes"]
    return [_true_fields(row) for row in rows]


def _true_fields(row: dict[str, Any]) -> Fields:
    fields = {("method", row["method"]), ("base_model", model_key(row["base_model"]))}
    fields |= {("dataset", _dataset(name)) for name in row["datasets"]}
    fields |= {(name, _value(value)) for name, value in row["hyperparameters"].items()}
    fields |= {(f"compute.{name}", _value(value)) for name, value in row["compute"].items()}
    for score in row["scores"]:
        for side in ("before", "after"):
            if side in score:
                fields.add((f"{score['benchmark']}.{side}", _value(score[side])))
    return fields


def read_fields(recipe: ExtractedRecipe) -> Fields:
    fields: Fields = {("method", recipe.method)}
    if recipe.base_model is not None:
        fields.add(("base_model", model_key(str(recipe.base_model.value))))
    fields |= {("dataset", _dataset(one.hub_id or one.name)) for one in recipe.datasets}
    fields |= {(name, _value(stated.value)) for name, stated in recipe.hyperparameters.items()}
    for name in ("gpu", "count", "hours"):
        stated = getattr(recipe.compute, name)
        if stated is not None:
            fields.add((f"compute.{name}", _value(stated.value)))
    for score in recipe.scores:
        fields.add((f"{score.benchmark}.after", _value(score.after)))
        if score.before is not None:
            fields.add((f"{score.benchmark}.before", _value(score.before)))
    return fields


def _value(value: object) -> str:
    return f"{float(value):.4g}" if isinstance(value, int | float) else str(value).lower()


def _dataset(name: str) -> str:
    return re.sub(r"^(?:the|a) ", "", name.lower())


def compare(read: Sequence[Fields], true: Sequence[Fields]) -> Count:
    size = max(len(read), len(true))
    padded = [*true, *([set()] * (size - len(true)))]
    best = max(
        itertools.permutations(range(size)),
        key=lambda order: sum(len(fields & padded[at]) for fields, at in zip(read, order, strict=False)),
    )
    total = Count()
    paired = dict(zip(range(len(read)), best, strict=False))
    for at, fields in enumerate(read):
        mate = padded[paired[at]]
        total += Count(len(fields & mate), [f"{n}={v}" for n, v in sorted(fields - mate)], [])
    for at, mate in enumerate(padded):
        reader = next((read[mine] for mine, theirs in paired.items() if theirs == at), set())
        total += Count(0, [], [f"{n}={v}" for n, v in sorted(mate - reader)])
    return total


def count(names: Iterable[str]) -> dict[str, Count]:
    return {name: compare([read_fields(r) for r in read_recipes(document(name)).recipes], gold(name)) for name in names}


def _share(right: int, other: int) -> str:
    return f"{right / (right + other):9.3f}" if right + other else "        -"


def table(counts: dict[str, Count]) -> str:
    """One line for each paper and group. The blind papers are in no other group, nor in "all"."""
    blind = [name for name in counts if name in blind_papers()]
    blind_2 = [name for name in counts if name in BLIND_2]
    seen = [name for name in counts if name not in blind and name not in blind_2]
    lines = [f"{'paper':14} {'right':>5} {'wrong':>5} {'missed':>6} {'precision':>9} {'recall':>6}"]
    groups = {
        "rules made on": [name for name in seen if name not in HELD_BACK],
        "held back": [name for name in seen if name in HELD_BACK],
        "all": seen,
        "blind": blind,
        "blind 2": blind_2,
    }
    rows = [(name + (" *" if name in HELD_BACK else ""), one) for name, one in counts.items()]
    rows += [(title, sum((counts[name] for name in names), Count())) for title, names in groups.items() if names]
    for title, one in rows:
        lines.append(
            f"{title:14} {one.right:5} {len(one.wrong):5} {len(one.missed):6} "
            f"{_share(one.right, len(one.wrong))} {_share(one.right, len(one.missed))[3:]}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    chosen = [word for word in sys.argv[1:] if not word.startswith("--")] or [*papers(), *blind_papers(), *BLIND_2]
    counted = count(chosen)
    print(table(counted))
    if "--wrong" in sys.argv:
        for paper, one in counted.items():
            print(f"{paper}\n  wrong  {one.wrong}\n  missed {one.missed}")
