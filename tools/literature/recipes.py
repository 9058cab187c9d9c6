"""From papers to typed, ranked training recipes.

What counts as evidence for which recipe is data, `recipe_rules.yaml`; this module only matches, collects and ranks.

    prior = 0.5 * match + 0.3 * evidence + 0.2 * gain                                     each part in 0..1

    match     mean over the needs asked for of how directly the rule is aimed at each (0 where it is not)
    evidence  n / (n + 3) for n supporting papers: the first ones count most
    gain      median over supporting papers of their best reported share of missing percent points won,
              (after - before) / (100 - before), negative ones as 0; 0 where no paper reports before and after

The prior ranks what to try first. It is no forecast: the papers trained other models on other data.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from statistics import median
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from posttrain_crew.errors import InputError
from posttrain_crew.tools.literature.paper import HyperValue, Paper, ReportedScore
from posttrain_crew.tools.literature.vocabulary import NEEDS, TECHNIQUES, check_word

__all__ = [
    "NEEDS",
    "RULES",
    "CitedScore",
    "DataStyle",
    "Method",
    "RecipeDraft",
    "RecipeRule",
    "load_rules",
    "recipe_drafts",
]

RULES = Path(__file__).parent / "recipe_rules.yaml"

Method = Literal["sft", "grpo", "dpo"]
DataStyle = Literal["worked", "terse", "preference", "verifiable-prompts", "any"]

_MATCH, _EVIDENCE, _GAIN = 0.5, 0.3, 0.2
_HALF_EVIDENCE = 3  # papers at which the evidence part is one half
_MOST_IDS = 8
_MOST_SCORES = 6


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CitedScore(ReportedScore):
    """A reported score with the paper that reports it."""

    arxiv_id: str


class RecipeRule(_Model):
    """One row of recipe_rules.yaml."""

    rule: str
    method: Method
    data_style: DataStyle
    title: str
    hypothesis: str
    evidence: list[list[str]] = Field(min_length=1)
    """Every group must be met by a paper; a group is met by any of its technique tags."""
    unless: list[str] = []
    """Technique tags that keep a paper from being evidence."""
    addresses: dict[str, float]
    """Need -> how directly, 0 to 1."""
    settings_from: list[str] | None = None
    """arXiv ids whose hyperparameters suit the recipe, best first; they count only where they are evidence.
    An empty list takes none; without a list the strongest evidence that states some is taken."""

    @model_validator(mode="after")
    def _known_words(self) -> RecipeRule:
        for tag in [*self.unless, *(tag for group in self.evidence for tag in group)]:
            check_word(tag, TECHNIQUES, f"rule {self.rule}: technique")
        for need, weight in self.addresses.items():
            check_word(need, NEEDS, f"rule {self.rule}: need")
            if not 0 < weight <= 1:
                raise ValueError(f"rule {self.rule}: {need} has weight {weight}, not within 0 to 1")
        return self

    def supported_by(self, paper: Paper) -> bool:
        """Whether the paper is evidence for this recipe."""
        tags = set(paper.techniques)
        return not tags & set(self.unless) and all(tags & set(group) for group in self.evidence)

    def questioned_by(self, paper: Paper) -> bool:
        """Whether the paper finds limits of what this recipe does: on the subject, but ruled out as a critique."""
        tags = set(paper.techniques)
        return "critique" in tags & set(self.unless) and all(tags & set(group) for group in self.evidence)

    def focus(self, paper: Paper) -> float:
        """Share of the paper's techniques that this recipe is about."""
        named = {tag for group in self.evidence for tag in group}
        return len(named & set(paper.techniques)) / len(paper.techniques)


class RecipeDraft(_Model):
    """A recipe to try, with the papers that speak for it and those that warn."""

    rule: str
    """Name of the rule that made it: the same rule gives the same name in every run."""
    method: Method
    title: str
    hypothesis: str
    data_style: DataStyle
    hyperparameters: dict[str, HyperValue]
    """TRL field -> value as one paper states them together; empty where none does."""
    hyperparameters_from: str | None
    """arXiv id of that paper. Values of different papers are never mixed."""
    reported: list[CitedScore]
    arxiv_ids: list[str]
    """Supporting papers, strongest first."""
    cautions: list[str]
    """arXiv ids of papers that found limits of this."""
    addresses: list[str]
    """Needs it is aimed at, those asked for first."""
    prior: float = Field(ge=0, le=1)


