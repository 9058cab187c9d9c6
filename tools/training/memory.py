"""What a training needs of each device's memory, part by part, each with its formula and where that comes from.

The parts that last are exact: weights, gradients, optimizer states (arXiv 1910.02054, section 3). Those that come and
go are added up at the moment of a step when they are largest. The formulas of one layer and of the LM head were read
off the tensors that transformers 5.23 and TRL 1.16 really keep, and tests/training/test_planner.py holds them to that;
margins for what no formula knows (CUDA context, fragmentation) are marked as assumptions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from posttrain_crew.entries import Method
from posttrain_crew.tools.training.config import trainer_value
from posttrain_crew.tools.training.hardware import Sharding
from posttrain_crew.tools.training.shape import ModelShape

__all__ = ["GIB", "Memory", "Part", "Vllm", "Work", "memory_of"]

GIB = 2**30

PROCESS_GIB = 1.0
"""On a GPU the CUDA context and cuBLAS's workspaces: an assumption. On a CPU Python, torch and the trainer before a
model is loaded: measured 0.7 (SFT) and 1.0 (GRPO) with the embedded base."""
NCCL_GIB = 0.5
"""Buffers of NCCL where several GPUs work together: an assumption."""
FRAGMENTATION = 0.05
"""Of what comes and goes, on a GPU: what the caching allocator cannot use again. An assumption."""
HEAD_TILE = (4096, 32768)
"""Tokens x vocabulary of the tiles in which TRL 1.16 applies the LM head (trl/kernels/chunked_logprob.py)."""
HEAD_TILE_COPIES_CPU = 7.25
"""float32 tensors of a tile's size at once where there is no Triton (`_backward_tile`: 7, and one of bool)."""
VLLM_OVERHEAD_GIB = 1.5
"""Of a vLLM engine beside weights and KV cache: activations of a prefill, CUDA graphs. An assumption."""
_OPTIMIZER_BYTES = {"adafactor": 0.1, "sgd": 0.0, "adamw_8bit": 2.0, "paged_adamw_8bit": 2.0, "adamw_bnb_8bit": 2.0}
"""Bytes of optimizer state a trained parameter, for those that do not keep two moments of the weights' own type."""

_ZERO, _RECOMPUTE, _LORA, _QLORA = "arXiv 1910.02054", "arXiv 2205.05198", "arXiv 2106.09685", "arXiv 2305.14314"
_SAVED = "tensors kept by transformers 5.23"
_TILES = "trl/kernels/chunked_logprob.py"
_ASSUMED = "assumption"


@dataclass(frozen=True)
class Vllm:
    """Sampling by vLLM on the training GPUs (colocate)."""

    share: float
    """`vllm_gpu_memory_utilization`: of the device's memory."""
    sleeps: bool
    """`vllm_enable_sleep_mode`: it gives its memory back while the model is trained."""
    tensor_parallel: int = 1


