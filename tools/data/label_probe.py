"""A job: let the base model answer questions of candidate datasets, and count how often it agrees with their labels.

    python -m posttrain_crew.tools.data.label_probe config.yaml

config.yaml: model, rows (JSON lines {dataset, prompt, label}), labels, max_new_tokens, batch_size, seed. Written there:
probe.json ({dataset: {n, answered, agree}}) and, as the last act, outcome.json. Decoding is greedy; an answer is the
last label that stands alone in the text. It runs on a GPU where there is one, else on OMP_NUM_THREADS cores.

Left out: sampling, several answers a question, log-likelihoods of the labels.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from posttrain_crew.entries import ErrorClass
from posttrain_crew.errors import ConfigError, DatasetError, ModelError
from posttrain_crew.files import atomic_write_json
from posttrain_crew.tools.data.job_outcome import carry_through
from posttrain_crew.tools.data.local_model import load_for_replies

__all__ = ["ProbeConfig", "ProbeRow", "lenient_answer", "main", "run"]


class ProbeConfig(BaseModel):
    """What a probe needs."""

    model_config = ConfigDict(extra="forbid")

    model: Path
    rows: Path
    labels: str = "ABCD"
    max_new_tokens: int = Field(default=64, ge=1)
    batch_size: int = Field(default=64, ge=1)
    seed: int = 0


class ProbeRow(BaseModel):
    """One question and what its dataset says is right."""

    dataset: str
    prompt: str
    label: str


def lenient_answer(text: str, labels: str) -> str | None:
    """The last label that stands alone in a text, bracketed or not."""
    found: list[str] = re.findall(rf"\b([{re.escape(labels)}])\b", text)
    return found[-1] if found else None


def tally(rows: Sequence[ProbeRow], replies: Sequence[str], labels: str) -> dict[str, dict[str, int]]:
    """Counts per dataset: questions asked, questions answered, answers that are the label."""
    counts: dict[str, dict[str, int]] = defaultdict(lambda: {"n": 0, "answered": 0, "agree": 0})
    for row, reply in zip(rows, replies, strict=True):
        said = lenient_answer(reply, labels)
        counts[row.dataset]["n"] += 1
        counts[row.dataset]["answered"] += said is not None
        counts[row.dataset]["agree"] += said == row.label
    return dict(counts)


def run(config: ProbeConfig, directory: Path) -> dict[str, dict[str, int]]:
    """Ask all questions and write probe.json into `directory`.

    Raises:
        DatasetError: the rows cannot be read. ModelError: the model cannot be loaded.
    """
    rows = _read_rows(config.rows)
    counts = tally(rows, _generate(config, [row.prompt for row in rows]), config.labels)
    atomic_write_json(directory / "probe.json", counts)
    return counts


def _read_rows(path: Path) -> list[ProbeRow]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # not splitlines: a text may hold U+2028
        return [ProbeRow.model_validate_json(line) for line in lines if line.strip()]
    except (OSError, ValueError) as error:
        raise DatasetError(f"the probe's rows {path} cannot be read: {error}") from error


def _generate(config: ProbeConfig, prompts: Sequence[str]) -> list[str]:
    """Greedy replies, in the order of the prompts."""
    import torch  # seconds to import
    from transformers import set_seed

    set_seed(config.seed)
    tokenizer, model, device = load_for_replies(config.model)
    texts = [
        tokenizer.apply_chat_template([{"role": "user", "content": p}], tokenize=False, add_generation_prompt=True)
        if tokenizer.chat_template
        else f"{p}\n"
        for p in prompts
    ]
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]), reverse=True)  # longest first: memory fails early
    replies = [""] * len(texts)
    for start in range(0, len(order), config.batch_size):
        batch = order[start : start + config.batch_size]
        encoded = tokenizer([texts[i] for i in batch], return_tensors="pt", padding=True, add_special_tokens=False)
        encoded = {name: encoded[name].to(device) for name in ("input_ids", "attention_mask")}
        with torch.inference_mode():
            out = model.generate(
                **encoded,
                max_new_tokens=config.max_new_tokens,
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id,
            )
        for i, ids in zip(batch, out[:, encoded["input_ids"].shape[1] :], strict=True):
            replies[i] = tokenizer.decode(ids, skip_special_tokens=True)
    return replies


def _class_of(error: BaseException) -> ErrorClass:
    if isinstance(error, ConfigError):
        return "config"
    if isinstance(error, DatasetError):
        return "data"
    if isinstance(error, ModelError):
        return "model"
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return "out_of_memory"
    return "disk_full" if isinstance(error, OSError) and error.errno == 28 else "crashed"


def _load(path: Path) -> ProbeConfig:
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        return ProbeConfig.model_validate(raw)
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise ConfigError(f"the probe's config {path} is not valid: {error}") from error


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; the exit status is 0 when it succeeded. What happened is in outcome.json either way."""
    path = Path((sys.argv[1:] if argv is None else argv)[0]).resolve()

    def probe() -> dict[str, Any]:
        counts: Mapping[str, Mapping[str, int]] = run(_load(path), path.parent)
        asked = sum(count["n"] for count in counts.values())
        metrics = {name: float(sum(count[name] for count in counts.values())) for name in ("n", "answered", "agree")}
        return {"message": f"{asked} questions asked", "steps": asked, "metrics": metrics}

    return carry_through(path.parent, probe, _class_of)


if __name__ == "__main__":
    sys.exit(main())
