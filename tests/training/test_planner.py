"""The planner against what tensors really occupy, against published numbers, and as a user meets it."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from posttrain_crew.crews import cli_gpu, cli_plan
from posttrain_crew.errors import ConfigError, CrewError, InputError, ModelError
from posttrain_crew.tools.training.config import check_trainer
from posttrain_crew.tools.training.desk import TrainingDesk
from posttrain_crew.tools.training.hardware import devices, find_cluster, sharding, shardings
from posttrain_crew.tools.training.memory import GIB, PROCESS_GIB, Vllm, Work, memory_of
from posttrain_crew.tools.training.plan_table import CLUSTERS, METHODS, table, with_table
from posttrain_crew.tools.training.planner import plan, usual_request
from posttrain_crew.tools.training.shape import ModelShape, find_shape, known_shapes, model_shape
from posttrain_crew.tools.training.steptime import cache_rows, step_time

WIDTHS = {"hidden": 128, "intermediate": 384, "layers": 6, "heads": 8, "kv_heads": 2, "head": 32, "vocabulary": 2048}
ROWS, LENGTH = 4, 128


def made_shape(tied: bool = False, qk_norm: bool = True) -> ModelShape:
    w = WIDTHS
    q, kv = w["heads"] * w["head"], w["kv_heads"] * w["head"]
    block = 2 * w["hidden"] * q + 2 * w["hidden"] * kv + 3 * w["hidden"] * w["intermediate"]
    norms = 2 * w["hidden"] + (2 * w["head"] if qk_norm else 0)
    parameters = (1 if tied else 2) * w["vocabulary"] * w["hidden"] + w["layers"] * (block + norms) + w["hidden"]
    return ModelShape(
        parameters, w["layers"], w["hidden"], w["vocabulary"], kv, "made", w["intermediate"], q, w["heads"],
        w["kv_heads"], tied, qk_norm,
    )  # fmt: skip


def made_model(kind: str = "qwen3", tied: bool = False) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    config, model = (Qwen3Config, Qwen3ForCausalLM) if kind == "qwen3" else (LlamaConfig, LlamaForCausalLM)
    return model(config(**made_shape(tied).config_fields()))


# --- shapes


def test_the_known_models_have_the_parameters_that_are_published() -> None:
    counts = {name: shape.parameters for name, shape in known_shapes().items()}
    assert counts == {
        "qwen3-0.6b": 596_049_920,
        "qwen3-1.7b": 1_720_574_976,
        "qwen3-4b": 4_022_468_096,
        "qwen3-8b": 8_190_735_360,
        "qwen3-32b": 32_762_123_264,
    }


def test_the_shape_is_that_of_the_real_architecture() -> None:
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    shape = known_shapes()["qwen3-1.7b"]
    with torch.device("meta"):
        model = Qwen3ForCausalLM(Qwen3Config(**shape.config_fields()))
    assert sum(parameter.numel() for parameter in model.parameters()) == shape.parameters


def test_a_folder_is_read_like_a_name(tmp_path: Path) -> None:
    made_model().save_pretrained(tmp_path)
    assert replace(find_shape(str(tmp_path)), architecture="made") == made_shape()
    assert find_shape("Qwen/Qwen3-8B") is known_shapes()["qwen3-8b"]
    with pytest.raises(ModelError, match="qwen3-8b"):
        find_shape("gpt-5")
    (tmp_path / "config.json").write_text('{"hidden_size": "wide"}')
    with pytest.raises(ModelError, match="shape"):
        model_shape(tmp_path)


# --- memory, tensor by tensor


@pytest.mark.parametrize("kind", ["qwen3", "llama"])
@pytest.mark.parametrize("mode", ["float32", "autocast", "bfloat16"])
def test_what_a_forward_pass_keeps(kind: str, mode: str) -> None:
    import torch

    from tests.training.accounting import SavedTensors

    model = made_model(kind).train()
    model = model.bfloat16() if mode == "bfloat16" else model
    ids = torch.randint(0, 500, (ROWS, LENGTH))
    kept = SavedTensors(list(model.parameters()))
    with kept, torch.autocast("cpu", torch.bfloat16) if mode == "autocast" else contextlib.nullcontext():
        model.model(input_ids=ids, use_cache=False)
    work = Work(
        "sft", made_shape(qk_norm=kind == "qwen3"), LENGTH, ROWS,
        weights="bfloat16" if mode == "bfloat16" else "float32", bf16=mode == "autocast", on_cpu=True,
    )  # fmt: skip
    parts = {part.name: part.bytes for part in memory_of(work, sharding("single")).parts}
    planned = parts["activations"] + parts.get("weight copies", 0)
    assert planned == pytest.approx(kept.bytes, rel=0.01)


class _Step:
    """One real training with TRL: the bytes of its states, and its peak."""

    def __init__(self, method: str, folder: Path, lora: bool = False, tied: bool = False, **fields: Any) -> None:
        import torch
        from datasets import Dataset
        from peft import LoraConfig
        from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

        from posttrain_crew.tools.embedded.pretraining import build_tokenizer
        from tests.training.accounting import LiveTensors

        torch.set_num_threads(1)
        rng = random.Random(0)
        model, tokenizer = made_model(tied=tied), build_tokenizer(["a b c d 1 2 3"])
        common: dict[str, Any] = {
            "output_dir": str(folder), "per_device_train_batch_size": ROWS, "max_steps": 2, "use_cpu": True,
            "report_to": "none", "save_strategy": "no", "disable_tqdm": True, "dataloader_pin_memory": False,
            "bf16": False, "gradient_checkpointing": False, **fields,
        }  # fmt: skip
        adapter = LoraConfig(r=8, lora_dropout=0.05, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"])
        given = {"processing_class": tokenizer, "peft_config": adapter if lora else None}

        def text(length: int) -> str:
            return "".join(rng.choice("abcd123") for _ in range(length))

        trainer: Any
        if method == "dpo":
            rows = [{"prompt": text(40), "chosen": text(300), "rejected": text(300)} for _ in range(16)]
            data = Dataset.from_list(rows)
            beside = None if lora else made_model()
            trainer = DPOTrainer(
                model, beside, args=DPOConfig(max_length=LENGTH, **common), train_dataset=data, **given
            )
        elif method == "grpo":
            data = Dataset.from_list([{"prompt": text(64)} for _ in range(16)])
            args = GRPOConfig(num_generations=ROWS, max_completion_length=64, **common)

            def reward(completions: list[str], **_columns: Any) -> list[float]:
                return [float(rng.random()) for _ in completions]

            trainer = GRPOTrainer(model, args=args, reward_funcs=reward, train_dataset=data, **given)
        else:
            ids = [[rng.randrange(5, 500) for _ in range(LENGTH)] for _ in range(16)]
            data = Dataset.from_list([{"input_ids": row, "labels": row} for row in ids])
            trainer = SFTTrainer(model, args=SFTConfig(max_length=None, **common), train_dataset=data, **given)
        models = [trainer.model, *([trainer.ref_model] if getattr(trainer, "ref_model", None) is not None else [])]
        held = list({id(p): p for m in models for p in (*m.parameters(), *m.buffers())}.values())
        self.weights = sum(p.numel() * p.element_size() for p in held)
        self.trained = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
        with LiveTensors(held) as live:
            trainer.train()
        self.peak = live.peak
        moments = [value for state in trainer.optimizer.state.values() for value in state.values()]
        self.optimizer = sum(m.numel() * m.element_size() for m in moments if m.dim() > 0)


@pytest.mark.parametrize(
    ("method", "lora", "fields"),
    [
        ("sft", False, {}),
        ("sft", False, {"bf16": True, "gradient_checkpointing": True, "gradient_accumulation_steps": 2}),
        ("sft", True, {"bf16": True}),
        ("dpo", False, {"gradient_checkpointing": True}),
        ("dpo", True, {}),
        ("grpo", False, {}),
    ],
)
def test_the_peak_of_a_real_step(
    method: Any, lora: bool, fields: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To 5 %: the states exactly, what comes and goes by the formulas. TRL's tile of the LM head is made as narrow as
    the vocabulary, for what lies beyond it is never touched and takes no main memory."""
    import trl.trainer.utils

    monkeypatch.setattr(trl.trainer.utils, "_CHUNKED_LOGPROB_CHUNK_SIZE", WIDTHS["vocabulary"])
    step = _Step(method, tmp_path, lora=lora, **fields)
    trainer = {"per_device_train_batch_size": ROWS, "gradient_accumulation_steps": 1, **fields}
    trainer |= {"use_peft": True, "lora_r": 8} if lora else {}
    trainer |= {"max_completion_length": 64} if method == "grpo" else {"max_length": LENGTH}
    work = Work.of(method, trainer, made_shape(), 64 if method == "grpo" else LENGTH, on_cpu=True)
    memory = memory_of(work, sharding("single"))
    parts = {part.name: part.bytes for part in memory.parts}
    assert parts["weights"] + parts.get("reference", 0) == pytest.approx(step.weights, rel=1e-4)  # + rotary buffers
    assert parts["optimizer states"] == step.optimizer
    assert work.trained == step.trained
    assert memory.bytes - PROCESS_GIB * GIB == pytest.approx(step.peak, rel=0.05)


