"""The coordinator playbook's reading of a brief: what has been done, what is tried, what still fits the budget."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from posttrain_crew.files import canonical_json

__all__ = ["Idea", "Position"]

MAX_REFUSALS = 3
"""Times that a tool may refuse the same order (no free slot, say) before it counts as tried."""


@dataclass(frozen=True)
class Idea:
    """An experiment that could be run next."""

    method: str
    training_set: str
    parent: str
    hypothesis: str
    changes: dict[str, Any] = field(default_factory=dict)
    purpose: str = "candidate"
    ablates: str | None = None
    remedies: str | None = None
    """The experiment whose diagnosis it follows."""
    recipe: str | None = None
    cost_factor: float = 1.0
    """Time relative to the method's usual job."""

    @property
    def key(self) -> str:
        """Two ideas with one key would be the same training."""
        return canonical_json([self.method, self.training_set, self.parent, self.changes])

    def parameters(self) -> dict[str, Any]:
        """As a trainer order carries it."""
        return {
            "method": self.method,
            "training_set": self.training_set,
            "parent": self.parent,
            "changes": self.changes,
            "purpose": self.purpose,
            "ablates": self.ablates,
            "recipe": self.recipe,
            "hypothesis": self.hypothesis,
        }


class Position:
    """Questions about a brief (crews/brief.py says what is in it)."""

    def __init__(self, brief: dict[str, Any]) -> None:
        self.brief = brief
        self.experiments: list[dict[str, Any]] = brief["experiments"]
        self.by_id = {experiment["id"]: experiment for experiment in self.experiments}
        self.best: str = brief["best"]["subject"]
        self.recipes: list[dict[str, Any]] = sorted(brief["recipes"], key=lambda recipe: -recipe["prior"])

    @cached_property
    def needs(self) -> list[str]:
        """What the base lacks, in the vocabulary of the literature tools, read from its baseline scores."""
        base = self.brief["baseline"]
        needs = []
        if base["format_valid_rate"] < 0.8 or base["lenient_score"] - base["score"] > 0.05:
            needs.append("format")
        chance = 1 / max(2, len(self.brief["target"]["answer"]["labels"] or "ABCD"))
        if base["lenient_score"] < 0.9:
            needs.append("reasoning")
        if base["lenient_score"] < chance + 0.1:
            needs.append("knowledge")
        if any(profile["verdict"] == "usable_after_cleaning" for profile in self.brief["profiles"]):
            needs.append("noisy-data")
        return needs

    def orders_to(self, specialist: str) -> list[dict[str, Any]]:
        """All orders sent to a specialist."""
        return [order for order in self.brief["orders"] if order["specialist"] == specialist]

    def failed_twice(self, specialist: str) -> bool:
        """Whether the specialist's last two orders failed: sending a third would change nothing."""
        last = self.orders_to(specialist)[-2:]
        return len(last) == 2 and all(order["done"] and order["ok"] is False for order in last)

    def asked(self, specialist: str) -> list[dict[str, Any]]:
        """The parameters of orders that led to something: not those that failed, nor those refused only once."""
        refused: dict[str, int] = {}
        found = []
        for order in self.orders_to(specialist):
            result = order.get("result") or {}
            started = result.get("job") or result.get("experiment") or "job" not in result
            key = canonical_json(order["parameters"])
            refused[key] = refused.get(key, 0) + (not started)
            if order["ok"] is not False and (started or refused[key] >= MAX_REFUSALS):
                found.append(order["parameters"])
        return found

    @cached_property
    def tried(self) -> set[str]:
        """Keys of the ideas that the trainer was sent already."""
        keys = set()
        for p in self.asked("trainer"):
            keys.add(canonical_json([p.get("method"), p.get("training_set"), p.get("parent"), p.get("changes") or {}]))
        return keys

    def sets(self, method: str, *styles: str) -> list[dict[str, Any]]:
        """Training sets for a method, of the given styles if any are given."""
        return [
            s for s in self.brief["training_sets"] if s["method"] == method and (not styles or s["style"] in styles)
        ]

    def recipe_for(self, method: str, style: str | None = None) -> str | None:
        """Id of the best ranked recipe for a method and data style."""
        for recipe in self.recipes:
            if recipe["method"] == method and (style is None or recipe["data_style"] in (style, "any")):
                return str(recipe["id"])
        return next((str(recipe["id"]) for recipe in self.recipes if recipe["method"] == method), None)

    def changes_of(self, subject: str) -> dict[str, Any]:
        """What the order of an experiment changed against the target's starting point."""
        for order in self.orders_to("trainer"):
            if (order.get("result") or {}).get("experiment") == subject:
                return dict(order["parameters"].get("changes") or {})
        return {}

    def chain(self, subject: str) -> list[dict[str, Any]]:
        """An experiment and its ancestors, youngest first; empty for the base."""
        found = []
        while subject in self.by_id:
            found.append(self.by_id[subject])
            subject = self.by_id[subject]["parent"]
        return found

    def supervised(self, subject: str) -> str | None:
        """The nearest experiment of a chain that was supervised: where preference pairs start from."""
        return next((str(node["id"]) for node in self.chain(subject) if node["method"] == "sft"), None)

    def prior(self, recipe: str | None) -> float:
        """How promising the literature holds a recipe to be, 0-1; 0 for none."""
        return next((float(each["prior"]) for each in self.recipes if each["id"] == recipe), 0.0)

    @property
    def widened(self) -> bool:
        """Whether the literature was asked what helps on a plateau."""
        return any("plateau" in order["parameters"].get("needs", []) for order in self.orders_to("literature"))

    @property
    def undecided(self) -> list[dict[str, Any]]:
        """Candidates that are still under way."""
        return [e for e in self.experiments if e["decision"] is None and e["purpose"] != "ablation"]

    @property
    def stagnation(self) -> int:
        """Candidates decided since the last promotion."""
        count = 0
        for experiment in reversed(self.experiments):
            if experiment["decision"] == "promote":
                break
            count += experiment["purpose"] != "ablation" and experiment["decision"] not in (None, "abandon")
        return count

    @property
    def ablated(self) -> bool:
        """Whether a part of the best's history has been left out in some experiment."""
        ancestry = {experiment["id"] for experiment in self.chain(self.best)}
        return any(e["ablates"] in ancestry for e in self.experiments)

    def seconds(self, idea: Idea) -> float:
        """Training and evaluating it, seconds of wall time, as the brief expects it for the idea's data."""
        typical = self.brief["budget"]["typical_seconds"]
        of_set = next(
            (s.get("train_seconds") for s in self.brief["training_sets"] if s["id"] == idea.training_set), None
        )
        training = float(of_set or typical.get(idea.method, 120.0))
        return training * idea.cost_factor + float(typical.get("evaluation", 60.0))

    def affordable(self, idea: Idea) -> bool:
        """Whether the idea fits the time left for experiments."""
        return self.seconds(idea) <= float(self.brief["budget"]["for_experiments_s"])
