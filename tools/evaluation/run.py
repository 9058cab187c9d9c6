"""Evaluate one model on one lm-eval task: the job that turns a checkpoint into result files.

    python -m posttrain_crew.tools.evaluation.run DIR/config.yaml

Beside the config appear samples.jsonl (one line per item), results.json and, last, outcome.json. A GPU is used where
there is one (bfloat16), else the CPU (float32, OMP_NUM_THREADS threads).

The checkpoint's generation_config.json has no say in how answers are drawn: trainers and model authors leave sampling,
penalties and length caps there, and two checkpoints would then be scored by different rules. Only its end tokens are
kept; everything else comes from the task's YAML, and is greedy where the YAML is silent.

Left out: logits-based tasks (their samples have no text to extract an answer from), several GPUs, vLLM.
"""

from __future__ import annotations

import errno
import importlib.metadata
import json
import math
import os
import platform
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from posttrain_crew.entries import ErrorClass
from posttrain_crew.errors import ConfigError, CrewError, ModelError
from posttrain_crew.files import atomic_write_json, atomic_write_text, canonical_json, sha256_file, sha256_text
from posttrain_crew.redact import redact
from posttrain_crew.tools.data.turn_end import end_ids, turn_end

if TYPE_CHECKING:
    import torch
    from lm_eval.models.huggingface import HFLM

__all__ = ["MODULE", "RESULTS_FILE", "SAMPLES_FILE", "EvaluationConfig", "evaluate", "main", "model_files"]

MODULE = "posttrain_crew.tools.evaluation.run"
RESULTS_FILE = "results.json"
SAMPLES_FILE = "samples.jsonl"
BOOTSTRAP_ITERS = 100
"""For lm-eval's own standard error, which is kept for reference only; 0 would write "N/A" into its results."""


class EvaluationConfig(BaseModel):
    """The job's config file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Path
    """Model directory."""
    task: str
    include_path: Path | None = None
    """Folder of task YAMLs; None: the tasks that lm-eval ships."""
    split: Literal["dev", "test"]
    few_shot: int = Field(default=0, ge=0)
    limit: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=64, ge=1)
    apply_chat_template: bool = True
    seed: int = 0
    metric: str = "exact_match"
    strict_filter: str = "strict-match"
    lenient_filter: str = "flexible-extract"
    invalid_answer: str = "[invalid]"
    max_length: int | None = Field(default=None, ge=1)
    """Prompt + answer, tokens; None: the model's own limit."""
    network: bool = False
    """Whether the task reads from the Hugging Face Hub; without it the Hub is off, unless the environment says else."""


def read_config(path: Path) -> EvaluationConfig:
    """Read the config file. Raises ConfigError with every problem named."""
    try:
        return EvaluationConfig.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"the evaluation config {path} cannot be read: {error}") from error
    except ValidationError as error:
        problems = "; ".join(f"`{'.'.join(map(str, e['loc']))}`: {e['msg']}" for e in error.errors())
        raise ConfigError(f"the evaluation config {path} is not valid: {problems}.") from error


def model_files(model: Path) -> dict[str, str]:
    """SHA-256 of each file of a model directory that decides what it says (weights, configs, tokenizer).

    Raises:
        ModelError: it is no directory, or it has no config or weights.
    """
    if not (model / "config.json").is_file():
        raise ModelError(f"{model} is no model directory: it has no config.json.")
    suffixes = (".safetensors", ".bin", ".json", ".jinja", ".model", ".txt")
    names = sorted(path.name for path in model.iterdir() if path.is_file() and path.suffix in suffixes)
    if not any(name.endswith((".safetensors", ".bin")) for name in names):
        raise ModelError(f"{model} is no complete model directory: it has no weights (*.safetensors).")
    return {name: sha256_file(model / name) for name in names}


