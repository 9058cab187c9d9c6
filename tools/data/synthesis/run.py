"""A synthesis with its models: what the command line, the desk and a job all call. As a job:

    python -m posttrain_crew.tools.data.synthesis.run config.yaml

config.yaml is a `JobConfig`. The rows go to its `out`; outcome.json beside the config is the last act. A killed job
that is started again goes on with the samples that it has. A job has no key for a hosted model (compute/local.py keeps
secrets out of it), so it samples from models in folders only.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from posttrain_crew.entries import ErrorClass
from posttrain_crew.errors import ConfigError, CrewError, DatasetError, ModelError
from posttrain_crew.target import Target
from posttrain_crew.tools.data.cleaning import read
from posttrain_crew.tools.data.contamination import ContaminationIndex
from posttrain_crew.tools.data.job_outcome import carry_through
from posttrain_crew.tools.data.reader import open_dataset
from posttrain_crew.tools.data.synthesis.base import Source
from posttrain_crew.tools.data.synthesis.chat import Allowance, ChatSampler
from posttrain_crew.tools.data.synthesis.dataset_card import Origin
from posttrain_crew.tools.data.synthesis.litellm_complete import LiteLLMComplete
from posttrain_crew.tools.data.synthesis.pipeline import Samplers, synthesize
from posttrain_crew.tools.data.synthesis.plan import Card, Plan
from posttrain_crew.tools.data.synthesis.samplers import LocalModelSampler
from posttrain_crew.tools.data.synthesis.sources import usable_sources

__all__ = ["JobConfig", "carry_out", "main"]

MAX_SOURCES = 50_000
"""Questions read of a dataset at most."""


class JobConfig(BaseModel):
    """Everything that a synthesis needs beside an LLM."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    plan: Plan
    target: dict[str, Any]
    """The target as JSON."""
    target_origin: Path | None = None
    """The file that it was read from: paths in it are relative to that."""
    out: Path
    data: Path | None = None
    """Questions with known answers: a dataset folder or file."""
    data_name: str = ""
    data_rows: list[int] | None = None
    """Numbers of the rows that may be used; None is all."""
    model: Path | None = None
    """Folder of the model that writes."""
    model_name: str = ""
    student: Path | None = None
    student_name: str = ""
    batch_size: int = Field(default=64, ge=1)

    @classmethod
    def of(cls, plan: Plan, target: Target, out: Path, **more: Any) -> JobConfig:
        """For a target that is loaded."""
        return cls(plan=plan, target=target.model_dump(mode="json"), target_origin=target.origin, out=out, **more)

    def loaded_target(self) -> Target:
        """The target. Raises ConfigError where it is not valid."""
        try:
            return Target.model_validate({**self.target, "origin": self.target_origin})
        except ValidationError as error:
            raise ConfigError(f"the target in the synthesis config is not valid: {error}") from error


def carry_out(
    config: JobConfig,
    *,
    llm: LiteLLMComplete | None = None,
    allowance: Allowance | None = None,
    concurrency: int = 8,
    notice: Callable[[str], None] = lambda _text: None,
) -> Card:
    """Load the models, read the questions, and run the pipeline.

    Args:
        llm: writes where no model folder is given, and judges.
        allowance: what it may spend.

    Raises:
        as `pipeline.synthesize`; DatasetError, TargetError where the questions or the benchmark cannot be read.
    """
    target = config.loaded_target()
    index = ContaminationIndex.of_target(target)
    sources: list[Source] = []
    counts: dict[str, int] = {}
    origin = Origin()
    if config.data is not None:
        dataset = open_dataset(config.data, config.data_name or None)
        examples = list(read(dataset, MAX_SOURCES).examples)
        if config.data_rows is not None:
            wanted = set(config.data_rows)
            examples = [example if i in wanted else None for i, example in enumerate(examples)]
        sources, counts = usable_sources(examples, dataset.name, target, index)
        origin = Origin((dataset.name,), dataset.card.licence)
    allowance = allowance or Allowance()
    chat = ChatSampler(llm, allowance=allowance, concurrency=concurrency, identity=llm.address) if llm else None
    local = LocalModelSampler(config.model, config.model_name or None, config.batch_size) if config.model else None
    student = (
        LocalModelSampler(config.student, config.student_name or None, config.batch_size) if config.student else None
    )
    return synthesize(
        config.plan,
        target,
        config.out,
        index=index,
        samplers=Samplers(local or chat, chat, student, allowance),
        sources=sources,
        source_counts=counts,
        origin=origin,
        notice=notice,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; the exit status is 0 when it succeeded. What happened is in outcome.json either way."""
    path = Path((sys.argv[1:] if argv is None else argv)[0]).resolve()

    def synthesis() -> dict[str, Any]:
        card = carry_out(_load(path), notice=lambda text: _say(text))
        tokens = sum(line.prompt_tokens + line.completion_tokens for line in card.usage.values())
        metrics = {"rows": float(card.rows), "distinct": float(card.distinct), "tokens": float(tokens)}
        return {"message": f"{card.rows} rows", "steps": card.rows, "metrics": metrics}

    return carry_through(path.parent, synthesis, _class_of)


def _load(path: Path) -> JobConfig:
    try:
        return JobConfig.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise ConfigError(f"the synthesis config {path} is not valid: {error}") from error


def _say(text: str) -> None:
    sys.stdout.write(f"{json.dumps(text, ensure_ascii=False)}\n")


def _class_of(error: BaseException) -> ErrorClass:
    if isinstance(error, ModelError):
        return "model"
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return "out_of_memory"
    if isinstance(error, OSError) and error.errno == 28:
        return "disk_full"
    if isinstance(error, DatasetError):
        return "data"
    return "config" if isinstance(error, CrewError) else "crashed"


if __name__ == "__main__":
    sys.exit(main())