def test_the_states_are_those_of_the_zero_paper() -> None:
    """Figure 1 of arXiv 1910.02054: 7.5e9 parameters, 64 devices, mixed precision with Adam."""
    shape = ModelShape(7_500_000_000, 40, 4096, 50_000, 4096, "paper")

    def states(profile: str) -> float:
        work = Work("sft", shape, 8, 1, bf16=True)
        kept = ("weights", "gradients", "optimizer states", "master weights")
        return sum(p.bytes for p in memory_of(work, sharding(profile), 64).parts if p.name in kept) / 1e9

    assert states("zero1") == pytest.approx(31.4, abs=0.05)
    assert states("zero2") == pytest.approx(16.6, abs=0.05)
    assert states("zero3") == pytest.approx(1.9, abs=0.05)


def test_what_a_config_leaves_out_is_what_the_trainer_takes() -> None:
    shape = known_shapes()["qwen3-1.7b"]
    assert Work.of("sft", {}, shape, 2048).bf16, "TRL computes in bfloat16 on an accelerator"
    assert not Work.of("sft", {"bf16": False}, shape, 2048).bf16
    assert not Work.of("sft", {}, shape, 2048, on_cpu=True).bf16
    packed = Work.of("sft", {"packing": True, "max_length": 4096}, shape, 100)
    assert packed.tokens == 4096, "packing fills the rows"


