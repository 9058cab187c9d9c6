"""How a paper's layout tells whose a value is: blocks of scores, columns of stages and sizes, roles of models."""

from __future__ import annotations

from typing import Any

import pytest

from posttrain_crew.tools.literature.extraction.labels import legend, models_told
from posttrain_crew.tools.literature.extraction.mentions import hub_ids, models_in
from posttrain_crew.tools.literature.extraction.patterns import read_prose
from posttrain_crew.tools.literature.extraction.read import read_recipes
from posttrain_crew.tools.literature.extraction.recipe import ExtractedRecipe
from posttrain_crew.tools.literature.reading.document import Block, Document, Paragraph, Section, Table
from posttrain_crew.tools.literature.reading.grid import table_of
from posttrain_crew.tools.literature.reading.html import parse_html
from posttrain_crew.tools.literature.reading.plain import plain


def grid(caption: str, *rows: str) -> Table:
    table = table_of("T", caption, [tuple(cell.strip() for cell in row.split("|")) for row in rows])
    assert table is not None
    return table


def paper(title: str, abstract: str, **sections: list[str | Table]) -> Document:
    parts = [Section("abs", "", "Abstract", 1, "abstract", (Paragraph(abstract),))]
    for at, (name, blocks) in enumerate(sections.items(), 1):
        kept: tuple[Block, ...] = tuple(Paragraph(one) if isinstance(one, str) else one for one in blocks)
        parts.append(Section(f"S{at}", str(at), name.replace("_", " "), 1, "body", kept))
    return Document("2609.99999", title, "arxiv-html", tuple(parts))


def read(document: Document) -> dict[tuple[str, str | None], ExtractedRecipe]:
    found = read_recipes(document)
    assert found.rejected == ()  # what the rules read is in the text
    return {(one.method, str(one.base_model.value) if one.base_model else None): one for one in found.recipes}


def scores(recipe: ExtractedRecipe) -> dict[str, tuple[float | None, float]]:
    return {one.benchmark: (one.before, one.after) for one in recipe.scores}


def machine_of(recipe: ExtractedRecipe) -> dict[str, Any]:
    return {name: stated["value"] for name, stated in recipe.compute.model_dump(exclude_none=True).items()}


TWO_SIZES = (
    "We introduce TideRL, a recipe based on GRPO, and train Qwen3-1.7B and Qwen3-8B with it.",
    "We initialize the policy from Qwen/Qwen3-1.7B and Qwen/Qwen3-8B. Each training step uses 128 prompts with "
    "8 rollouts "
    "per prompt. The learning rate is 2e-6. The 1.7B model was trained on 8 A100-80GB for 20 hours, and the 8B "
    "model on 32 "
    "A100-80GB for 41 hours. Generation for filtering used 64 L40S.",
)


def test_rows_are_paired_within_the_block_of_their_model_and_each_model_has_its_recipe() -> None:
    results = grid(
        "Accuracy (%).",
        "Model|AIME 2025|MATH-500",
        "Qwen3-1.7B||",
        "base|10.1|70.2",
        "GRPO|14.0|74.0",
        "TideRL|16.3|77.7",
        "Qwen3-8B||",
        "base|20.1|80.2",
        "GRPO|24.0|84.0",
        "TideRL|27.3|87.7",
        "GPT-4o|9.0|74.0",
    )
    found = read(paper("TideRL: Rewards that Ebb", TWO_SIZES[0], Training=[TWO_SIZES[1]], Results=[results]))
    small, large = found["grpo", "Qwen/Qwen3-1.7B"], found["grpo", "Qwen/Qwen3-8B"]
    assert scores(small) == {"AIME 2025": (10.1, 16.3), "MATH-500": (70.2, 77.7)}
    assert scores(large) == {"AIME 2025": (20.1, 27.3), "MATH-500": (80.2, 87.7)}
    assert machine_of(small) == {"gpu": "A100-80GB", "count": 8, "hours": 20.0}
    assert machine_of(large) == {"gpu": "A100-80GB", "count": 32, "hours": 41.0}
    assert small.settings() == {"effective_batch_size": 128, "num_generations": 8, "learning_rate": 2e-6}


