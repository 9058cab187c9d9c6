"""Papers from outside support recipe rules as the shipped ones do."""

from __future__ import annotations

import pytest

from posttrain_crew.errors import InputError
from posttrain_crew.tools.literature.extraction.library_paper import as_library_paper
from posttrain_crew.tools.literature.extraction.named_datasets import named_datasets
from posttrain_crew.tools.literature.extraction.read import read_recipes
from posttrain_crew.tools.literature.extraction.techniques import methods_of
from posttrain_crew.tools.literature.recipes import recipe_drafts
from posttrain_crew.tools.literature.services.base import PaperIds, PaperRecord
from tests.literature.extraction.table import document


@pytest.mark.parametrize(
    ("number", "has", "has_not"),
    [
        (90001, {"sft", "chain-of-thought", "small-models"}, {"grpo", "rlvr", "dpo", "lora", "critique"}),
        (90002, {"grpo", "rlvr", "small-models"}, {"sft", "ppo", "reward-model"}),
        (90003, {"sft", "dpo", "preference-data"}, {"grpo", "lora"}),
        (90005, {"sft", "lora"}, {"qlora", "grpo", "small-models"}),
        (90008, {"sft", "data-selection"}, {"lora", "grpo"}),
        (90009, {"grpo", "length-control"}, {"sft", "ppo"}),
        (90012, {"critique"}, set()),
    ],
)
def test_techniques_are_those_that_the_paper_uses(number: int, has: set[str], has_not: set[str]) -> None:
    tags = set(methods_of(document(f"2609.{number}")))
    assert has <= tags
    assert not has_not & tags


def test_a_live_paper_gives_a_recipe_with_its_own_settings() -> None:
    paper = document("2609.90001")
    live = as_library_paper(paper, read_recipes(paper).recipes)
    assert (live.arxiv_id, live.year, live.compute) == ("2609.90001", 2026, "4 x A100-80GB, 2.5 hours")
    draft = recipe_drafts([live], ["reasoning"])[0]
    assert (draft.rule, draft.arxiv_ids, draft.hyperparameters_from) == (
        "sft-worked-solutions",
        ["2609.90001"],
        "2609.90001",
    )
    assert draft.hyperparameters["learning_rate"] == 2e-5
    assert "effective_batch_size" not in draft.hyperparameters
    assert {(score.benchmark, score.before, score.after) for score in draft.reported} == {
        ("SciQuad", 31.4, 46.9),
        ("ARC-Challenge", 58.3, 64.2),
    }


def test_a_critique_is_no_evidence_of_what_it_doubts() -> None:
    papers = [document("2609.90002"), document("2609.90012")]
    live = [as_library_paper(paper, read_recipes(paper).recipes) for paper in papers]
    drafts = recipe_drafts(live, ["reasoning", "format"])
    assert "2609.90002" in {name for draft in drafts for name in draft.arxiv_ids}
    assert "2609.90012" not in {name for draft in drafts for name in draft.arxiv_ids}


def test_a_record_without_full_text_is_tagged_by_its_abstract() -> None:
    record = PaperRecord(
        ids=PaperIds(arxiv="2401.00001"),
        title="Group Relative Policy Optimization with Verifiable Rewards",
        abstract="We train with GRPO. A rule checks the answer and nothing else is needed.",
        authors=("A", "B", "C", "D"),
        sources=("arxiv",),
    )
    live = as_library_paper(record)
    assert live.techniques == ["grpo", "rlvr"]
    assert (live.year, live.authors[-1], live.hyperparameters) == (2024, "et al.", {})


def test_what_no_rule_could_use_is_refused() -> None:
    record = PaperRecord(ids=PaperIds(arxiv="2401.00001"), title="On the colour of swans", sources=("arxiv",))
    with pytest.raises(InputError, match="technique"):
        as_library_paper(record)
    with pytest.raises(InputError, match="no arXiv id"):
        as_library_paper(record.model_copy(update={"ids": PaperIds(doi="10.1/x")}))


def test_scores_beyond_percent_keep_their_unit() -> None:
    paper = document("2609.90008")
    live = as_library_paper(paper, read_recipes(paper).recipes)
    assert {score.benchmark: score.unit for score in live.reported} == {
        "MMLU": "percent",
        "GSM8K": "percent",
        "MT-Bench": "points",
    }


def test_a_dataset_paper_and_a_citation_lead_to_the_data() -> None:
    (named,) = named_datasets(document("2609.90007"))
    assert named.hub_id == "lab-notebook/quanta-steps"
    (cited,) = named_datasets(document("2609.90001"))
    assert (cited.name, cited.arxiv_id) == ("corpus of unit-checked quantities", "2609.90007")