@dataclass(frozen=True)
class Work:
    """One training, as far as its memory and its time depend on it."""

    method: Method
    shape: ModelShape
    tokens: int
    """Of the longest row, or for GRPO of the longest prompt."""
    micro_batch: int
    """Rows (DPO: pairs) of one pass on one process."""
    accumulation: int = 1
    completion: int = 0
    """GRPO: most tokens that are sampled for a row."""
    checkpointing: bool = False
    weights: Literal["float32", "bfloat16"] = "float32"
    bf16: bool = False
    """Compute in 16 bits (`trainer.bf16`, TRL's default on an accelerator, or `fp16`)."""
    optimizer: str = "adamw_torch_fused"
    adapter: Literal["full", "lora", "lora_8bit", "qlora"] = "full"
    rank: int = 0
    whole_block: bool = False
    """The adapter is on all seven matrices of a layer, not on the four of attention."""
    dropout: bool = False
    """`lora_dropout` is not 0 and not switched off (DPO's `disable_dropout`)."""
    reference: bool = False
    """A second, frozen copy of the model is held."""
    sampled_at_once: int = 0
    """GRPO: completions that one process samples together."""
    vllm: Vllm | None = None
    vllm_server: bool = False
    on_cpu: bool = False

    @classmethod
    def of(
        cls,
        method: Method,
        trainer: Mapping[str, Any],
        shape: ModelShape,
        max_tokens: int,
        *,
        dtype: str = "float32",
        on_cpu: bool = False,
    ) -> Work:
        """From a job's trainer fields, with the installed trainer's defaults and the job's own on a CPU (session.py).

        Args:
            max_tokens: of the longest row of the training set (of the prompt, for GRPO).
        """

        def value(name: str) -> Any:
            if on_cpu and name in ("bf16", "gradient_checkpointing") and name not in trainer:
                return False
            return trainer_value(method, dict(trainer), name)

        on_cpu = on_cpu or bool(value("use_cpu"))
        micro, steps = int(value("per_device_train_batch_size")), int(value("gradient_accumulation_steps"))
        completion = int(value("max_completion_length") or 256) if method == "grpo" else 0
        limit = value("max_length") if method != "grpo" else None
        lora = bool(value("use_peft"))
        targets = value("lora_target_modules")
        beside = method == "dpo" and not value("precompute_ref_log_probs")
        beside = beside or (method == "grpo" and (value("beta") or 0) > 0)
        colocate = method == "grpo" and bool(value("use_vllm")) and value("vllm_mode") == "colocate"
        return cls(
            method=method,
            shape=shape,
            # packing fills every row up to the limit
            tokens=max(1, int(limit) if limit and value("packing") else min(max_tokens, int(limit or max_tokens))),
            micro_batch=micro,
            accumulation=steps,
            completion=completion,
            checkpointing=bool(value("gradient_checkpointing")),
            weights="bfloat16" if dtype == "bfloat16" else "float32",
            # TRL: bfloat16 where nothing is said of it
            bf16=bool(value("fp16") or (value("bf16") if value("bf16") is not None else not on_cpu)),
            optimizer=str(value("optim") or "adamw_torch_fused"),
            adapter=(
                "full"
                if not lora
                else "qlora"
                if value("load_in_4bit")
                else "lora_8bit"
                if value("load_in_8bit")
                else "lora"
            ),
            rank=int(value("lora_r")) if lora else 0,
            whole_block=targets == "all-linear" or (isinstance(targets, list) and len(targets) > 4),
            dropout=bool(value("lora_dropout")) and not value("disable_dropout"),
            reference=beside and not lora,
            sampled_at_once=micro * int(value("steps_per_generation") or steps) if method == "grpo" else 0,
            vllm=(
                Vllm(
                    float(value("vllm_gpu_memory_utilization") or 0.3),
                    bool(value("vllm_enable_sleep_mode")),
                    int(value("vllm_tensor_parallel_size") or 1),
                )
                if colocate
                else None
            ),
            vllm_server=method == "grpo" and bool(value("use_vllm")) and not colocate,
            on_cpu=on_cpu,
        )

    @property
    def length(self) -> int:
        """Tokens of the longest row in a forward pass."""
        return self.tokens + self.completion

    @property
    def rows(self) -> int:
        """Rows of one pass: a DPO pair is two."""
        return self.micro_batch * (2 if self.method == "dpo" else 1)

    @property
    def trained(self) -> int:
        """Parameters that get a gradient. LoRA: rank x (width in + width out) of each matrix (arXiv 2106.09685)."""
        shape = self.shape
        if self.adapter == "full":
            return shape.parameters
        widths = 2 * (shape.hidden + shape.query) + 2 * (shape.hidden + shape.kv_width)
        widths += 3 * (shape.hidden + shape.mlp) if self.whole_block else 0
        return min(shape.parameters, self.rank * widths * shape.layers)


@dataclass(frozen=True)
class Part:
    """One use of a device's memory at the moment when most is used."""

    name: str
    bytes: float
    formula: str
    source: str


