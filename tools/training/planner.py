"""How to train a model on given devices: whether it fits, with which settings, how long a step takes; and if not, why.

Every choice that keeps what is trained the same is tried: micro-batch with accumulation (the effective batch stays),
gradient checkpointing, how states are spread, offload, vLLM's share. The fastest that fits is taken. Method, lengths,
effective batch and adapter are the caller's: a plan never changes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

from posttrain_crew.entries import Method
from posttrain_crew.errors import ConfigError
from posttrain_crew.tools.training.hardware import Cluster, Device, Sharding, devices, sharding
from posttrain_crew.tools.training.memory import GIB, VLLM_OVERHEAD_GIB, Memory, Vllm, Work, memory_of
from posttrain_crew.tools.training.shape import ModelShape
from posttrain_crew.tools.training.steptime import StepTime, cache_rows, step_time

__all__ = ["Option", "Plan", "Request", "plan", "usual_request"]

LENGTHS: dict[Method, tuple[int, int]] = {"sft": (2048, 0), "dpo": (2048, 0), "grpo": (512, 1536)}
"""Tokens of a row (or prompt) and of a completion, where nothing else is asked for."""
BATCHES: dict[Method, int] = {"sft": 64, "dpo": 32, "grpo": 64}
"""Rows, pairs or completions of an optimizer step, likewise."""
RANK = 16
"""TRL's default `lora_r`."""
SHARES = tuple(share / 20 for share in range(3, 19))
"""Shares of a device that vLLM may get."""
NEARLY = 1.03
"""Ways within this factor of the fastest are taken for equal, and the simplest of them is chosen."""
ROOMY = 0.9
"""Share of the memory above which a way is chosen only if no other is nearly as fast: estimates err."""
_ONE = ("single", "zero2_offload", "zero3_offload_all")
_MANY = ("ddp", "zero2", "zero3", "zero2_offload", "zero3_offload", "zero3_offload_all")
_SIMPLEST = ("single", *_MANY)


@dataclass(frozen=True)
class Request:
    """What is to be trained, and on what."""

    shape: ModelShape
    method: Method
    cluster: Cluster
    adapter: str = "full"
    """full, lora or qlora."""
    tokens: int = 2048
    completion: int = 0
    batch: int = 64
    """Effective: rows, pairs or completions of an optimizer step over all processes."""
    group: int = 8
    """GRPO: completions of one prompt."""
    rank: int = RANK
    sampling: str = "colocate"
    """GRPO: colocate, server (on GPUs of its own) or plain (`generate`)."""
    only: str | None = None
    """A sharding profile that has to be used."""

    @property
    def dtype(self) -> Literal["float32", "bfloat16"]:
        """Of the weights. Frozen ones lose nothing in bfloat16, in which models are published; trained ones would."""
        return "float32" if self.adapter == "full" or self.cluster.device.on_cpu else "bfloat16"


@dataclass(frozen=True)
class Option:
    """One way to run it."""

    work: Work
    sharding: Sharding
    memory: Memory
    time: StepTime
    host_gib: float

    def trainer(self) -> dict[str, Any]:
        """The trainer fields that it consists of, with the lengths that it was reckoned for: the trainers' own defaults
        are others."""
        work = self.work
        fields: dict[str, Any] = {
            "per_device_train_batch_size": work.micro_batch,
            "gradient_accumulation_steps": work.accumulation,
            "gradient_checkpointing": work.checkpointing,
            "bf16": work.bf16,
        }
        if work.method == "grpo":
            fields["max_completion_length"] = work.completion
        else:
            fields["max_length"] = work.tokens
        if work.adapter != "full":
            fields |= {"use_peft": True, "lora_r": work.rank, "lora_target_modules": "all-linear"}
        if work.adapter == "qlora":
            fields["load_in_4bit"] = True
        if work.vllm is not None:
            fields |= {
                "use_vllm": True,
                "vllm_mode": "colocate",
                "vllm_gpu_memory_utilization": work.vllm.share,
                "vllm_enable_sleep_mode": work.vllm.sleeps,
                "vllm_max_model_length": work.length,
            }
            if work.vllm.tensor_parallel > 1:
                fields["vllm_tensor_parallel_size"] = work.vllm.tensor_parallel
        elif work.vllm_server:
            fields |= {"use_vllm": True, "vllm_mode": "server"}
        return fields

    def job(self) -> dict[str, Any]:
        """The fields of the job's config above `trainer` that it consists of."""
        return {"dtype": self.work.weights}

    def told(self) -> str:
        """In a few words, for a table."""
        work = self.work
        parts = [f"{work.micro_batch} x {work.accumulation}"]
        if work.checkpointing:
            parts.append("checkpointing")
        if self.sharding.engine != "none":
            parts.append(self.sharding.name)
        if work.vllm is not None:
            parallel = f" tp {work.vllm.tensor_parallel}" if work.vllm.tensor_parallel > 1 else ""
            parts.append(f"vLLM {work.vllm.share:g}{parallel}")
        return ", ".join(parts)