def _load(config: EvaluationConfig) -> HFLM:
    """The model behind lm-eval's interface, with a count of the answers that were cut off."""
    import torch
    from lm_eval.models.huggingface import HFLM
    from transformers import GenerationConfig

    class CountingLM(HFLM):  # type: ignore[misc, unused-ignore]
        """HFLM that looks at each raw generation: lm-eval's samples do not tell a finished answer from a cut one."""

        truncated = 0
        generated = 0

        def _model_generate(
            self, context: torch.Tensor, max_length: int, stop: list[str], **generation_kwargs: Any
        ) -> torch.Tensor:
            rows = cast(
                "torch.Tensor", super()._model_generate(context, max_length, stop, **generation_kwargs)
            )  # [batch, context + answer]
            ends = set(end_ids(self.model.generation_config.eos_token_id))
            for row in rows[:, context.shape[1] :].tolist():
                self.generated += 1
                full = len(row) >= max_length - context.shape[1] and not ends.intersection(row)
                if full and not any(end in self.tok_decode(row, skip_special_tokens=False) for end in stop):
                    self.truncated += 1
            return rows

    cuda = torch.cuda.is_available()
    if not cuda:
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or torch.get_num_threads()))
    try:
        lm = CountingLM(
            pretrained=str(config.model),
            device="cuda" if cuda else "cpu",
            dtype="bfloat16" if cuda else "float32",
            batch_size=config.batch_size,
            max_length=config.max_length,
            trust_remote_code=False,
        )
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"the model {config.model} cannot be loaded: {error}") from error
    if config.apply_chat_template and not lm.tokenizer.chat_template:
        raise ModelError(f"the tokenizer of {config.model} has no chat template, which the target asks for.")
    given = lm.model.generation_config
    # the end of a turn ends the answer of every model alike: a base model's end token is often the end of a text only
    end = turn_end(lm.tokenizer) if config.apply_chat_template else None
    lm.model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=False,
        bos_token_id=given.bos_token_id,
        eos_token_id=end_ids(given.eos_token_id, lm.tokenizer.eos_token_id, end),
        pad_token_id=lm.tokenizer.pad_token_id,
    )
    return lm


def _items(config: EvaluationConfig, logged: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One record per item from lm-eval's records per item and filter, in the order of the benchmark."""
    by_filter: dict[str, dict[int, dict[str, Any]]] = {}
    for sample in logged:
        by_filter.setdefault(sample["filter"], {})[int(sample["doc_id"])] = sample
    for name in (config.strict_filter, config.lenient_filter):
        if name not in by_filter:
            raise ConfigError(f"the task {config.task} has no filter {name!r}; it has {', '.join(sorted(by_filter))}.")
    strict, lenient = by_filter[config.strict_filter], by_filter[config.lenient_filter]
    records = []
    for doc_id in sorted(strict):
        one, other = strict[doc_id], lenient[doc_id]
        if config.metric not in one:
            raise ConfigError(f"the task {config.task} has no metric {config.metric!r}; it has {one['metrics']}.")
        records.append(
            {
                "doc_id": doc_id,
                "id": str(one["doc"].get("id", doc_id)),
                "doc_hash": one["doc_hash"],
                "prompt_hash": one["prompt_hash"],
                "target": str(one["target"]),
                "response": one["resps"][0][0],
                "strict_answer": str(one["filtered_resps"][0]),
                "strict_ok": bool(one[config.metric]),
                "lenient_answer": str(other["filtered_resps"][0]),
                "lenient_ok": bool(other[config.metric]),
            }
        )
    return records


def _versions() -> dict[str, str]:
    names = ("lm_eval", "transformers", "torch", "datasets", "tokenizers")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in names}}