def test_a_row_beside_a_name_that_nothing_explains_is_no_result() -> None:
    def of(last: str) -> dict[str, tuple[float | None, float]]:
        results = grid("Accuracy.", "|MedQA|MMLU", "Qwen3-4B|50.0|60.0", "GRPO|55.0|60.5", f"{last}|58.0|61.0")
        setup = "We train Qwen/Qwen3-4B with GRPO, a learning rate of 1e-6 and 8 rollouts per prompt."
        (recipe,) = read(paper("On rewards", "We study GRPO.", Setup=[setup], Results=[results])).values()
        return scores(recipe)

    assert of("PPO") == {"MedQA": (50.0, 55.0), "MMLU": (60.0, 60.5)}
    assert of("Fnord") == {}  # is it the paper's own, and GRPO the baseline?
    assert of("Fnord (ours)") == {"MedQA": (50.0, 58.0), "MMLU": (60.0, 61.0)}


def test_two_trained_models_with_scores_of_their_own_share_the_settings_of_the_text() -> None:
    results = grid(
        "Results (avg@8).",
        "Model|Stage|AIME24|MATH500",
        "Qwen2.5-7B|Base|5.0|52.0",
        "Qwen2.5-7B|+SFT|12.1|70.2",
        "Qwen2.5-7B|+SFT+RL|18.8|78.1",
        "Qwen2.5-7B|RL only|14.0|74.4",
        "Llama-3.1-8B|Base|0.5|17.0",
        "Llama-3.1-8B|+SFT|3.3|45.1",
        "Llama-3.1-8B|+SFT+RL|6.7|54.0",
    )
    text = "The pipeline is a cold start by SFT and then GRPO. We train Qwen2.5-7B and Llama-3.1-8B."
    sft = "In the SFT stage we train on chains from DeepSeek-R1 (lab/chains) for 3 epochs with a learning rate of 1e-5."
    rl = "In the RL stage we use GRPO with 8 samples per prompt and a learning rate of 1e-6."
    found = read(
        paper("Cold Start", "We use SFT and RL.", Pipeline=[text], Cold_start=[sft], RL=[rl], Results=[results])
    )
    assert {key: scores(one)["AIME24"] for key, one in found.items()} == {
        ("sft", "Qwen2.5-7B"): (5.0, 12.1),
        ("sft", "Llama-3.1-8B"): (0.5, 3.3),
        ("grpo", "Qwen2.5-7B"): (5.0, 18.8),
        ("grpo", "Llama-3.1-8B"): (0.5, 6.7),
    }
    assert found["sft", "Llama-3.1-8B"].settings() == {"num_train_epochs": 3, "learning_rate": 1e-5}
    assert found["grpo", "Qwen2.5-7B"].settings() == {"num_generations": 8, "learning_rate": 1e-6}


def test_a_baseline_that_is_compared_with_gives_no_recipe() -> None:
    table = grid("Configuration.", "Item|Value", "Learning rate|5e-7", "Epochs|1", "β|0.1")
    text = "We fine-tune Qwen/Qwen3-4B with KTO. We compare against DPO with β = 0.5 trained on the same pairs."
    results = grid("Results.", "Model|IFEval|MT-Bench", "Qwen3-4B|70.1|7.0", "DPO|71.0|7.2", "Coach (KTO)|74.4|7.6")
    found = read(paper("Coach", "We align a coach with KTO.", Training=[text, table], Results=[results]))
    assert list(found) == [("kto", "Qwen/Qwen3-4B")]
    (recipe,) = found.values()
    assert recipe.settings() == {"learning_rate": 5e-7, "num_train_epochs": 1, "beta": 0.1}
    assert scores(recipe) == {"IFEval": (70.1, 74.4), "MT-Bench": (7.0, 7.6)}