@dataclass(frozen=True)
class Memory:
    """What one process needs."""

    parts: tuple[Part, ...]
    moment: str
    """Of a step, when it needs most."""
    host_bytes: float
    """Main memory for what is offloaded."""
    load_bytes: float
    """On the device while the weights are loaded, before anything is spread."""

    @property
    def bytes(self) -> float:
        return sum(part.bytes for part in self.parts)

    @property
    def gib(self) -> float:
        """Of the device: the most of a step, or of loading where that is more."""
        return max(self.bytes, self.load_bytes) / GIB


def memory_of(work: Work, sharding: Sharding, world: int = 1, device_gib: float = 0.0) -> Memory:
    """The memory of one of `world` processes.

    Args:
        device_gib: of the device; vLLM's share is a share of it.
    """
    states, host = _states(work, sharding, world)
    moments = _moments(work, sharding, world)
    always, vllm = list(states), []
    if work.vllm is not None:
        vllm = [
            Part("vLLM", work.vllm.share * device_gib * GIB, f"{work.vllm.share:g} of {device_gib:g} GiB", "TRL field")
        ]
        if not work.vllm.sleeps:
            always, vllm = always + vllm, []
        moments["sampling"] = vllm

    def there(moment: str) -> list[Part]:
        gone = moment == "sampling" and not _gradients_while_sampling(work, sharding)
        return [part for part in always if not (gone and part.name == "gradients")] + moments[moment]

    name = max(moments, key=lambda moment: sum(part.bytes for part in there(moment)))
    parts = moments[name]
    rest = _beside(work, sharding, world, sum(part.bytes for part in parts if part.name != "vLLM"))
    return Memory(
        parts=tuple(part for part in (*there(name), *rest) if part.bytes > 0),
        moment=name,
        host_bytes=host,
        # FSDP and ZeRO-3 place each weight on its owner as it is read (launcher.py `sharded_loading`)
        load_bytes=work.shape.parameters * _weight_bytes(work, sharding) if sharding.stage < 3 else 0.0,
    )


def _weight_bytes(work: Work, sharding: Sharding) -> float:
    """Bytes of one weight that is held: DeepSpeed turns the model itself to bfloat16, the others compute in a copy."""
    if work.adapter == "qlora":
        return 0.5 + 4 / 64  # NF4, and a float32 scale for each block of 64
    if work.adapter == "lora_8bit":
        return 1.0
    if work.weights == "bfloat16" or (sharding.engine == "deepspeed" and work.bf16):
        return 2.0
    return 4.0


def _compute_bytes(work: Work) -> int:
    return 2 if work.bf16 or work.weights == "bfloat16" else 4


def _states(work: Work, sharding: Sharding, world: int) -> tuple[list[Part], float]:
    """Weights, reference, gradients that are always there, optimizer states; and the bytes of them in main memory."""
    shape, stage, zero = work.shape, sharding.stage, sharding.engine == "deepspeed"
    each = _weight_bytes(work, sharding)
    quantised = work.adapter in ("qlora", "lora_8bit")
    held = each * shape.linear + 2 * (shape.parameters - shape.linear) if quantised else each * shape.parameters
    state = 4.0 if zero else (2.0 if work.weights == "bfloat16" and work.adapter == "full" else 4.0)
    own = state if work.adapter != "full" else each  # an adapter is float32 beside frozen weights of any type
    held += work.trained * own if work.adapter != "full" else 0
    by_weights, by_gradients = (world if stage >= 3 else 1), (world if stage >= 2 else 1)
    by_optimizer = world if stage >= 1 else 1
    moments = _OPTIMIZER_BYTES.get(work.optimizer, 2 * state)
    master = 4.0 * work.trained / by_optimizer if zero else 0.0
    optimizer = moments * work.trained / by_optimizer
    gradients = own * work.trained / by_gradients
    weights = held / by_weights
    share = f" / {world}" if world > 1 else ""
    parts = [] if sharding.offload_weights else [_part("weights", weights, held, shape.parameters, by_weights, work)]
    host = weights if sharding.offload_weights else 0.0
    if work.reference:
        # TRL spreads and offloads the reference under ZeRO-3 and FSDP alone, as it does the weights
        reference = each * shape.parameters / by_weights
        if sharding.offload_weights:
            host += reference
        else:
            parts.append(Part("reference", reference, "as the weights, frozen", "arXiv 2305.18290, section 4"))
    if sharding.offload_optimizer:
        host += optimizer + master + 4 * work.trained / by_optimizer
        gradients = 0.0  # each goes to main memory as it is made
    else:
        parts.append(Part("optimizer states", optimizer, f"{moments:g} B x trained{share}", _ZERO))
        parts.append(Part("master weights", master, f"4 B x trained{share}", _ZERO))
    if _gradients_stay(work, sharding):
        formula = f"{own:g} B x trained" + (share if by_gradients > 1 else "")
        parts.append(Part("gradients", gradients, formula, _ZERO))
    return parts, host


