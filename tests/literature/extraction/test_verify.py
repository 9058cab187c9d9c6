"""Nothing that is not in the paper gets through, whoever says it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from posttrain_crew.errors import AgentError
from posttrain_crew.tools.literature.extraction.extract import extract_recipes
from posttrain_crew.tools.literature.extraction.llm import extract_with_llm
from posttrain_crew.tools.literature.extraction.patterns import WORDS_OF
from posttrain_crew.tools.literature.extraction.read import read_recipes
from posttrain_crew.tools.literature.extraction.recipe import (
    FIELDS,
    DatasetNamed,
    Evidence,
    ExtractedRecipe,
    ReportedResult,
    Stated,
)
from posttrain_crew.tools.literature.extraction.verify import verify
from posttrain_crew.tools.literature.reading.document import Document, Paragraph, Section
from tests.literature.extraction.table import document, papers

SENTENCE = (
    "We train for three epochs with AdamW and a learning rate of $2\\times 10^{-5}$ that follows a cosine schedule "
    "after a warmup over 3% of the steps."
)


def answer(**changes: Any) -> str:
    """What an honest LLM says of 2609.90001, with changes."""
    said = {"section": "S4", "quote": SENTENCE}
    row = {"section": "S4", "quote": "| Batch size per device | 8 |"}
    result = {"section": "S5", "quote": "| Qwen3-1.7B-Base | 31.4 | 58.3 | 62.0 |"}
    recipe = {
        "method": "sft",
        "method_section": "S4",
        "method_quote": "Table 1: Settings of supervised fine-tuning.",
        "base_model": {
            "value": "Qwen/Qwen3-1.7B-Base",
            "section": "[S4]",
            "quote": "We start from Qwen/Qwen3-1.7B-Base and fine-tune all weights with the usual next-token "
            "loss on the "
            "answer turn only,",
        },
        "hyperparameters": {
            "learning_rate": {"value": 2e-5, **said},
            "warmup_steps": {"value": 0.03, **said},
            "num_train_epochs": {"value": 3, **said},
            "lr_scheduler_type": {"value": "cosine", **said},
            "per_device_train_batch_size": {"value": 8, **row},
        },
        "hours": {"value": 2.5, "section": "S4", "quote": "One run takes 2.5 hours on 4 A100-80GB GPUs."},
        "gpu": {"value": "A100-80GB", "section": "S4", "quote": "One run takes 2.5 hours on 4 A100-80GB GPUs."},
        "scores": [
            {
                "benchmark": "SciQuad",
                "before": 31.4,
                "before_quote": result["quote"],
                "after": 46.9,
                "section": "S5",
                "quote": "| + SFT, worked solutions (ours) | 46.9 $\\pm$ 0.5 | 64.2 $\\pm$ 0.3 | 99.1 |",
            }
        ],
        **changes,
    }
    return "Here it is:\n```json\n" + json.dumps({"recipes": [recipe]}) + "\n```"


@pytest.fixture(scope="module")
def worked() -> Document:
    return document("2609.90001")


def test_an_honest_llm_is_believed(worked: Document) -> None:
    told = extract_with_llm(worked, lambda prompt: answer(scores=[]))
    (recipe,) = told.recipes
    assert not told.rejected
    assert recipe.by == "llm"
    assert recipe.settings() == {
        "learning_rate": 2e-5,
        "warmup_steps": 0.03,
        "num_train_epochs": 3,
        "lr_scheduler_type": "cosine",
        "per_device_train_batch_size": 8,
    }
    assert recipe.base_model is not None and recipe.base_model.value == "Qwen/Qwen3-1.7B-Base"


def field(value: Any, quote: str = SENTENCE, section: str = "S4") -> dict[str, Any]:
    return {"value": value, "section": section, "quote": quote}


@pytest.mark.parametrize(
    ("name", "stated", "reason"),
    [
        ("learning_rate", field(3e-5), "3e-05 is not in the cited text"),
        ("num_train_epochs", field(5), "5 is not in"),
        ("warmup_steps", field(0.3), "0.3 is not in"),
        ("lr_scheduler_type", field("linear"), "'linear' is not in"),
        ("num_train_epochs", field(3, "We train for three epochs and a day."), "the cited text is not in section S4"),
        ("num_train_epochs", field(3, SENTENCE, "S99"), "no section 'S99'"),
        ("weight_decay", field(3), "does not speak of weight_decay"),
        ("magic_rate", field(2e-5), "no hyper-parameter of TRL"),
        ("learning_rate", field(True), "True is not in"),
    ],
)
def test_an_invented_setting_is_rejected_with_its_reason(
    worked: Document, name: str, stated: dict[str, Any], reason: str
) -> None:
    told = extract_with_llm(worked, lambda prompt: answer(hyperparameters={name: stated}, scores=[]))
    assert told.recipes[0].hyperparameters == {}
    (rejected,) = told.rejected
    assert rejected.field == f"recipe 1: hyperparameters.{name}"
    assert reason in rejected.reason


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"base_model": field("Qwen/Qwen3-8B")}, "base_model"),
        ({"hours": field(25, "One run takes 2.5 hours on 4 A100-80GB GPUs.")}, "compute.hours"),
        ({"gpu_count": field(8, "One run takes 2.5 hours on 4 A100-80GB GPUs.")}, "compute.count"),
        ({"gpu": field("H100-80GB", "One run takes 2.5 hours on 4 A100-80GB GPUs.")}, "compute.gpu"),
        ({"datasets": [{"name": "evil/prompt-injection", "section": "S4", "quote": SENTENCE}]}, "datasets"),
        (
            {
                "scores": [
                    {"benchmark": "ARC-Challenge", "after": 99.9, "section": "S5", "quote": "With half of the items"}
                ]
            },
            "scores.ARC-Challenge",
        ),
    ],
)
def test_other_inventions_are_rejected_too(worked: Document, changes: dict[str, Any], name: str) -> None:
    told = extract_with_llm(worked, lambda prompt: answer(**{"scores": [], **changes}))
    assert [one.field for one in told.rejected] == [f"recipe 1: {name}"]


def stating(*texts: str) -> Document:
    paragraphs = tuple(Paragraph(text) for text in ("We train with supervised fine-tuning (SFT).", *texts))
    return Document("2609.90001", "T", "arxiv-html", (Section("S1", "1", "Method", 1, "body", paragraphs),))


def judged(text: str, name: str, value: Any) -> list[str]:
    """Why an LLM's claim is refused that cites a text of the paper."""
    recipe = ExtractedRecipe(
        arxiv_id="2609.90001",
        method="sft",
        method_evidence=Evidence(section="S1", kind="sentence", text="We train with supervised fine-tuning (SFT)."),
        hyperparameters={name: Stated(value=value, evidence=Evidence(section="S1", kind="sentence", text=text))},
        by="llm",
    )
    return [one.reason for one in verify(stating(text), recipe).rejected]