def test_gradients_are_gone_while_grpo_samples() -> None:
    work = Work("grpo", known_shapes()["qwen3-1.7b"], 512, 4, accumulation=4, bf16=True, completion=512,
                sampled_at_once=16, vllm=Vllm(0.9, True))  # fmt: skip
    for profile, there in (("single", False), ("zero2", True)):
        memory = memory_of(work, sharding(profile), 1, 80)
        assert memory.moment == "sampling"
        assert ("gradients" in {part.name for part in memory.parts}) == there
    between = replace(work, sampled_at_once=4)  # it samples amid an accumulation
    assert "gradients" in {part.name for part in memory_of(between, sharding("single"), 1, 80).parts}


def test_offload_moves_states_to_main_memory_and_loses_none() -> None:
    work = Work("sft", known_shapes()["qwen3-8b"], 1024, 1, bf16=True, checkpointing=True)
    at, gone = memory_of(work, sharding("zero3"), 8), memory_of(work, sharding("zero3_offload_all"), 8)
    names = {part.name for part in gone.parts}
    assert not names & {"weights", "gradients", "optimizer states", "master weights"}
    moved = sum(p.bytes for p in at.parts if p.name in ("weights", "optimizer states", "master weights"))
    assert gone.host_bytes >= moved
    assert gone.bytes < at.bytes


def test_vllm_beside_the_training_or_at_another_moment() -> None:
    work = Work("grpo", known_shapes()["qwen3-1.7b"], 512, 4, bf16=True, completion=512, sampled_at_once=4)
    awake, asleep = replace(work, vllm=Vllm(0.3, False)), replace(work, vllm=Vllm(0.3, True))
    gib = {name: memory_of(w, sharding("single"), 1, 80).gib for name, w in (("awake", awake), ("asleep", asleep))}
    alone = memory_of(work, sharding("single"), 1, 80).gib
    assert gib["awake"] == pytest.approx(alone + 24, abs=0.1)
    assert alone <= gib["asleep"] < alone + 24
    assert cache_rows(replace(work, vllm=Vllm(0.05, True)), 40) == 0  # not even the weights


# --- plans


