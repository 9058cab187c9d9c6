"""How long one optimizer step takes on a device that nobody has measured: arithmetic, bytes moved, tokens sampled.

A first guess for a plan; a run replaces it by what its own jobs took (estimate.py). Every share of a data sheet's peak
that is assumed is a constant here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from posttrain_crew.tools.training.hardware import Cluster, Sharding
from posttrain_crew.tools.training.memory import GIB, VLLM_OVERHEAD_GIB, Work

__all__ = ["MFU", "StepTime", "cache_rows", "step_time"]

MFU = {"full": 0.40, "lora": 0.35, "lora_8bit": 0.25, "qlora": 0.25}
"""Share of the peak FLOP/s that training reaches (PaLM, arXiv 2204.02311, appendix B: 0.46 at its best). Assumed."""
BANDWIDTH_SHARE = 0.7
"""Of the peak bandwidth of memory and links. Assumed."""
TOKEN_OVERHEAD_S = {"vllm": 0.003, "plain": 0.0008}
"""Of one sampled token: with vLLM and CUDA graphs in all, with transformers' `generate` for each layer. Assumed."""
HOST_ADAM_GBS = 40.0
"""GB/s at which DeepSpeedCPUAdam of one process goes through main memory. Assumed."""
OVERLAP = 0.8
"""Share of the communication that can run beside the compute. Assumed."""
PASS_OVERHEAD_S = 0.0003
"""Of a layer in one micro-batch: launching its kernels forward and backward. Assumed."""
ADAM_BYTES = 28
"""Of a parameter in one AdamW step in float32: 4 x 4 read (weight, gradient, two moments), 3 x 4 written."""


@dataclass(frozen=True)
class StepTime:
    """Seconds of one optimizer step, by what they are spent on."""

    compute: float
    """Forward and backward passes of all micro-batches."""
    communication: float
    """Gradients and weights between processes and main memory; most of it runs beside the compute."""
    optimizer: float
    sampling: float
    tokens: int
    """That the step trains on, over all processes."""

    @property
    def total(self) -> float:
        hidden = min(self.compute, OVERLAP * self.communication)
        return self.compute + self.communication - hidden + self.optimizer + self.sampling


def step_time(work: Work, sharding: Sharding, cluster: Cluster) -> StepTime:
    """Seconds of one optimizer step of `work` on every device of `cluster`."""
    device = cluster.device
    tokens = work.rows * work.length * work.accumulation
    flops = device.tflops * 1e12 * MFU[work.adapter]
    return StepTime(
        compute=tokens * _flops_a_token(work) / flops + work.accumulation * work.shape.layers * PASS_OVERHEAD_S,
        communication=_communication(work, sharding, cluster),
        optimizer=_optimizer(work, sharding, cluster),
        sampling=_sampling(work, cluster) if work.method == "grpo" and not work.vllm_server else 0.0,
        tokens=tokens * cluster.world,
    )


def cache_rows(work: Work, device_gib: float) -> int:
    """Completions that vLLM's share of a device can hold at once."""
    if work.vllm is None:
        return max(1, work.sampled_at_once)
    shape, parallel = work.shape, work.vllm.tensor_parallel
    free = work.vllm.share * device_gib * GIB - VLLM_OVERHEAD_GIB * GIB - 2 * shape.parameters / parallel
    row = 4.0 * shape.kv_width * shape.layers * work.length / parallel
    return max(0, int(free // row))


def _flops_a_token(work: Work) -> float:
    """2 FLOPs a weight forward, 4 backward (arXiv 2001.08361), and attention: 2 x layers x query width x length forward
    where each token sees half of the row on the average (arXiv 2204.02311, appendix B).

    Again forward with checkpointing. Frozen weights need half of the backward pass. The tiled LM head is applied once
    more in the backward pass. A reference, or GRPO's look at the policy that sampled, is one more forward pass.
    """
    shape = work.shape
    weights, attention = 2.0 * shape.linear, 2.0 * shape.layers * shape.query * work.length
    head = 2.0 * shape.embedding
    backward = (1 if work.adapter != "full" else 2) * (weights + head) + 2 * attention + head
    total = weights + attention + head + backward + (weights + attention if work.checkpointing else 0)
    extra = work.method == "dpo" or (work.method == "grpo" and (work.reference or work.vllm is not None))
    return total + (weights + attention + head if extra else 0)


def _communication(work: Work, sharding: Sharding, cluster: Cluster) -> float:
    """Ring all-reduce moves 2 (n - 1) / n of the gradients; ZeRO-3 gathers the weights twice and scatters the gradients
    once for each micro-batch: 1.5 times as much (arXiv 1910.02054, section 7)."""
    ring = (cluster.world - 1) / cluster.world
    width = 2.0 if work.bf16 else 4.0
    moved = 0.0
    if sharding.stage >= 3:
        moved = work.accumulation * ring * width * (2 * work.shape.parameters + work.trained)
    elif sharding.engine == "deepspeed":
        moved = (work.accumulation + 1) * ring * width * work.trained
    elif sharding.engine == "ddp":
        moved = 2 * ring * 4.0 * work.trained
    seconds = moved / (cluster.link * 1e9 * BANDWIDTH_SHARE)
    if sharding.offload_weights:
        hosted = work.accumulation * 2 * 2.0 * work.shape.parameters / cluster.world
        seconds += hosted / (cluster.device.host_link * 1e9 * BANDWIDTH_SHARE)
    return seconds


def _optimizer(work: Work, sharding: Sharding, cluster: Cluster) -> float:
    own = work.trained / (cluster.world if sharding.stage >= 1 else 1)
    if not sharding.offload_optimizer:
        return own * ADAM_BYTES / (cluster.device.bandwidth * 1e9 * BANDWIDTH_SHARE)
    there_and_back = own * (2 * work.accumulation + 2) / (cluster.device.host_link * 1e9 * BANDWIDTH_SHARE)
    return there_and_back + own * ADAM_BYTES / (HOST_ADAM_GBS * 1e9)


def _sampling(work: Work, cluster: Cluster) -> float:
    """Tokens come one after the other: each reads all weights and the cache of the rows so far (half of it on the
    average), as often as the rows do not fit the cache together."""
    device, shape = cluster.device, work.shape
    parallel = work.vllm.tensor_parallel if work.vllm else 1
    rows = max(1, work.sampled_at_once) * parallel  # the processes of a group sample for each other
    together = min(rows, max(1, cache_rows(work, device.memory_gib)))
    width = 2.0 if work.bf16 else 4.0
    weights = width * shape.parameters / parallel
    cache = 2 * width * shape.kv_width * shape.layers * (work.tokens + work.completion / 2) * together / parallel
    flops = device.tflops * 1e12 * MFU["full"]
    reading = (weights + cache) / (device.bandwidth * 1e9 * BANDWIDTH_SHARE)
    reckoning = 2.0 * shape.parameters / parallel * together / flops
    overhead = TOKEN_OVERHEAD_S["vllm"] if work.vllm else TOKEN_OVERHEAD_S["plain"] * shape.layers
    prefill = rows * work.tokens * 2.0 * shape.parameters / parallel / flops
    return prefill + math.ceil(rows / together) * work.completion * (max(reading, reckoning) + overhead)