def test_another_model_of_the_same_family_is_not_the_start() -> None:
    results = grid(
        "Accuracy.",
        "Model|MMLU|IFEval",
        "Llama-3.1-8B|65.0|20.0",
        "Llama-3.1-8B-Instruct|68.0|79.0",
        "Ours (SFT)|64.0|71.0",
    )
    setup = "We fine-tune meta-llama/Llama-3.1-8B for 2 epochs with a learning rate of 1e-5 (SFT)."
    (recipe,) = read(paper("A model", "We use SFT.", Training=[setup], Results=[results])).values()
    assert scores(recipe) == {"MMLU": (65.0, 64.0), "IFEval": (20.0, 71.0)}


STAGES = grid(
    "Hyper-parameters of each stage. LR: learning rate; GB: global batch size.",
    "|SFT|RM|DPO|PPO (ablation)",
    "Initial checkpoint|Mistral-7B-v0.3|Cedar-7B-SFT|Cedar-7B-SFT|Cedar-7B-SFT",
    "LR|1e-5|2e-6|5e-7|1e-6",
    "GB|128|64|32|256",
    "KL coefficient β|–|–|0.1|0.05",
    "Max length|4096|4096|4096|4096",
    "Hardware|8×A100 (80GB)|4×A100 (80GB)|16×A100 (80GB)|2×A100 (80GB)",
    "Wall-clock (h)|12|4|6|30",
)


def test_each_stage_has_its_column_and_that_of_the_reward_model_is_nobodys() -> None:
    results = grid(
        "Results.",
        "Benchmark|Pre-trained: Mistral-7B-v0.3|Cedar-7B-SFT|Cedar-7B-DPO",
        "MT-Bench|3.1|6.2|7.1",
        "TruthfulQA|42.0|47.0|55.5",
    )
    text = (
        "We start from mistralai/Mistral-7B-v0.3. Responses are sampled from Qwen2.5-72B-Instruct with "
        "temperature 0.7 and "
        "judged by Llama-3.1-70B-Instruct."
    )
    found = read(paper("Cedar", "We align a model with SFT and DPO.", Alignment=[text, STAGES], Results=[results]))
    assert list(found) == [("sft", "mistralai/Mistral-7B-v0.3"), ("dpo", "mistralai/Mistral-7B-v0.3")]
    sft, dpo = found.values()
    assert sft.settings() == {"learning_rate": 1e-5, "effective_batch_size": 128, "max_length": 4096}
    assert dpo.settings() == {"learning_rate": 5e-7, "effective_batch_size": 32, "beta": 0.1, "max_length": 4096}
    assert machine_of(sft) == {"gpu": "A100-80GB", "count": 8, "hours": 12.0}
    assert machine_of(dpo) == {"gpu": "A100-80GB", "count": 16, "hours": 6.0}
    assert scores(dpo)["MT-Bench"][1] == 7.1 and scores(sft)["MT-Bench"][1] == 6.2  # benchmarks as rows
    assert dpo.hyperparameters["learning_rate"].evidence.column == "DPO"


def test_a_stage_that_is_only_numbered_in_the_table_is_told_by_the_text() -> None:
    table = grid(
        "Settings.", "Parameter|Stage 1|Stage 2", "Learning rate|2e-5|1e-6", "Epochs|3|–", "Rollouts per prompt|–|8"
    )
    text = "Stage 1 is supervised fine-tuning on traces. Stage 2 is GRPO with a rule."
    start = "We start from meta-llama/Llama-3.2-3B-Instruct. The traces were published as stepwise/llama-traces."
    found = read(paper("Two Steps", "We use SFT followed by GRPO.", Method=[text, start], Settings=[table]))
    assert {method: one.settings() for (method, _), one in found.items()} == {
        "sft": {"learning_rate": 2e-5, "num_train_epochs": 3},
        "grpo": {"learning_rate": 1e-6, "num_generations": 8},
    }
    assert [[data.name for data in one.datasets] for one in found.values()] == [["stepwise/llama-traces"], []]


