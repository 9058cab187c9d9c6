"""The many ways in which papers write a number down."""

from __future__ import annotations

import pytest

from posttrain_crew.tools.literature.extraction.mentions import benchmark_in, hub_ids, is_model, machine, models_in
from posttrain_crew.tools.literature.extraction.patterns import read_cell, read_prose
from posttrain_crew.tools.literature.reading.plain import plain, sentences


@pytest.mark.parametrize(
    ("text", "flat"),
    [
        ("$2\\times10^{-5}$", "2e-5"),
        ("$3\\cdot 10^{-6}$", "3e-6"),
        ("$10^{-4}$", "1e-4"),
        ("1E-5", "1e-5"),
        ("1,024 tokens", "1024 tokens"),
        ("$\\mathbf{72.4\\pm 0.7}$", "72.4±0.7"),
        ("$\\epsilon_{\\mathrm{high}}=0.28$", "ε_high=0.28"),
        ("three epochs", "3 epochs"),
        ("10,000 items of 1, 2 and 3", "10000 items of 1, 2 and 3"),
    ],
)
def test_tex_becomes_text(text: str, flat: str) -> None:
    assert plain(text) == flat


@pytest.mark.parametrize(
    ("sentence", "settings"),
    [
        ("a batch size of 128 (8 per device $\\times$ 16 accumulation steps)", {"effective_batch_size": 128,
         "per_device_train_batch_size": 8, "gradient_accumulation_steps": 16}),
        ("We use LoRA with rank 16 and alpha of 32.", {"lora_r": 16, "lora_alpha": 32}),
        ("a peak learning rate of 1e-4 with 100 warmup steps and linear decay", {"learning_rate": 1e-4,
         "warmup_steps": 100, "lr_scheduler_type": "linear"}),
        ("16 rollouts per prompt with a maximum response length of 4k tokens", {"num_generations": 16,
         "max_completion_length": 4000}),
        ("a cosine schedule with a linear warmup over 100 steps", {"lr_scheduler_type": "cosine",
         "warmup_steps": 100}),
        ("The learning rates 1e-6, 5e-6 and 1e-5 were tried.", {}),
        ("a KL coefficient of 0.04 and clipping range 0.2 for "
         "500 steps", {"beta": 0.04, "epsilon": 0.2, "max_steps": 500}),
        ("In 2024 we had 3 GPUs and 8 ideas of rank.", {}),
    ],
)  # fmt: skip
def test_settings_of_a_sentence(sentence: str, settings: dict[str, object]) -> None:
    assert {one.field: one.value for one in read_prose(plain(sentence))} == settings


@pytest.mark.parametrize(
    ("label", "cell", "settings"),
    [
        ("Learning rate (×1e-6)", "5", {"learning_rate": 5e-6}),
        ("Max new tokens (k)", "4", {"max_completion_length": 4000}),
        ("Warm-up (%)", "5", {"warmup_steps": 0.05}),
        ("Warmup ratio", "0.03", {"warmup_steps": 0.03}),
        ("Warmup steps", "10", {"warmup_steps": 10}),
        ("Adam β_1, β_2", "0.9, 0.99", {"adam_beta1": 0.9, "adam_beta2": 0.99}),
        ("Learning rate", "{1e-6, 3e-6}", {}),
        ("Learning rate", "--", {}),
        ("Learning rate", "5", {}),
        ("Epochs", "2.5", {"num_train_epochs": 2.5}),
        ("Accuracy", "71.0", {}),
    ],
)
def test_settings_of_a_cell(label: str, cell: str, settings: dict[str, object]) -> None:
    assert {one.field: one.value for one in read_cell(plain(label).lower(), plain(cell))} == settings


@pytest.mark.parametrize(
    ("sentence", "read"),
    [
        ("We train on 8$\\times$H100-80GB for 9 hours.", ("H100-80GB", 8, 9.0)),
        ("8xA100-80GB for 6 hours", ("A100-80GB", 8, 6.0)),
        ("Training took 90 minutes on a single RTX 4090.", ("RTX 4090", 1, 1.5)),
        ("Both stages together took 3 hours on two A6000 GPUs.", ("A6000", 2, None)),
        ("The budget was 40 GPU hours on A100 (80GB).", ("A100-80GB", None, None)),
        ("It ran for two days on 4 L40S GPUs.", ("L40S", 4, 48.0)),
    ],
)
def test_machines(sentence: str, read: tuple[str | None, int | None, float | None]) -> None:
    found = machine(plain(sentence))
    assert found is not None
    assert (found.gpu, found.count, found.hours) == read


def test_ids_and_names() -> None:
    text = "We start from Qwen/Qwen2.5-3B and/or Llama-3.2-1B on openai/gsm8k (input/output, https://x.org/a/b, 3/4)."
    assert hub_ids(text) == ["Qwen/Qwen2.5-3B", "openai/gsm8k"]
    assert models_in(text) == ["Qwen/Qwen2.5-3B", "Llama-3.2-1B"]
    assert is_model("Qwen/Qwen2.5-3B") and is_model("acme/tiny-1.5b-chat") and not is_model("openai/gsm8k")
    assert benchmark_in("on GPQA Diamond") == "GPQA Diamond" and benchmark_in("Memory (GB)") is None


def test_sentences_end_where_they_end() -> None:
    assert sentences(
        "As Wei et al. show, e.g. in Fig. 3, it works. We use max. 3 steps (see Sec. 2). It is 0.5 here."
    ) == [
        "As Wei et al. show, e.g. in Fig. 3, it works.",
        "We use max. 3 steps (see Sec. 2).",
        "It is 0.5 here.",
    ]