def _part(name: str, share: float, whole: float, parameters: int, by: int, work: Work) -> Part:
    formula = f"{whole / parameters:.3g} B x {parameters / 1e9:.3g}e9" + (f" / {by}" if by > 1 else "")
    source = {"qlora": _QLORA, "lora": _LORA, "lora_8bit": _LORA}.get(work.adapter, _ZERO)
    return Part(name, share, formula, source)


def _gradients_stay(work: Work, sharding: Sharding) -> bool:
    """Whether gradients are held through the whole step. Otherwise each comes while activations go."""
    return sharding.engine != "none" or work.accumulation > 1


def _gradients_while_sampling(work: Work, sharding: Sharding) -> bool:
    """Whether gradients are there while GRPO samples: at the start of a step the last one's are dropped
    (`zero_grad(set_to_none=True)`); DeepSpeed keeps its own buffers of them."""
    return sharding.engine == "deepspeed" or work.sampled_at_once < work.micro_batch * work.accumulation


def _moments(work: Work, sharding: Sharding, world: int) -> dict[str, list[Part]]:
    """What comes and goes, at the moments of a step at which most of it can be there."""
    shape, width = work.shape, _compute_bytes(work)
    per_pass = work.rows * work.length  # tokens
    residual = 2 if work.weights == "bfloat16" or (sharding.engine == "deepspeed" and work.bf16) else 4
    layer = per_pass * _layer_bytes(work, residual)
    inputs = per_pass * residual * shape.hidden
    final = per_pass * shape.hidden * (8 if residual == 4 and work.adapter == "full" else 6)
    kept = (shape.layers * inputs if work.checkpointing else shape.layers * layer) + final
    backward = per_pass * (3 * shape.mlp * width + 2 * shape.hidden * residual)
    copies, layer_copies, copied = _copies(work, sharding)
    forward_head, backward_head, head_gradient = _head(work, sharding, per_pass)
    own = 4.0 if work.adapter != "full" else _weight_bytes(work, sharding)
    coming = 0.0 if _gradients_stay(work, sharding) else own * work.trained
    embedding = 0.0 if work.adapter != "full" else own * shape.embedding
    if work.checkpointing:
        told = f"{residual} B x {shape.hidden} x {shape.layers} layers + one layer, x {per_pass} tokens"
    else:
        told = f"{_layer_bytes(work, residual):.0f} B x {shape.layers} layers x {per_pass} tokens"

    def at(activations: float, head: float, weights: float, gradients: float) -> list[Part]:
        return [
            Part("activations", activations, told, f"{_RECOMPUTE}; {_SAVED}"),
            Part("LM head", head, _head_told(work), _TILES),
            Part("weight copies", weights, copied[0], copied[1]),
            Part("gradients", gradients, f"{own:g} B x trained", _ZERO),
        ]

    block = layer if work.checkpointing else 0.0
    moments = {
        "end of the forward pass": at(kept, forward_head, copies, 0.0),
        "backward pass of the LM head": at(kept, backward_head, layer_copies if work.checkpointing else copies, 0.0),
        "backward pass of the last layer": at(
            kept + block + backward,
            0.0,
            layer_copies if work.checkpointing else copies,
            min(coming, head_gradient),
        ),
        "end of the backward pass": at(inputs + layer + backward, embedding, layer_copies, coming),
        "optimizer step": at(0.0, 0.0, _step_bytes(work, sharding, world), coming),
    }
    if work.method == "grpo" and work.vllm is None and not work.vllm_server:
        moments["sampling"] = [_cache(work, width)]
    return moments