def test_plans_keep_the_effective_batch_and_give_valid_settings() -> None:
    rows = table()
    assert len(rows) == len(known_shapes()) * len(METHODS) * len(CLUSTERS)
    for row in rows:
        best = row.plan.best
        if best is None:
            assert row.plan.why
            assert row.plan.nearest
            continue
        work, request = best.work, row.plan.request
        assert work.micro_batch * work.accumulation * request.cluster.world == request.batch
        assert best.memory.gib <= request.cluster.device.memory_gib
        assert best.host_gib <= request.cluster.device.host_gib
        fields = check_trainer(request.method, best.trainer())
        # what is printed as settings is what was reckoned, whatever the trainer's own defaults are
        again = Work.of(request.method, fields, work.shape, request.tokens, dtype=work.weights)
        memory = memory_of(again, best.sharding, request.cluster.world, request.cluster.device.memory_gib)
        assert memory.gib == pytest.approx(best.memory.gib), (row.model, row.method, row.cluster)


def test_more_memory_is_never_slower_and_more_gpus_are_faster() -> None:
    rows = {(row.model, row.method, row.cluster): row.plan.best for row in table()}
    for (model, method, _), _best in rows.items():
        small, large = rows[model, method, "a100-40"], rows[model, method, "a100-80"]
        assert small is None or (large is not None and large.time.total <= 1.06 * small.time.total)
        one, eight = rows[model, method, "h100"], rows[model, method, "8xh100"]
        assert eight is not None
        assert one is None or eight.time.total < one.time.total


def test_what_does_not_fit_is_explained_and_the_nearest_really_fits() -> None:
    request = usual_request(known_shapes()["qwen3-32b"], "sft", find_cluster("h100"))
    refused = plan(request)
    assert refused.best is None
    assert "main memory" in refused.why
    assert refused.nearest.startswith("4 x H100")
    assert plan(replace(request, cluster=find_cluster("4xh100"))).best is not None
    assert plan(replace(request, cluster=find_cluster("2xh100"))).best is None
    assert plan(replace(request, adapter="lora")).best is not None


def test_a_batch_that_cannot_be_spread_is_refused() -> None:
    request = usual_request(known_shapes()["qwen3-0.6b"], "sft", find_cluster("8xh100"), batch=12)
    with pytest.raises(ConfigError, match="12 cannot be spread over 8"):
        plan(request)
    with pytest.raises(ConfigError, match="whole groups of 8"):
        plan(usual_request(known_shapes()["qwen3-0.6b"], "grpo", find_cluster("h100"), batch=12))
    with pytest.raises(ConfigError, match="QLoRA"):
        plan(usual_request(known_shapes()["qwen3-8b"], "sft", find_cluster("2xh100"), "qlora", only="zero3"))


def test_several_nodes_are_slower_than_one_of_as_many_gpus() -> None:
    shape, profile = known_shapes()["qwen3-8b"], sharding("zero3")
    work = Work("sft", shape, 2048, 2, accumulation=4, bf16=True, checkpointing=True)
    one, two = find_cluster("8xh100"), find_cluster("h100", 4, 2)
    assert step_time(work, profile, two).communication > 5 * step_time(work, profile, one).communication
    assert memory_of(work, profile, two.world).bytes == memory_of(work, profile, one.world).bytes


@pytest.mark.parametrize("name", ["rtx", "9xh100", "h100:0"])
def test_unknown_machines_are_refused(name: str) -> None:
    with pytest.raises(ConfigError):
        find_cluster(name)
    with pytest.raises(ConfigError, match="say it once"):
        find_cluster("8xh100", gpus=4)


def test_the_data_is_whole() -> None:
    assert {"h100", "a100-40", "a100-80", "h200", "cpu"} <= set(devices())
    assert {"zero1", "zero2", "zero3", "zero2_offload", "zero3_offload", "fsdp"} <= set(shardings())
    with pytest.raises(ConfigError, match="zero3"):
        sharding("zero4")


# --- what users meet


@pytest.fixture
def crew() -> Callable[..., tuple[int, str]]:
    app = typer.Typer()
    app.callback()(lambda: None)
    cli_plan.register(app)
    cli_gpu.register(app)

    def run(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, list(arguments))
        if isinstance(result.exception, CrewError):
            raise result.exception
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.stdout

    return run