def evaluate(config: EvaluationConfig, out: Path) -> dict[str, Any]:
    """Run the evaluation, write samples.jsonl and results.json into `out`, return what results.json holds.

    Raises:
        ConfigError: the task, a filter or the metric does not exist. ModelError: the model does not load.
    """
    files = model_files(config.model)
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    started = time.monotonic()
    tasks = TaskManager(
        include_path=str(config.include_path) if config.include_path else None,
        include_defaults=config.include_path is None,
    )
    if config.task not in tasks.all_tasks:
        place = config.include_path or "lm-eval"
        raise ConfigError(f"there is no task {config.task!r} in {place}.")
    lm = _load(config)
    loaded = time.monotonic()
    raw = cast(
        "Mapping[str, Any]",
        simple_evaluate(
            model=lm,
            tasks=[config.task],
            task_manager=tasks,
            num_fewshot=config.few_shot,
            limit=config.limit,
            batch_size=config.batch_size,
            apply_chat_template=config.apply_chat_template,
            log_samples=True,
            bootstrap_iters=BOOTSTRAP_ITERS,
            random_seed=config.seed,
            numpy_random_seed=config.seed,
            torch_random_seed=config.seed,
            fewshot_random_seed=config.seed,
        ),
    )
    if (shots := raw["n-shot"][config.task]) != config.few_shot:
        raise ConfigError(f"the task {config.task} fixes its examples at {shots}; {config.few_shot} were asked for.")
    records = _items(config, raw["samples"][config.task])
    samples = out / SAMPLES_FILE
    atomic_write_text(samples, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
    task_config = json.loads(json.dumps(raw["configs"][config.task], default=str))
    strict, lenient = (sum(record[name] for record in records) for name in ("strict_ok", "lenient_ok"))
    results = {
        "task": config.task,
        "split": config.split,
        "few_shot": config.few_shot,
        "limit": config.limit,
        "n": len(records),
        "strict": {"filter": config.strict_filter, "correct": strict, "score": strict / len(records)},
        "lenient": {"filter": config.lenient_filter, "correct": lenient, "score": lenient / len(records)},
        "metric": config.metric,
        "invalid_answer": config.invalid_answer,
        "truncated": lm.truncated,
        "generated": lm.generated,
        "samples_sha256": sha256_file(samples),
        "model": {"path": str(config.model), "sha256": sha256_text(canonical_json(files)), "files": files},
        "task_config_sha256": sha256_text(canonical_json(task_config)),
        "generation": {
            **task_config.get("generation_kwargs", {}),
            "eos_token_id": lm.model.generation_config.eos_token_id,
            "chat_template": config.apply_chat_template,
            "dtype": str(lm.model.dtype).removeprefix("torch."),
            "device": str(lm.device),
            "batch_size": config.batch_size,
            "max_length": lm.max_length,
        },
        "seed": config.seed,
        "versions": _versions(),
        "harness": f"lm-eval {importlib.metadata.version('lm_eval')}",
        "lm_eval": {k: v for k, v in raw["results"][config.task].items() if _is_json(v)},
        "seconds": {"load": round(loaded - started, 2), "evaluate": round(time.monotonic() - loaded, 2)},
    }
    atomic_write_json(out / RESULTS_FILE, results)
    return results


def _is_json(value: object) -> bool:
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def _class_of(error: Exception) -> ErrorClass:
    if isinstance(error, ConfigError):
        return "config"
    if isinstance(error, ModelError):
        return "model"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "out_of_memory"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "disk_full"
    return "crashed"


def main(argv: list[str] | None = None) -> int:
    """Run the job; the outcome file says how it went, the exit status only whether."""
    arguments = sys.argv[1:] if argv is None else argv
    if len(arguments) != 1:
        sys.stderr.write(f"usage: python -m {MODULE} CONFIG.yaml\n")
        return 2
    path = Path(arguments[0]).resolve()
    started = time.monotonic()
    outcome: dict[str, Any] = {"ok": True, "error_class": None, "message": "", "checkpoint": None, "metrics": {}}
    try:
        config = read_config(path)
        for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
            if config.network:  # asked for by the target, whose requirements were checked before the run
                os.environ[name] = "0"
            else:
                os.environ.setdefault(name, "1")
        results = evaluate(config, path.parent)
        outcome["steps"] = results["n"]
        outcome["metrics"] = {"truncated_rate": results["truncated"] / max(1, results["generated"])}
        if config.split == "dev":  # outcomes are read by agents, and test scores are not for them
            outcome["metrics"] |= {"strict": results["strict"]["score"], "lenient": results["lenient"]["score"]}
    except Exception as error:  # noqa: BLE001 - the script's boundary: every failure becomes a typed outcome
        message = str(error) if isinstance(error, CrewError) else f"{type(error).__name__}: {error}"
        outcome |= {"ok": False, "error_class": _class_of(error), "message": redact(message)[:2000], "steps": 0}
        import traceback

        traceback.print_exc()
    outcome["wall_s"] = round(time.monotonic() - started, 2)
    atomic_write_json(path.parent / "outcome.json", outcome)
    return 0 if outcome["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