def test_sizes_as_columns_are_models() -> None:
    table = grid(
        "Hyper-parameters.",
        "Hyper-parameter|2B|9B",
        "Learning rate|2e-4|1e-4",
        "LoRA rank|16|32",
        "LoRA dropout|0.05|0.05",
        "Number of GPUs|1|4",
        "GPU|A100 (80GB)|A100 (80GB)",
        "Training time (hours)|3.5|11",
    )
    results = grid(
        "Accuracy.",
        "Size|Model|MMLU|IFEval|Avg.",
        "2B|gemma-2-2b|51.3|20.2|35.7",
        "2B|Ours|51.0|45.2|48.1",
        "9B|gemma-2-9b|70.3|30.2|50.2",
        "9B|Ours|70.1|60.2|65.1",
    )
    text = (
        "We fine-tune google/gemma-2-2b and google/gemma-2-9b with LoRA. A learning rate of 5e-5 was "
        "unstable for the 9B."
    )
    found = read(paper("Small", "We instruction-tune two models.", Setup=[text, table], Results=[results]))
    small, large = found["sft", "google/gemma-2-2b"], found["sft", "google/gemma-2-9b"]
    assert small.settings() == {"learning_rate": 2e-4, "lora_r": 16, "lora_dropout": 0.05}
    assert large.settings() == {"learning_rate": 1e-4, "lora_r": 32, "lora_dropout": 0.05}
    assert (machine_of(small), machine_of(large)) == (
        {"gpu": "A100-80GB", "count": 1, "hours": 3.5},
        {"gpu": "A100-80GB", "count": 4, "hours": 11.0},
    )
    assert scores(small) == {"MMLU": (51.3, 51.0), "IFEval": (20.2, 45.2)}
    assert scores(large) == {"MMLU": (70.3, 70.1), "IFEval": (30.2, 60.2)}


@pytest.mark.parametrize(
    "text",
    [
        "Prompts are written by Qwen/Qwen2.5-72B-Instruct.",
        "The teacher is Qwen/Qwen2.5-72B-Instruct, and the reward model was initialised from Llama-3.1-70B.",
        "Qwen/Qwen2.5-72B-Instruct serves as the judge; we distil from Qwen/Qwen2.5-72B-Instruct.",
        "We chose the Llama-3.2 family for its licence.",
    ],
)
def test_the_trained_model_is_no_teacher_judge_or_family(text: str) -> None:
    setup = f"{text} We fine-tune meta-llama/Llama-3.2-1B with SFT at a learning rate of 1e-5 for 2 epochs."
    assert list(read(paper("A model", "We study SFT.", Data=[text], Training=[setup]))) == [
        ("sft", "meta-llama/Llama-3.2-1B")
    ]


@pytest.mark.parametrize(
    ("text", "machine"),
    [
        ("We train on four nodes of 8 H100 for 14 hours.", {"gpu": "H100", "count": 32, "hours": 14.0}),
        ("Training took 96 GPU hours, namely 12 hours on 8 H100s (80GB).", {"gpu": "H100-80GB", "count": 8,
         "hours": 12.0}),
        ("Two A6000 cards were donated.", {}),
        ("All experiments, including failed runs, cost 4,600 H100 hours.", {}),
        ("Solutions were generated on 64 A100 GPUs.", {}),
        ("Evaluation runs on 2 L40S.", {}),
    ],
)  # fmt: skip
def test_the_machine_is_that_of_training(text: str, machine: dict[str, Any]) -> None:
    setup = f"We fine-tune Qwen/Qwen3-0.6B with SFT at a learning rate of 1e-5. {text}"
    (recipe,) = read(paper("A model", "We study SFT.", Setup=[setup])).values()
    assert machine_of(recipe) == machine