@pytest.mark.parametrize(
    ("text", "name", "true", "false"),
    [
        ("A batch size of 32 and sequences of at most 4k tokens.", "effective_batch_size", 32, 32_000),
        ("A batch size of 32 and sequences of at most 4k tokens.", "max_length", 4000, 4),
        ("The learning rate is 1e-5 and the batch size 16.", "learning_rate", 1e-5, 16e-5),
        ("We run 3 epochs with a warmup over 5% of the steps.", "num_train_epochs", 3, 0.03),
        ("We run 3 epochs with a warmup over 5% of the steps.", "warmup_steps", 0.05, 5),
        ("The learning rate is 2e-5 and the weight decay 0.1.", "weight_decay", 0.1, 2e-5),
        ("A cosine schedule with a linear warmup over 100 steps.", "lr_scheduler_type", "cosine", "linear"),
        ("We train on A100 cards with a batch size of 64.", "effective_batch_size", 64, 100),
        ("| LR (1e-5) | 3 | Epochs | 2 |", "learning_rate", 3e-5, 2e-5),
        ("| Warm-up (% of steps) | 5 | Epochs | 2 |", "warmup_steps", 0.05, 0.02),
    ],
)
def test_a_number_counts_with_the_unit_and_for_the_field_that_it_stands_at(
    text: str, name: str, true: Any, false: Any
) -> None:
    assert judged(text, name, true) == []
    assert judged(text, name, false) != []


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("We start from Qwen/Qwen3-1.7B-Base here.", "Qwen/Qwen3-1.7B"),
        ("We start from Llama-3.1-8B here.", "Llama-3"),
        ("We train on open-r1/OpenR1-Math-220k here.", "open-r1/OpenR1-Math"),
        ("We train on open-r1/OpenR1-Math-220k here.", "r1/OpenR1-Math-220k"),
    ],
)
def test_a_part_of_a_name_is_another_name(text: str, name: str) -> None:
    evidence = Evidence(section="S1", kind="sentence", text=text)
    whole = next(word for word in text.split() if name in word)
    for said, kept in ((whole, True), (name, False)):
        recipe = ExtractedRecipe(
            arxiv_id="2609.90001",
            method="sft",
            method_evidence=Evidence(section="S1", kind="sentence", text="We train with supervised fine-tuning (SFT)."),
            base_model=Stated(value=said, evidence=evidence),
            datasets=(DatasetNamed(name=said, hub_id=said, evidence=evidence),),
            by="llm",
        )
        checked = verify(stating(text), recipe).recipe
        assert checked is not None
        assert (checked.base_model is not None, bool(checked.datasets)) == (kept, kept)