def _layer_bytes(work: Work, residual: int) -> float:
    """Bytes a token that one layer keeps for its backward pass. h, q, kv, m: widths of the residual stream, queries,
    keys, MLP; counted on the modules of Llama and Qwen3 (RMSNorm in float32, fused attention, gated MLP).

    All in one type of b bytes: two norms keep input and normalised input, two linear inputs, queries, keys, values and
    output of attention, four tensors of the MLP: (6 h + 2 q + 2 kv + 4 m) b. bfloat16 weights: the norms' inputs once
    more in float32. Autocast: the norms stay float32, and each of five linear layers keeps its own cast of its input.
    Queries' and keys' own norms keep two tensors more. A padded batch has a mask, for which grouped keys and values are
    repeated to the queries' width. Frozen weights need no inputs of their own: norms keep their input alone, the MLP
    three tensors, and only a matrix with an adapter its input.
    """
    shape, width = work.shape, _compute_bytes(work)
    h, q, kv, m = shape.hidden, shape.query, shape.kv_width, shape.mlp
    attention = (2 * q + 2 * (kv if work.on_cpu else q)) * width
    statistics = 4.0 * (2 + shape.heads + (shape.heads + shape.kv_heads if shape.qk_norm else 0))
    if work.adapter != "full":
        norms, own_norms = 8 * h, 4 * (q + kv)
        inputs = width * (h + (h + m if work.whole_block else 0)) + width * work.rank * (7 if work.whole_block else 4)
        if work.dropout:  # for each matrix a dropped-out copy of its input and its mask
            mask = 4 if work.on_cpu else 1
            inputs += (width + mask) * (3 * h + q + (2 * h + m if work.whole_block else 0)) - width * h
        mlp = 3 * m * width
    else:
        mlp = 4 * m * width
        if width == 4:
            norms, inputs, own_norms = 16 * h, 8 * h, 8 * (q + kv)
        elif residual == 2:
            norms, inputs, own_norms = 12 * h, 4 * h, 6 * (q + kv)
        else:
            norms, inputs, own_norms = 16 * h, 10 * h, 6 * (q + kv)
    return norms + inputs + attention + mlp + (own_norms if shape.qk_norm else 0) + statistics