def recipe_drafts(papers: Sequence[Paper], needs: Sequence[str]) -> list[RecipeDraft]:
    """Rank the recipes that `papers` support by `needs` (words of NEEDS), best prior first.

    Without needs, all supported recipes are ranked by evidence and reported gains. With needs, recipes aimed at none of
    them are left out. A need outside the vocabulary is an InputError.
    """
    asked = list(dict.fromkeys(check_word(need, NEEDS, "need") for need in needs))
    drafts = [draft for rule in load_rules() if (draft := _draft(rule, papers, asked)) is not None]
    return sorted(drafts, key=lambda draft: (-draft.prior, draft.rule))


@lru_cache
def load_rules(path: Path = RULES) -> tuple[RecipeRule, ...]:
    """The rule table; InputError names file and rule of what is wrong."""
    try:
        rows = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path} is not readable YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(rows, list):
        raise InputError(f"{path} must hold a list of rules, each starting with '- rule: NAME'.")
    rules: list[RecipeRule] = []
    for number, row in enumerate(rows, start=1):
        try:
            rules.append(RecipeRule.model_validate(row))
        except (ValidationError, InputError) as error:
            raise InputError(f"{path}, rule {number}: {' '.join(str(error).split())}") from error
    names = [rule.rule for rule in rules]
    if len(set(names)) != len(names):
        raise InputError(f"{path} has two rules of one name; names must differ.")
    return tuple(rules)


def _draft(rule: RecipeRule, papers: Sequence[Paper], asked: Sequence[str]) -> RecipeDraft | None:
    supporting = sorted(
        (paper for paper in papers if rule.supported_by(paper)), key=lambda paper: _strength(rule, paper)
    )
    aimed_at = [need for need in asked if need in rule.addresses]
    if not supporting or (asked and not aimed_at):
        return None
    stated = _settings(rule, supporting)
    cited = supporting[:_MOST_IDS]
    if stated is not None and stated not in cited:
        cited = [*cited[:-1], stated]  # what a draft says must be found in the papers that it names
    return RecipeDraft(
        rule=rule.rule,
        method=rule.method,
        title=rule.title,
        hypothesis=rule.hypothesis,
        data_style=rule.data_style,
        hyperparameters=dict(stated.hyperparameters[rule.method]) if stated else {},
        hyperparameters_from=stated.arxiv_id if stated else None,
        reported=_scores(cited),
        arxiv_ids=[paper.arxiv_id for paper in cited],
        cautions=[paper.arxiv_id for paper in papers if rule.questioned_by(paper)][:_MOST_IDS],
        addresses=[*aimed_at, *(need for need in rule.addresses if need not in aimed_at)],
        prior=_prior(rule, supporting, asked),
    )


def _prior(rule: RecipeRule, supporting: Sequence[Paper], asked: Sequence[str]) -> float:
    match = sum(rule.addresses.get(need, 0.0) for need in asked) / len(asked) if asked else 0.0
    evidence = len(supporting) / (len(supporting) + _HALF_EVIDENCE)
    gains = [best for paper in supporting if (best := _best_gain(paper)) is not None]
    gain = median(gains) if gains else 0.0
    return round(_MATCH * match + _EVIDENCE * evidence + _GAIN * gain, 4)


def _best_gain(paper: Paper) -> float | None:
    gains = [gain for score in paper.reported if (gain := score.headroom_gain) is not None]
    return max(0.0, *gains) if gains else None


def _strength(rule: RecipeRule, paper: Paper) -> tuple[float, float, int, str]:
    """Larger reported gains first, then papers that are about little else, then the newer, then by id."""
    return (-(_best_gain(paper) or 0.0), -rule.focus(paper), -paper.year, paper.arxiv_id)


def _settings(rule: RecipeRule, supporting: Sequence[Paper]) -> Paper | None:
    """The paper whose hyperparameters the draft takes over."""
    stating = [paper for paper in supporting if rule.method in paper.hyperparameters]
    if rule.settings_from == []:
        return None
    suited = [paper for key in rule.settings_from or [] for paper in stating if paper.arxiv_id == key]
    return next(iter([*suited, *stating]), None)


def _scores(supporting: Sequence[Paper]) -> list[CitedScore]:
    """The most telling number of each paper first, then the others, bounded."""
    rounds: list[tuple[int, int, CitedScore]] = []
    for order, paper in enumerate(supporting):
        ranked = sorted(
            paper.reported, key=lambda score: (-(score.headroom_gain or 0.0), score.benchmark, score.setting)
        )
        for nth, score in enumerate(ranked):
            rounds.append((nth, order, CitedScore(arxiv_id=paper.arxiv_id, **score.model_dump())))
    rounds.sort(key=lambda item: item[:2])
    return [score for _, _, score in rounds[:_MOST_SCORES]]
