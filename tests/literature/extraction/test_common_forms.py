"""The forms in which most papers state their training: a trainer's argument names, verl's table, sentences, stages."""

from __future__ import annotations

from typing import Any

import pytest

from posttrain_crew.tools.literature.extraction.patterns import read_prose
from posttrain_crew.tools.literature.extraction.read import read_recipes
from posttrain_crew.tools.literature.reading.html import parse_html
from posttrain_crew.tools.literature.reading.plain import plain


def table(caption: str, *rows: str) -> str:
    cells = [[f"<td>{cell}</td>" for cell in row.split("|")] for row in rows]
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in cells)
    return f'<figure class="ltx_table"><figcaption>Table 1: {caption}</figcaption><table>{body}</table></figure>'


def page(title: str, abstract: str, heading: str, *blocks: str) -> bytes:
    body = "".join(block if block.startswith("<figure") else f'<p class="ltx_p">{block}</p>' for block in blocks)
    return (
        f'<html><body><article class="ltx_document"><h1 class="ltx_title ltx_title_document">{title}</h1>'
        f'<div class="ltx_abstract"><p class="ltx_p">{abstract}</p></div><section class="ltx_section" id="S1">'
        f'<h2 class="ltx_title ltx_title_section">{heading}</h2>{body}</section></article></body></html>'
    ).encode()


def read(html: bytes) -> dict[str, dict[str, Any]]:
    told = read_recipes(parse_html(html, "2699.00001"))
    assert told.rejected == ()  # what the rules read is in the text
    return {
        recipe.method: {
            **recipe.settings(),
            "model": recipe.base_model and recipe.base_model.value,
            "data": [dataset.name for dataset in recipe.datasets],
            **{name: stated["value"] for name, stated in recipe.compute.model_dump(exclude_none=True).items()},
        }
        for recipe in told.recipes
    }


def test_names_of_arguments_are_read_as_words() -> None:
    found = read(
        page(
            "PolyTutor: Supervised Fine-Tuning for Tutoring", "We fine-tune Llama-3.1-8B on tutoring dialogues.",
            "Hyperparameters", "We fine-tune Llama-3.1-8B with SFT.",
            table("Hyperparameters of supervised fine-tuning.", "Argument|Value", "learning_rate|2e-5",
                  "num_train_epochs|3", "per_device_train_batch_size|4", "gradient_accumulation_steps|8",
                  "max_seq_length|4096", "lr_scheduler_type|cosine", "warmup_ratio|0.03", "weight_decay|0.01",
                  "max_grad_norm|1.0", "bf16|True"),
        )
    )  # fmt: skip
    assert found["sft"] == {
        "learning_rate": 2e-5, "num_train_epochs": 3, "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 8, "max_length": 4096, "lr_scheduler_type": "cosine", "warmup_steps": 0.03,
        "weight_decay": 0.01, "max_grad_norm": 1.0, "model": "Llama-3.1-8B", "data": [],
    }  # fmt: skip


def test_a_table_as_verl_names_things() -> None:
    found = read(
        page(
            "Code Tuning with Group Sampling",
            "We apply GRPO to Qwen2.5-Coder-3B-Instruct with unit tests as the reward.",
            "Settings", "For RL training with GRPO we initialise from Qwen2.5-Coder-3B-Instruct.",
            table("Key hyperparameters.", "Parameter|Value", "Train batch size|256", "PPO mini batch size|64",
                  "Rollouts per prompt (n)|8", "Actor LR|1e-6", "Max response length|3072", "KL coef|0.0",
                  "Clip ratio high|0.28", "Total training steps|200", "Hardware|8×H800"),
        )
    )  # fmt: skip
    assert found["grpo"] == {
        "effective_batch_size": 256, "num_generations": 8, "learning_rate": 1e-6, "max_completion_length": 3072,
        "beta": 0.0, "epsilon_high": 0.28, "max_steps": 200, "model": "Qwen2.5-Coder-3B-Instruct", "data": [],
        "gpu": "H800", "count": 8,
    }  # fmt: skip


