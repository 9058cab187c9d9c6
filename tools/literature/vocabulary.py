"""The closed vocabularies of the literature library, each word with its meaning.

Tags are closed so that recipe rules (recipe_rules.yaml) can be written against them: a paper tagged "grop" would never
be found, so it is refused when the library is loaded. To widen a vocabulary, add a word and its meaning here.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from posttrain_crew.errors import InputError

__all__ = ["METHODS", "NEEDS", "TECHNIQUES", "TRL_FIELDS", "check_word"]

TECHNIQUES: dict[str, str] = {
    # supervised
    "sft": "supervised fine-tuning on demonstrations",
    "instruction-tuning": "fine-tuning on many tasks phrased as instructions",
    "chain-of-thought": "intermediate reasoning steps in prompts or training targets",
    "distillation": "training a student on the outputs of a stronger teacher",
    "rejection-sampling": "keeping only sampled solutions that pass a check",
    "self-training": "a model trained on its own filtered outputs",
    "curriculum": "ordering or filtering training items by difficulty",
    # preference and reinforcement
    "preference-data": "pairs or labels that say which answer is better",
    "dpo": "direct preference optimisation and its relatives, without a separate reward model",
    "reward-model": "a learned scorer of answers",
    "process-reward": "rewards or labels for single steps of a solution",
    "ppo": "proximal policy optimisation with a value network",
    "reinforce": "policy gradient without a value network (REINFORCE, RLOO)",
    "grpo": "advantages normalised within a group of samples of one prompt, and its variants",
    "rlvr": "reinforcement learning with verifiable rewards",
    "length-control": "measuring or steering the length of answers, length bias",
    "reward-hacking": "rising reward without rising quality, over-optimisation",
    "format": "learning or checking the answer format apart from the content",
    # data
    "synthetic-data": "training data written by a model",
    "data-selection": "choosing few good items among many",
    "data-mixing": "proportions of data sources",
    "domain-data": "training material from sources of a field: textbooks, papers, its web pages",
    "deduplication": "removing repeated or nearly repeated items",
    "decontamination": "finding or removing benchmark items in training data",
    # machinery
    "lora": "low-rank adapters",
    "qlora": "low-rank adapters on a quantised base model",
    "optimizer": "optimisers and learning-rate schedules",
    "distributed-training": "partitioning of parameters and optimiser states, throughput",
    "merging": "averaging or combining weights of several checkpoints",
    "small-models": "about models of few billion parameters or less, as learners",
    "test-time-compute": "spending more samples or tokens at inference",
    # about
    "benchmark": "introduces a benchmark",
    "evaluation": "how to measure, prompting settings, noise of measurements",
    "pretraining": "pretraining or continued pretraining",
    "critique": "finds limits or failures of a technique: a caution, never evidence for a recipe",
}
"""Tag -> meaning. The meaning is searchable text too."""

NEEDS: dict[str, str] = {
    "format": "the model knows the answer but does not give it in the form that is scored",
    "reasoning": "answers without worked steps where steps are needed",
    "knowledge": "facts of the field are missing",
    "noisy-data": "the training data at hand is wrong, repeated, or contaminated",
    "small-model": "the base model is too small for what large models learn from",
    "plateau": "training has stopped to raise the score",
}
"""What an evaluation or diagnosis says is missing: the vocabulary of `recipe_drafts(..., needs)`."""

METHODS: tuple[str, ...] = ("sft", "grpo", "dpo")
"""The trainers crew has, one TRL trainer each."""

TRL_FIELDS: frozenset[str] = frozenset(
    {
        # transformers.TrainingArguments
        "adam_beta1",
        "adam_beta2",
        "gradient_accumulation_steps",
        "learning_rate",
        "lr_scheduler_type",
        "max_grad_norm",
        "max_steps",
        "num_train_epochs",
        "per_device_train_batch_size",
        "warmup_steps",
        "weight_decay",
        # trl SFTConfig, DPOConfig, GRPOConfig
        "beta",
        "epsilon",
        "epsilon_high",
        "importance_sampling_level",
        "loss_type",
        "mask_truncated_completions",
        "max_completion_length",
        "max_length",
        "num_generations",
        "num_iterations",
        "scale_rewards",
        "steps_per_generation",
        "temperature",
        "top_p",
        # peft LoraConfig (lora_ in front, as in trl ModelConfig)
        "lora_alpha",
        "lora_dropout",
        "lora_r",
    }
)
"""Names that a paper's hyperparameters may use, so that a trainer needs no translation."""


def check_word(word: str, vocabulary: Iterable[str], what: str) -> str:
    """Return `word`, or raise InputError that names the nearest words of the vocabulary."""
    words = sorted(vocabulary)
    if word in words:
        return word
    near = difflib.get_close_matches(word, words, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(words)}."
    raise InputError(f"{what} {word!r} is not in the vocabulary; {hint}")