@dataclass(frozen=True)
class Plan:
    """The answer to a request."""

    request: Request
    best: Option | None
    """The fastest way that fits, or None."""
    leanest: Option | None
    """The way that needs the least memory, whether it fits or not; None where vLLM cannot hold the model at all."""
    why: str
    """Why it does not fit, or what was given up to make it fit."""
    nearest: str
    """Where it does not fit: the nearest that does, otherwise ""."""


def usual_request(
    shape: ModelShape, method: Method, cluster: Cluster, adapter: str = "full", **changes: Any
) -> Request:
    """A request with the usual lengths and batch of its method, and with `changes` to them."""
    tokens, completion = LENGTHS[method]
    usual: dict[str, Any] = {"tokens": tokens, "completion": completion, "batch": BATCHES[method]}
    return Request(shape, method, cluster, adapter, **{**usual, **changes})


def plan(request: Request) -> Plan:
    """The best way to run it.

    Raises:
        ConfigError: the batch cannot be spread over the devices, or a profile cannot be used here.
    """
    world, unit = request.cluster.world, request.group if request.method == "grpo" else 1
    if not _spreads(request):
        near = max(1, round(request.batch / (world * unit))) * world * unit
        groups = f" in whole groups of {unit}" if unit > 1 else ""
        raise ConfigError(
            f"an effective batch of {request.batch} cannot be spread over {world} process(es){groups}: take {near}, or "
            "another number of GPUs."
        )
    options = list(_options(request))
    if not options:
        return Plan(request, None, None, _no_room_for_vllm(request), _nearest(request))
    device = request.cluster.device
    fitting = [option for option in options if _short_of(option, device) is None]
    leanest = min(options, key=lambda option: (option.memory.gib, option.host_gib, option.time.total))
    if not fitting:
        return Plan(request, None, leanest, _reason(leanest, device), _nearest(request))
    best = _best(fitting, device)
    return Plan(request, best, leanest, _given_up(options, best, device), "")


def _best(fitting: list[Option], device: Device) -> Option:
    """The simplest of those that are nearly as fast as the fastest."""
    fastest = min(option.time.total for option in fitting)
    return min(
        (option for option in fitting if option.time.total <= NEARLY * fastest),
        key=lambda option: (
            option.memory.gib > ROOMY * device.memory_gib,
            _SIMPLEST.index(option.sharding.name) if option.sharding.name in _SIMPLEST else len(_SIMPLEST),
            option.memory.gib,
        ),
    )


def _spreads(request: Request) -> bool:
    """Whether each process gets as many rows as the others, and whole groups of GRPO's completions."""
    unit = request.group if request.method == "grpo" else 1
    return request.batch % (request.cluster.world * unit) == 0


def _options(request: Request) -> Iterator[Option]:
    cluster = request.cluster
    for profile in _profiles(request):
        for micro in _divisors(request.batch, cluster.world):
            for checkpointing in (False, True):
                work = Work(
                    method=request.method,
                    shape=request.shape,
                    tokens=request.tokens,
                    completion=request.completion if request.method == "grpo" else 0,
                    micro_batch=micro,
                    accumulation=request.batch // cluster.world // micro,
                    checkpointing=checkpointing,
                    weights=request.dtype,
                    bf16=not cluster.device.on_cpu,
                    adapter=request.adapter,  # type: ignore[arg-type]
                    rank=request.rank if request.adapter != "full" else 0,
                    whole_block=request.adapter != "full",  # `all-linear`, as the desk proposes it
                    dropout=request.adapter != "full" and request.method != "dpo",
                    reference=request.method == "dpo" and request.adapter == "full",
                    sampled_at_once=request.batch // cluster.world if request.method == "grpo" else 0,
                    vllm_server=request.method == "grpo" and request.sampling == "server",
                    on_cpu=cluster.device.on_cpu,
                )
                for variant in _with_vllm(work, request):
                    memory = memory_of(variant, profile, cluster.world, cluster.device.memory_gib)
                    time = step_time(variant, profile, cluster)
                    yield Option(variant, profile, memory, time, memory.host_bytes / GIB)


def _with_vllm(work: Work, request: Request) -> Iterator[Work]:
    """The smallest share that holds all completions, and the smallest that holds one."""
    if request.method != "grpo" or request.sampling != "colocate" or work.on_cpu:
        yield work
        return
    gib = request.cluster.device.memory_gib
    for parallel in (n for n in (1, 2, 4, 8) if request.cluster.gpus % n == 0):
        sizes: set[float] = set()
        for rows in (work.sampled_at_once * parallel, 8, 1):
            share = next(
                (s for s in SHARES if cache_rows(replace(work, vllm=Vllm(s, True, parallel)), gib) >= rows), None
            )
            if share is not None and share not in sizes:
                sizes.add(share)
                yield replace(work, vllm=Vllm(share, True, parallel))
        if sizes and min(sizes) <= 0.5:
            return  # splitting a sampler that has room only costs time