def _copies(work: Work, sharding: Sharding) -> tuple[float, float, tuple[str, str]]:
    """Copies of weights in another place or type: (of all layers, of one layer, (formula, source))."""
    shape, width = work.shape, _compute_bytes(work)
    if sharding.stage >= 3:
        live = sharding.bucket("stage3_max_live_parameters") or 2 * shape.block + 2 * shape.embedding
        gathered = float(width * min(shape.parameters, max(live, shape.embedding)))
        return gathered, gathered, (f"{width} B x weights that are gathered at once", _ZERO)
    if work.adapter in ("qlora", "lora_8bit"):
        one = float(width * max(shape.block // 4, 3 * shape.hidden * shape.mlp // 3))
        return one, one, (f"{width} B x the largest matrix, unpacked", _QLORA)
    if work.bf16 and _weight_bytes(work, sharding) == 4.0 and work.adapter == "full":
        return 2.0 * shape.linear, 2.0 * shape.block, ("2 B x weights of the layers (autocast's cache)", _SAVED)
    if work.bf16 and _weight_bytes(work, sharding) == 4.0:  # frozen weights are cast anew and kept for the backward
        return 2.0 * shape.linear, 2.0 * shape.block, ("2 B x weights of the layers (autocast)", _SAVED)
    return 0.0, 0.0, ("", "")


def _head(work: Work, sharding: Sharding, per_pass: int) -> tuple[float, float, float]:
    """TRL applies the LM head in tiles and never holds all logits: (forward, backward, gradient of its weights)."""
    shape, width = work.shape, _compute_bytes(work)
    scored = work.rows * work.completion if work.method == "grpo" and not work.on_cpu else per_pass
    rows = min(scored, HEAD_TILE[0])
    columns = min(shape.vocabulary, HEAD_TILE[1])
    # a tile is made in its full width; of main memory a row takes only the pages that are written to
    tile = float(rows * (max(columns, 4096 // width) if work.on_cpu else HEAD_TILE[1]) * width)
    cast = float(columns * shape.hidden * width) if _weight_bytes(work, sharding) != width else 0.0
    copies = 0.0
    if work.on_cpu:
        copies = HEAD_TILE_COPIES_CPU * rows * columns * 4
    gradient = 4.0 * shape.embedding if work.adapter == "full" else 0.0
    forward = tile + cast + copies / 2
    backward = tile + cast + copies + 4.0 * scored * shape.hidden + gradient
    return forward, backward, gradient


def _head_told(work: Work) -> str:
    tile = f"{_compute_bytes(work)} B x tokens of a tile (<= {HEAD_TILE[0]}) x {HEAD_TILE[1]}"
    whole = " + 4 B x vocabulary x hidden (its gradient)" if work.adapter == "full" else ""
    return tile + " + 4 B x tokens x hidden" + whole


def _step_bytes(work: Work, sharding: Sharding, world: int) -> float:
    """DeepSpeed's optimizer step takes its gradients in float32, at most a sub-group of 1e9 at once in stage 3."""
    if sharding.engine != "deepspeed" or sharding.offload_optimizer:
        return 0.0
    return 4.0 * min(work.trained / world, 1e9 if sharding.stage >= 3 else work.trained)


def _cache(work: Work, width: int) -> Part:
    shape = work.shape
    size = 2.0 * shape.kv_width * shape.layers * width * work.length * max(1, work.sampled_at_once)
    formula = f"2 x {width} B x {shape.kv_width} x {shape.layers} layers x {work.length} x {work.sampled_at_once} rows"
    return Part("KV cache", size, formula, "arXiv 2309.06180")


def _beside(work: Work, sharding: Sharding, world: int, moving: float) -> list[Part]:
    parts = []
    if sharding.engine == "ddp":
        own = 4.0 if work.adapter != "full" else _weight_bytes(work, sharding)
        parts.append(Part("buffers", own * work.trained, "DDP's buckets: a second copy of the gradients", "torch DDP"))
    elif sharding.engine == "deepspeed":
        width = _compute_bytes(work)
        elements = 2 * sharding.bucket("reduce_bucket_size")  # twice: overlap_comm
        elements += sharding.bucket("allgather_bucket_size") + sharding.bucket("stage3_prefetch_bucket_size")
        most = max(work.trained, work.shape.parameters if sharding.stage >= 3 else 0)
        parts.append(
            Part("buffers", float(width * min(elements, 3 * most)), f"{width} B x DeepSpeed's buckets", "profile")
        )
    mask = work.rows * work.length**2 * (1 + _compute_bytes(work)) if not work.on_cpu else 0
    parts.append(Part("attention mask", float(mask), "3 or 5 B x rows x length^2 (padded batches)", _SAVED))
    fixed = PROCESS_GIB + (NCCL_GIB if world > 1 and not work.on_cpu else 0.0)
    parts.append(Part("process", fixed * GIB, f"{fixed:g} GiB: context and libraries", _ASSUMED))
    if not work.on_cpu:
        spare = FRAGMENTATION * moving
        parts.append(Part("fragmentation", spare, f"{FRAGMENTATION:.0%} of what comes and goes", _ASSUMED))
    return parts
