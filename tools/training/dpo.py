"""Direct preference optimisation with TRL's DPOTrainer: of two answers to a prompt, make the chosen one likelier than
the rejected one, held near the model that training began with.

What it does: DPO and its relatives (`loss_type`: sigmoid, ipo, hinge, robust, apo_zero, ...; several with
`loss_weights`) on `prompt` + `chosen` + `rejected` rows, of all weights or of a LoRA or QLoRA adapter, from a config
file, with metrics in metrics.jsonl and trackio, exact resume from checkpoints by the clock, and a typed outcome. The
reference is the start checkpoint: a second copy of it in full fine-tuning (none with `precompute_ref_log_probs`), the
model without its adapter with LoRA. A resumed job takes the same reference, and not the checkpoint that it goes on
from. Left out: a reference other than the start checkpoint, multimodal data, online DPO.

On this machine (CPU or one GPU):
    python -m posttrain_crew.tools.training.dpo config.yaml
On 8 GPUs of one node, sharded with DeepSpeed ZeRO-3:
    accelerate launch --num_processes 8 --use_deepspeed --zero_stage 3 --mixed_precision bf16 \
        -m posttrain_crew.tools.training.dpo config.yaml
"""

from __future__ import annotations

import sys
from typing import Any

from posttrain_crew.tools.training import session
from posttrain_crew.tools.training.resumption import resumable

__all__ = ["make_trainer"]


def make_trainer(job: session.Job) -> Any:
    """The DPOTrainer of a job."""
    from datasets import Dataset
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    return resumable(DPOTrainer, job.callback)(
        model=job.model,
        ref_model=None,  # TRL loads the start checkpoint again, or switches the adapter off
        args=DPOConfig(**job.arguments),
        train_dataset=Dataset.from_list([_columns(row) for row in job.rows]),
        eval_dataset=None if job.eval_rows is None else Dataset.from_list([_columns(row) for row in job.eval_rows]),
        processing_class=job.tokenizer,
        callbacks=[job.callback],
        peft_config=job.adapter,
    )


def _columns(row: dict[str, Any]) -> dict[str, Any]:
    """Only what the trainer reads."""
    return {name: row[name] for name in ("prompt", "chosen", "rejected")}


if __name__ == "__main__":
    sys.exit(session.main("dpo", make_trainer, sys.argv[1:]))