def test_one_sentence_with_the_machine_behind_the_batch() -> None:
    found = read(
        page(
            "Concise Reasoners", "We tune Qwen2.5-7B to answer with half the tokens.", "Experiments",
            "We train for 2 epochs with learning rate 1e-5, a batch size of 64 on 8 H100 GPUs. "
            "We perform supervised fine-tuning (SFT) of Qwen2.5-7B on 20K samples from OpenThoughts-114k. "
            "We evaluate on Hard-Questions-10k. Training time: 6h.",
        )
    )  # fmt: skip
    assert found["sft"] == {
        "num_train_epochs": 2, "learning_rate": 1e-5, "effective_batch_size": 64, "model": "Qwen2.5-7B",
        "data": ["OpenThoughts-114k"], "gpu": "H100", "count": 8, "hours": 6.0,
    }  # fmt: skip


def test_what_is_left_out_is_no_variation() -> None:
    found = read(
        page(
            "Long-Horizon RL", "We study GRPO on Qwen2.5-Math-7B.", "Training",
            "Starting from Qwen2.5-Math-7B, we run GRPO for 1 epoch. The actor is optimised with AdamW at a constant "
            "learning rate of 1e-6 and without KL penalty. Trained without our filter at a learning rate of 9e-6, the "
            "reward collapses.",
        )
    )  # fmt: skip
    assert (found["grpo"]["learning_rate"], found["grpo"]["lr_scheduler_type"]) == (1e-6, "constant")


def test_each_stage_has_the_data_that_it_uses() -> None:
    found = read(
        page(
            "Clean Pairs", "We align Mistral-7B-v0.3 with SFT and direct preference optimization.", "Training",
            "We start from Mistral-7B-v0.3; SFT uses UltraChat-200k and DPO uses UltraFeedback.",
            table("Settings of each stage.", "Stage|LR|Epochs|Batch|Max len.|Hardware", "SFT|2e-5|2|64|8192|8×A100",
                  "DPO|5e-7|1|128|4096|16×A100"),
        )
    )  # fmt: skip
    assert (found["sft"]["data"], found["dpo"]["data"]) == (["UltraChat-200k"], ["UltraFeedback"])
    assert (found["sft"]["max_length"], found["dpo"]["max_length"]) == (8192, 4096)


def test_a_set_that_is_only_tested_on_or_has_its_hub_id_elsewhere_is_not_named_twice() -> None:
    found = read(
        page(
            "Maths by Tuning", "We fine-tune Gemma-2-9B with SFT.", "Training",
            "We fine-tune Gemma-2-9B with SFT on OpenR1-Math-220k for 3 epochs at a learning rate of 1e-5. "
            "It is the dataset open-r1/OpenR1-Math-220k, on which we train as it is. We compare with a "
            "model trained on NuminaMath-CoT-860k as a baseline.",
        )
    )  # fmt: skip
    assert found["sft"]["data"] == ["open-r1/OpenR1-Math-220k"]


@pytest.mark.parametrize(
    ("sentence", "wanted"),
    [
        ("We use a batch size of 256 for SFT.", {"effective_batch_size": 256}),
        ("A batch size of 8 on each GPU.", {}),
        ("A batch size of 16 for the reward model.", {}),
        ("We set num_generations=8 and learning_rate=2e-5.", {"num_generations": 8, "learning_rate": 2e-5}),
        ("The maximum number of new tokens is 2,048.", {"max_completion_length": 2048}),
        ("We truncate sequences longer than 4,096 tokens.", {"max_length": 4096}),
        ("We remove sequences longer than 4,096 tokens.", {}),
    ],
)
def test_sentences(sentence: str, wanted: dict[str, object]) -> None:
    read = {one.field: one.value for one in read_prose(plain(sentence)) if one.field != "per_device_train_batch_size"}
    assert read == wanted
