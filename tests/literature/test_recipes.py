"""Recipes follow from the papers given and the needs asked for, and from nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from posttrain_crew.errors import InputError
from posttrain_crew.tools.literature.library import Library, Paper, ReportedScore
from posttrain_crew.tools.literature.recipes import NEEDS, RecipeDraft, load_rules, recipe_drafts
from posttrain_crew.tools.literature.vocabulary import TRL_FIELDS


@pytest.fixture(scope="module")
def papers() -> list[Paper]:
    return list(Library.load())


def names(drafts: list[RecipeDraft]) -> list[str]:
    return [draft.rule for draft in drafts]


def fake(arxiv_id: str, techniques: list[str], before: float | None = None, after: float = 50.0) -> Paper:
    return Paper(
        arxiv_id=arxiv_id,
        title="A paper on nothing",
        year=2024,
        authors=["A. Author"],
        techniques=techniques,
        reported=[ReportedScore(benchmark="some set", setting="zero-shot", model="m", before=before, after=after)],
        findings=["A finding that is long enough to be one."],
        checked="memory",
    )


def test_worked_solutions_then_verifiable_rewards_then_own_samples(papers: list[Paper]) -> None:
    ranked = names(recipe_drafts(papers, ["format", "reasoning"]))
    assert ranked[:3] == ["sft-worked-solutions", "grpo-verifiable-rewards", "sft-own-correct-samples"]


@pytest.mark.parametrize(
    ("need", "first"),
    [
        ("format", "sft-terse-format"),
        ("reasoning", "sft-worked-solutions"),
        ("knowledge", "sft-synthetic-knowledge"),
        ("noisy-data", "sft-curated-few"),
        ("small-model", "sft-small-student"),
        ("plateau", "grpo-stable-updates"),
    ],
)
def test_each_need_has_its_own_first_recipe(papers: list[Paper], need: str, first: str) -> None:
    drafts = recipe_drafts(papers, [need])
    assert drafts[0].rule == first
    assert all(draft.addresses[0] == need for draft in drafts)


def test_drafts_carry_evidence_numbers_and_usable_settings(papers: list[Paper]) -> None:
    known = {paper.arxiv_id: paper for paper in papers}
    for draft in recipe_drafts(papers, list(NEEDS)):
        assert 0 <= draft.prior <= 1
        assert 1 <= len(draft.arxiv_ids) <= 8 and set(draft.arxiv_ids) <= set(known)
        assert len(draft.reported) <= 6
        assert set(draft.hyperparameters) <= TRL_FIELDS
        if draft.hyperparameters_from is not None:
            assert draft.hyperparameters == known[draft.hyperparameters_from].hyperparameters[draft.method]
        for score in draft.reported:
            assert score.model_dump(exclude={"arxiv_id"}) in [s.model_dump() for s in known[score.arxiv_id].reported]


def test_reinforcement_comes_with_its_settings_and_with_the_papers_that_doubt_it(papers: list[Paper]) -> None:
    drafts = {draft.rule: draft for draft in recipe_drafts(papers, ["reasoning"])}
    grpo = drafts["grpo-verifiable-rewards"]
    assert grpo.hyperparameters["num_generations"] == 64 and grpo.hyperparameters_from == "2402.03300"
    assert {"2504.13837", "2506.10947"} <= set(grpo.cautions)
    assert not set(grpo.cautions) & set(grpo.arxiv_ids)


def test_without_papers_there_is_no_recipe_and_without_needs_all_are_ranked(papers: list[Paper]) -> None:
    assert recipe_drafts([], ["reasoning"]) == []
    everything = recipe_drafts(papers, [])
    assert len(everything) == len(load_rules())
    assert [draft.prior for draft in everything] == sorted((draft.prior for draft in everything), reverse=True)


def test_more_evidence_and_larger_gains_raise_the_prior() -> None:
    worked = ["sft", "chain-of-thought", "distillation"]

    def prior(*papers: Paper) -> float:
        return next(d.prior for d in recipe_drafts(papers, ["reasoning"]) if d.rule == "sft-worked-solutions")

    alone = prior(fake("2401.00001", worked))
    assert prior(fake("2401.00001", worked), fake("2401.00002", worked)) > alone
    assert prior(fake("2401.00001", worked, before=20.0)) > alone
    assert prior(fake("2401.00001", worked, before=80.0)) == alone  # a loss is no gain
    assert alone == pytest.approx(0.5 * 1.0 + 0.3 * 0.25)


def test_a_critique_is_a_caution_and_never_evidence() -> None:
    critique = fake("2401.00001", ["grpo", "rlvr", "critique"])
    assert "grpo-verifiable-rewards" not in names(recipe_drafts([critique], ["reasoning"]))
    both = recipe_drafts([critique, fake("2401.00002", ["grpo", "rlvr"])], ["reasoning"])
    draft = next(d for d in both if d.rule == "grpo-verifiable-rewards")
    assert (draft.arxiv_ids, draft.cautions) == (["2401.00002"], ["2401.00001"])


def test_an_unknown_need_is_refused(papers: list[Paper]) -> None:
    with pytest.raises(InputError, match="reasoning"):
        recipe_drafts(papers, ["reasonning"])


def test_a_broken_rule_table_names_file_and_rule(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(
        "- {rule: x, method: sft, data_style: any, title: t, hypothesis: h, evidence: [[zap]], addresses: {format: 1}}",
        encoding="utf-8",
    )
    with pytest.raises(InputError, match=r"rules\.yaml, rule 1: .*zap"):
        load_rules(path)


def test_the_rules_name_papers_and_needs_that_exist(papers: list[Paper]) -> None:
    known = {paper.arxiv_id for paper in papers}
    for rule in load_rules():
        assert set(rule.settings_from or []) <= known
        assert set(rule.addresses) <= set(NEEDS)
        assert any(rule.supported_by(paper) for paper in papers), f"{rule.rule} has no paper"