def _profiles(request: Request) -> list[Sharding]:
    cluster = request.cluster
    names: tuple[str, ...] = _ONE if cluster.world == 1 else _MANY
    if cluster.device.on_cpu:
        names = ("single",) if cluster.world == 1 else ("ddp", "zero2", "zero3")
    if request.adapter == "qlora":
        names = names[:1]  # bitsandbytes' packed weights are neither spread nor offloaded here
    if request.only is None:
        return [sharding(name) for name in names]
    wanted = sharding(request.only)
    if request.adapter == "qlora" and wanted.engine not in ("none", "ddp"):
        raise ConfigError(f"QLoRA's packed weights cannot be spread with `{wanted.name}`: use `single` or `ddp`.")
    if (wanted.engine == "none") != (cluster.world == 1) and wanted.engine in ("none", "ddp"):
        raise ConfigError(f"`{wanted.name}` is no profile for {cluster.world} process(es).")
    return [wanted]


def _divisors(batch: int, world: int) -> list[int]:
    if batch % world:
        return []
    each = batch // world
    return [micro for micro in range(1, each + 1) if each % micro == 0]


def _no_room_for_vllm(request: Request) -> str:
    return (
        f"vLLM cannot hold {request.shape.parameters / 1e9:.1f}e9 parameters in bfloat16 and one completion of "
        f"{request.tokens + request.completion} tokens in {SHARES[-1]:.0%} of {request.cluster.title}: it needs "
        f"{2 * request.shape.parameters / GIB + VLLM_OVERHEAD_GIB:.0f} GiB. It fits with a vLLM server on GPUs of its "
        "own, or on more or larger GPUs"
    )


def _short_of(option: Option, device: Device) -> str | None:
    if option.memory.gib > device.memory_gib:
        return f"{option.memory.gib:.1f} GiB on a device with {device.memory_gib:g}"
    if option.host_gib > device.host_gib:
        return f"{option.host_gib:.0f} GiB of main memory for each GPU, where {device.host_gib:g} are assumed"
    return None


def _reason(leanest: Option, device: Device) -> str:
    memory = leanest.memory
    if memory.load_bytes > memory.bytes:
        largest = f"loading the weights takes {memory.load_bytes / GIB:.1f} GiB"
    else:
        parts = sorted(memory.parts, key=lambda part: -part.bytes)[:3]
        largest = ", ".join(f"{part.name} {part.bytes / GIB:.1f}" for part in parts)
    return f"even {leanest.told()} needs {_short_of(leanest, device)} ({largest})"


def _given_up(options: list[Option], best: Option, device: Device) -> str:
    """Which faster ways were passed over because they do not fit."""
    faster = [o for o in options if NEARLY * o.time.total < best.time.total and _short_of(o, device) is not None]
    faster.sort(key=lambda option: option.memory.gib)
    if not faster:
        return "the fastest way fits"
    return f"faster, but too large: {faster[0].told()} needs {_short_of(faster[0], device)}"


@cache
def _nearest(request: Request) -> str:
    """The smallest change of the machine alone with which it fits, then what would change the experiment."""
    cluster = request.cluster
    more = [replace(cluster, gpus=gpus) for gpus in (2, 4, 8) if gpus > cluster.gpus]
    larger = sorted(
        (d for d in devices().values() if not d.on_cpu and d.memory_gib > cluster.device.memory_gib),
        key=lambda device: device.memory_gib,
    )
    other = [replace(cluster, device=device, gpus=gpus) for gpus in (cluster.gpus, 2, 4, 8) for device in larger]
    for candidate in (*more, *other, *(replace(cluster, gpus=8, nodes=nodes) for nodes in (2, 4, 8))):
        wanted = replace(request, cluster=candidate)
        if not candidate.device.on_cpu and _spreads(wanted) and (found := _fits(wanted)) is not None:
            return f"{candidate.title} ({found.told()}, {found.memory.gib:.0f} GiB)"
    for adapter, name in (("lora", "LoRA"), ("qlora", "QLoRA")):
        if request.adapter == "full" and (found := _fits(replace(request, adapter=adapter))) is not None:
            return f"no larger machine that is known here; {name} fits this one ({found.told()}), if you choose it"
    return "nothing that is known here"


def _fits(request: Request) -> Option | None:
    fitting = [option for option in _options(request) if _short_of(option, request.cluster.device) is None]
    return _best(fitting, request.cluster.device) if fitting else None
