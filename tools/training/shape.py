"""The shape of a model: what its memory and its time depend on, from a folder or from the models that crew knows."""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from posttrain_crew.errors import ModelError

__all__ = ["ModelShape", "find_shape", "known_shapes", "model_shape", "shape_of"]

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_PROFILES = Path(__file__).parent / "profiles"


@dataclass(frozen=True)
class ModelShape:
    """A decoder-only transformer with a gated MLP (Llama, Qwen, Mistral, ...). Widths are numbers of features."""

    parameters: int
    layers: int
    hidden: int
    vocabulary: int
    kv_width: int
    """Key and value heads x head size."""
    architecture: str
    intermediate: int = 0
    """Inner width of the MLP; for a mixture of experts, of all experts that one token passes. 0: 4 x hidden."""
    query_width: int = 0
    """Heads x head size; 0: hidden."""
    heads: int = 1
    kv_heads: int = 1
    tied: bool = False
    """Input and output embeddings are one matrix."""
    qk_norm: bool = False
    """Queries and keys are normalised (Qwen3)."""

    @property
    def mlp(self) -> int:
        return self.intermediate or 4 * self.hidden

    @property
    def query(self) -> int:
        return self.query_width or self.hidden

    @property
    def block(self) -> int:
        """Weights of one layer, without norms."""
        return 2 * self.hidden * self.query + 2 * self.hidden * self.kv_width + 3 * self.hidden * self.mlp

    @property
    def embedding(self) -> int:
        """Weights of one embedding matrix."""
        return self.vocabulary * self.hidden

    @property
    def linear(self) -> int:
        """Weights of all layers, without norms and embeddings; at most what the model has."""
        return min(self.layers * self.block, self.parameters)

    def config_fields(self) -> dict[str, Any]:
        """The shape in the field names of a transformers config (Llama, Qwen3), to make a model of it."""
        return {
            "vocab_size": self.vocabulary,
            "hidden_size": self.hidden,
            "intermediate_size": self.mlp,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.query // self.heads,
            "tie_word_embeddings": self.tied,
        }


def model_shape(folder: Path) -> ModelShape:
    """Read config.json and the headers of the weight files; no weights are loaded.

    Raises:
        ModelError: there is no model in safetensors form.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        parameters = sum(_parameters(path) for path in folder.glob("*.safetensors"))
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{folder} is no model directory with config.json and *.safetensors files: {error}") from error
    if not parameters:
        raise ModelError(f"{folder} holds no weights as *.safetensors: save the model with `save_pretrained`.")
    try:
        return shape_of(config, parameters)
    except (TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{folder / 'config.json'} has no numbers where a model's shape is: {error}") from error


@functools.cache
def known_shapes() -> Mapping[str, ModelShape]:
    """The models of profiles/models.yaml by name, with parameter counts computed from their shape."""
    rows = yaml.safe_load((_PROFILES / "models.yaml").read_text(encoding="utf-8"))
    return {name: _known(row) for name, row in rows.items()}


def find_shape(model: str) -> ModelShape:
    """The shape of a model by folder, by a name that crew knows (`qwen3-1.7b`, `Qwen/Qwen3-1.7B-Base`), or on the Hub.

    Raises:
        ModelError: it is none of these.
        ServiceError: the Hub is needed, and is down or refuses.
    """
    if Path(model).is_dir():
        return model_shape(Path(model))
    known = known_shapes()
    name = model.lower().removeprefix("qwen/").removesuffix("-base")  # a base model has the shape of its chat model
    if name in known:
        return known[name]
    if _HUB_ID.fullmatch(model):
        from posttrain_crew.tools.training.hub_shape import hub_shape

        return hub_shape(model)
    raise ModelError(
        f"`{model}` is no model folder, no `owner/name` of the Hub and no model whose shape is known here "
        f"({', '.join(known)})."
    )


def shape_of(config: dict[str, Any], parameters: int) -> ModelShape:
    """From the content of a config.json.

    Raises:
        TypeError, ValueError, AttributeError: it holds something else where a number is wanted.
    """
    text = config.get("text_config", config)
    heads = int(text.get("num_attention_heads", 1))
    hidden = int(text.get("hidden_size", 0))
    head = int(text.get("head_dim") or hidden // max(1, heads))
    kv_heads = int(text.get("num_key_value_heads") or heads)
    kind = str(text.get("model_type", ""))
    experts = int(text.get("num_experts_per_tok") or 0)
    inner = int(text.get("intermediate_size") or 0)
    if experts and text.get("moe_intermediate_size"):
        inner = experts * int(text["moe_intermediate_size"])
    return ModelShape(
        parameters=parameters,
        layers=int(text.get("num_hidden_layers", 0)),
        hidden=hidden,
        vocabulary=int(text.get("vocab_size", 0)),
        kv_width=kv_heads * head,
        architecture=",".join(config.get("architectures") or [str(config.get("model_type"))]),
        intermediate=inner,
        query_width=heads * head,
        heads=heads,
        kv_heads=kv_heads,
        tied=bool(text.get("tie_word_embeddings", config.get("tie_word_embeddings", False))),
        qk_norm=kind.startswith(("qwen3", "gemma3", "olmo2")),
    )


def _known(row: dict[str, Any]) -> ModelShape:
    hidden, query, kv = row["hidden"], row["heads"] * row["head"], row["kv_heads"] * row["head"]
    block = 2 * hidden * query + 2 * hidden * kv + 3 * hidden * row["intermediate"]
    norms = 2 * hidden + (2 * row["head"] if row["qk_norm"] else 0)
    embeddings = row["vocabulary"] * hidden * (1 if row["tied"] else 2)
    return ModelShape(
        parameters=embeddings + row["layers"] * (block + norms) + hidden,
        layers=row["layers"],
        hidden=hidden,
        vocabulary=row["vocabulary"],
        kv_width=kv,
        architecture=str(row["repo"]),
        intermediate=row["intermediate"],
        query_width=query,
        heads=row["heads"],
        kv_heads=row["kv_heads"],
        tied=row["tied"],
        qk_norm=row["qk_norm"],
    )


def _parameters(path: Path) -> int:
    with path.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(size))
    return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