def test_crew_plan_in_words_and_as_json(crew: Callable[..., tuple[int, str]]) -> None:
    code, told = crew("plan", "--model", "qwen3-1.7b", "--gpu", "h100")
    assert code == 0
    assert "fits" in told
    assert "optimizer states" in told
    assert "crew train config.yaml" in told
    code, told = crew("plan", "--model", "qwen3-8b", "--method", "grpo", "--gpu", "8xh100", "--json")
    answer = json.loads(told.splitlines()[-1])
    assert code == 0
    assert answer["fits"]
    assert sum(part["gib"] for part in answer["parts"]) == pytest.approx(answer["gib"], abs=0.05)
    assert answer["trainer"]["use_vllm"] is True
    assert "--nproc-per-node=8" in answer["launch"]["torchrun"]
    assert answer["launch"]["crew"] == f"crew train config.yaml --devices 8 --sharding {answer['sharding']}"
    code, told = crew("plan", "--model", "qwen3-32b", "--gpu", "a100-40", "--json")
    answer = json.loads(told.splitlines()[-1])
    assert (code, answer["fits"]) == (2, False)
    assert answer["nearest"].startswith("8 x A100 40 GB")


@pytest.mark.parametrize(
    "wrong",
    [
        ["--model", "qwen3-1.7b", "--method", "ppo"],
        ["--model", "qwen3-1.7b", "--lora", "--qlora"],
        ["--model", "qwen3-1.7b", "--batch", "0"],
        ["--model", "qwen3-1.7b", "--gpu", "toaster"],
        ["--model", "qwen3-1.7b", "--sharding", "zero9"],
        ["--model", "/nowhere"],
        ["--model", "qwen3-1.7b", "--nodes", "0"],
        ["--model", "qwen3-1.7b", "--gpus", "0"],
        ["--model", "qwen3-1.7b", "--gpu", "0xh100"],
        ["--model", "qwen3-1.7b", "--completion", "12"],
        ["--model", "qwen3-1.7b", "--sampling", "server"],
        ["--model", "qwen3-1.7b", "--rank", "8"],
        [],
    ],
)
def test_crew_plan_refuses_what_makes_no_sense(crew: Callable[..., tuple[int, str]], wrong: list[str]) -> None:
    with pytest.raises(InputError):
        crew("plan", *wrong)


def test_the_table_in_the_docs_is_current() -> None:
    path = Path(__file__).parents[2] / "docs" / "planner.md"
    text = path.read_text(encoding="utf-8")
    assert with_table(text) == text, f"python -m posttrain_crew.tools.training.plan_table {path}"


def test_setup_gpu_says_what_it_would_do_and_refuses_without_cuda(
    crew: Callable[..., tuple[int, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, told = crew("setup", "gpu", "--to", str(tmp_path / "gpu"), "--dry-run")
    lines = told.splitlines()
    assert code == 0
    assert "-m venv" in lines[0]
    assert "vllm" in lines[1]
    assert "constraints-gpu.txt" in lines[1]
    assert not (tmp_path / "gpu").exists()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="no CUDA driver"):
        crew("setup", "gpu", "--to", str(tmp_path / "gpu"))
    with pytest.raises(InputError, match="constraints"):
        crew("setup", "gpu", "--constraints", str(tmp_path / "none.txt"), "--dry-run")


def test_preflight_names_settings_that_fit(workspace: Any, training_set: Any, compute: Any) -> None:
    """The refused config, with the changes that the refusal names, passes the same check."""
    desk, ts = TrainingDesk(workspace), training_set()
    # 64 rows of 40 tokens in a model of 100,000 parameters: a tile of 512 columns, copied a few times
    compute.memory_gib = 1.01
    wide = {"per_device_train_batch_size": 64, "gradient_accumulation_steps": 1}
    answer = desk.launch_training("sft", ts.id, "base", "it fits", wide)
    assert not answer["launched"]
    told = answer["reason"]
    assert "preflight failed at `memory`" in told
    changes = json.loads(told[told.index("{") : told.index("}") + 1].replace("'", '"').replace("True", "true"))
    assert changes["per_device_train_batch_size"] * changes["gradient_accumulation_steps"] == 64
    assert desk.launch_training("sft", ts.id, "base", "it fits", {**wide, **changes})["launched"]
