"""Group-relative policy optimisation with TRL's GRPOTrainer: sample several answers, reinforce those better than their
group.

What it does: on-policy GRPO and its relatives (`loss_type`: dapo, dr_grpo, ...) from a config file, with named and
calibrated rewards (rewards.py), of all weights or of a LoRA or QLoRA adapter, with metrics in metrics.jsonl and
trackio, exact resume from checkpoints by the clock, and a typed outcome.
Left out: tools and environments in the rollout, rewards that are models.

On this machine (CPU or one GPU; on a GPU `use_vllm: true, vllm_mode: colocate` makes sampling several times faster):
    python -m posttrain_crew.tools.training.grpo config.yaml
On 8 GPUs of one node, sharded with DeepSpeed ZeRO-3:
    accelerate launch --num_processes 8 --use_deepspeed --zero_stage 3 --mixed_precision bf16 \
        -m posttrain_crew.tools.training.grpo config.yaml
"""

from __future__ import annotations

import sys
from typing import Any

from posttrain_crew.tools.data.turn_end import end_ids
from posttrain_crew.tools.training import session
from posttrain_crew.tools.training.config import trainer_value
from posttrain_crew.tools.training.environment import check_vllm
from posttrain_crew.tools.training.resumption import resumable
from posttrain_crew.tools.training.rewards import Reward, check_rewards, check_rows, resolve, scored

__all__ = ["make_trainer", "reward_functions"]


def make_trainer(job: session.Job) -> Any:
    """The GRPOTrainer of a job. Raises ConfigError, DatasetError for what could only fail later."""
    rewards = reward_functions(job)
    check_rows([spec.name for spec in job.config.reward], job.rows)
    check_vllm(job.config.method, job.config.trainer)
    from datasets import Dataset
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    return resumable(GRPOTrainer, job.callback)(
        model=job.model,
        args=GRPOConfig(**_stopping(job)),
        reward_funcs=rewards,
        train_dataset=Dataset.from_list(job.rows),
        eval_dataset=None if job.eval_rows is None else Dataset.from_list(job.eval_rows),
        processing_class=job.tokenizer,
        callbacks=[job.callback],
        peft_config=job.adapter,
    )


def _stopping(job: session.Job) -> dict[str, Any]:
    """The arguments, with the end tokens for vLLM: it loads the folder's tokenizer, not the one made fit for chat."""
    if not job.chat or not job.arguments.get("use_vllm"):
        return job.arguments
    ends = end_ids(job.tokenizer.eos_token_id, job.model.generation_config.eos_token_id)
    given = job.arguments.get("generation_kwargs") or {}
    return {**job.arguments, "generation_kwargs": {"stop_token_ids": ends, **given}}


def reward_functions(job: session.Job) -> list[Reward]:
    """The rewards of the config, bound to its answer format. Raises ConfigError for rewards that cannot teach the task
    (`check_rewards`): a job that somebody starts by hand had no preflight."""
    config = job.config
    names, weights = [spec.name for spec in config.reward], [spec.weight for spec in config.reward]
    check_rewards(names, config.answer_template, config.answer_labels, weights)
    return [_bound(spec.name, job) for spec in job.config.reward]


def _bound(name: str, job: session.Job) -> Reward:
    reward = resolve(name)

    def bound(completions: list[Any], **columns: Any) -> list[float]:
        fixed = {
            "answer_template": job.config.answer_template,
            "answer_labels": job.config.answer_labels,
            "max_completion_length": int(trainer_value("grpo", job.config.trainer, "max_completion_length") or 256),
        }
        return scored(name, reward, completions=completions, **{**columns, **fixed})

    bound.__name__ = name  # TRL names the metric after it: rewards/NAME/mean
    return bound


if __name__ == "__main__":
    sys.exit(session.main("grpo", make_trainer, sys.argv[1:]))