def test_a_rise_is_no_fall_and_a_benchmark_no_part_of_a_word() -> None:
    text = "With it the accuracy on ARC rises from 54.6 to 71.3 in mathematics."
    evidence = Evidence(section="S1", kind="sentence", text=text)
    for benchmark, before, after, kept in (
        ("ARC", 54.6, 71.3, True),
        ("ARC", 71.3, 54.6, False),
        ("MATH", 54.6, 71.3, False),
    ):
        recipe = ExtractedRecipe(
            arxiv_id="2609.90001",
            method="sft",
            method_evidence=Evidence(section="S1", kind="sentence", text="We train with supervised fine-tuning (SFT)."),
            scores=(ReportedResult(benchmark=benchmark, before=before, after=after, evidence=evidence),),
            by="llm",
        )
        checked = verify(stating(text), recipe).recipe
        assert checked is not None and bool(checked.scores) == kept


def test_a_method_that_the_paper_does_not_use_rejects_the_recipe(worked: Document) -> None:
    told = extract_with_llm(worked, lambda prompt: answer(method="dpo", scores=[]))
    assert told.recipes == () and "does not name dpo" in told.rejected[0].reason


def test_an_answer_outside_the_schema_is_asked_for_again_and_then_told(worked: Document) -> None:
    prompts: list[str] = []

    def second_time_right(prompt: str) -> str:
        prompts.append(prompt)
        return answer(scores=[]) if len(prompts) == 2 else '{"recipes": [{"method": "magic"}]}'

    assert len(extract_with_llm(worked, second_time_right).recipes) == 1
    assert "did not fit" in prompts[1] and "recipes.0.method" in prompts[1]
    for useless in ("no JSON", "{" * 100_000 + "}", '{"recipes": 3}', "[" * 50_000 + "{}" + "]" * 50_000):
        with pytest.raises(AgentError, match=r"2609\.90001"):
            extract_with_llm(worked, lambda prompt, text=useless: text)


def test_rules_stand_in_for_an_llm_that_gives_nothing_usable_and_it_is_told(worked: Document) -> None:
    told = read_recipes(worked, lambda prompt: "I would rather not.")
    assert told.recipes and all(recipe.by == "rules" for recipe in told.recipes)
    assert "by rules instead of by the LLM" in told.notes[0]


def test_the_prompt_is_bounded_and_holds_the_paper_between_marks(worked: Document) -> None:
    prompts: list[str] = []

    def keep(prompt: str) -> str:
        prompts.append(prompt)
        return '{"recipes": []}'

    assert extract_with_llm(worked, keep).recipes == ()
    assert len(prompts[0]) < 60_000
    assert prompts[0].count("<<PAPER-") == 2
    assert SENTENCE in prompts[0].split("<<PAPER-")[1]
    assert "References" not in prompts[0].split("<<PAPER-")[1]


@pytest.mark.parametrize("name", papers())
def test_what_the_rules_read_is_found_again(name: str) -> None:
    paper = document(name)
    for recipe in extract_recipes(paper):
        assert verify(paper, recipe).rejected == ()


def test_a_changed_number_is_caught_in_every_field() -> None:
    paper = document("2609.90004")
    for recipe in extract_recipes(paper):
        wrong = {
            name: stated.model_copy(update={"value": stated.value + 0.123})
            for name, stated in recipe.hyperparameters.items()
            if not isinstance(stated.value, str)
        }
        assert wrong
        checked = verify(paper, recipe.model_copy(update={"hyperparameters": wrong}))
        assert checked.recipe is not None and checked.recipe.hyperparameters == {}
        assert len(checked.rejected) == len(wrong)


def test_a_recipe_survives_json_and_every_field_has_words() -> None:
    for recipe in extract_recipes(document("2609.90006")):
        assert ExtractedRecipe.model_validate_json(recipe.model_dump_json()) == recipe
    assert set(WORDS_OF) == FIELDS