@pytest.mark.parametrize(
    ("sentence", "settings"),
    [
        ("In every iteration we sample 16 responses for each of 256 prompts.", {"num_generations": 16,
         "effective_batch_size": 256}),
        ("We truncate responses at 3,072 and train for 320 iterations.", {"max_completion_length": 3072,
         "max_steps": 320}),
        ("Each optimizer step sees 96 sequences, and we truncate at 2,560 tokens.", {"effective_batch_size": 96,
         "max_length": 2560}),
        ("We use AdamW with $(\\beta_1, \\beta_2) = (0.9, 0.95)$ and LoRA dropout of 0.1.", {"adam_beta1": 0.9,
         "adam_beta2": 0.95, "lora_dropout": 0.1}),
        ("The learning rate is warmed up over the first 50 steps to 3e-6.", {"warmup_steps": 50}),
        ("We train for two to five epochs.", {}),
        ("Batches of 16 were accumulated.", {}),
        ("1, 3 and 5 epochs were run.", {}),
        ("the weight of the KL term is 0.002, i.e. no $\\beta$", {"beta": 0.002}),
    ],
)  # fmt: skip
def test_more_ways_to_state_a_setting(sentence: str, settings: dict[str, object]) -> None:
    assert {one.field: one.value for one in read_prose(plain(sentence))} == settings


def test_what_was_tried_or_used_by_others_is_left_out() -> None:
    text = (
        "We fine-tune Qwen/Qwen3-0.6B with SFT. The learning rate is 1e-5; we tried 1e-4, but it diverged after "
        "3 epochs. "
        "The batch size of 512 used by [2] was not an option for us. The critic has a weight decay of 0.3. "
        "Solutions are sampled from Qwen2.5-72B-Instruct with temperature 0.7 and at most 2,048 new tokens."
    )
    (recipe,) = read(paper("A model", "We study SFT.", Setup=[text])).values()
    assert recipe.settings() == {"learning_rate": 1e-5}


def test_a_dataset_behind_a_link_or_in_a_footnote_is_named_and_a_benchmark_is_not() -> None:
    html = b"""<html><body><article class="ltx_document"><h1 class="ltx_title ltx_title_document">A model</h1>
    <section class="ltx_section" id="S1"><h2 class="ltx_title">Training</h2>
    <p class="ltx_p">We fine-tune Qwen/Qwen3-0.6B with SFT at a learning rate of 1e-5. The training set is available
    <a href="https://huggingface.co/datasets/acme/open-mix">here</a>. The data were cleaned.<span class="ltx_note"><span
    class="ltx_note_content">https://huggingface.co/datasets/acme/clean-mix</span></span> We evaluate on hard
    questions.<span class="ltx_note"><span class="ltx_note_content">https://huggingface.co/datasets/acme/hard-test</span></span></p>
    </section></article></body></html>"""
    (recipe,) = read(parse_html(html, "2609.99999")).values()
    assert [one.hub_id for one in recipe.datasets] == ["acme/open-mix", "acme/clean-mix"]
    assert all(str(one.hub_id) in one.evidence.text for one in recipe.datasets)


def test_names_in_words_abbreviations_and_links() -> None:
    assert models_in("We use Llama 3.1 8B Instruct and OLMo 2 7B.") == ["Llama 3.1 8B Instruct", "OLMo 2 7B"]
    assert hub_ids("see https://huggingface.co/datasets/a-b/c-d.") == ["a-b/c-d"]
    assert legend("Settings. LR: learning rate; $h$: time in hours.") == {"LR": "learning rate", "h": "time in hours"}
    models = ["Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-14B-Instruct"]
    assert models_told("the 7B model", models) == {"qwen2.5-7b-instruct"}
    assert models_told("Llama-3.1-8B", models) is None
    assert models_told("our runs", models) == frozenset()


def test_a_row_of_words_below_a_full_header_is_a_row() -> None:
    table = grid("", "Name|SFT|DPO", "Start|A|B", "Epochs|2|1")
    assert (table.header, len(table.rows)) == ((("Name", "SFT", "DPO"),), 2)
    double = grid("", "|Stage|Stage", "|SFT|DPO", "Epochs|2|1", "Rank|4|8")
    assert len(double.header) == 2
