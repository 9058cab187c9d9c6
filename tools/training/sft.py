"""Supervised fine-tuning of a causal language model with TRL's SFTTrainer.

What it does: full fine-tuning, LoRA or QLoRA on `prompt` + `completion` rows (loss on the completion alone) or on
chats, from a config file, with the metrics in metrics.jsonl and trackio, exact resume from checkpoints by the clock,
and a typed outcome. Left out: multimodal data, streaming of data sets that do not fit in memory.

On this machine (CPU or one GPU):
    python -m posttrain_crew.tools.training.sft config.yaml
On 8 GPUs of one node, sharded with DeepSpeed ZeRO-3:
    accelerate launch --num_processes 8 --use_deepspeed --zero_stage 3 --mixed_precision bf16 \
        -m posttrain_crew.tools.training.sft config.yaml
"""

from __future__ import annotations

import sys
from typing import Any

from posttrain_crew.tools.training import session
from posttrain_crew.tools.training.resumption import resumable

__all__ = ["make_trainer"]


def make_trainer(job: session.Job) -> Any:
    """The SFTTrainer of a job."""
    from datasets import Dataset
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    return resumable(SFTTrainer, job.callback)(
        model=job.model,
        args=SFTConfig(**job.arguments),
        train_dataset=Dataset.from_list([_columns(row) for row in job.rows]),
        eval_dataset=None if job.eval_rows is None else Dataset.from_list([_columns(row) for row in job.eval_rows]),
        processing_class=job.tokenizer,
        callbacks=[job.callback],
        peft_config=job.adapter,
    )


def _columns(row: dict[str, Any]) -> dict[str, Any]:
    """Only what the trainer reads: provenance columns would be tokenized and carried along for nothing."""
    if "prompt" in row and "completion" in row:
        return {"prompt": row["prompt"], "completion": row["completion"]}
    return {"messages": row["messages"]} if "messages" in row else {"text": row["text"]}


if __name__ == "__main__":
    sys.exit(session.main("sft", make_trainer, sys.argv[1:]))
