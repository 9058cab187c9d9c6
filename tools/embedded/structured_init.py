"""A structured start for the embedded base model, so that a CPU pre-trains it in two minutes instead of hours.

A transformer that reads "(B) 42" and later needs the letter before 42 has to form an induction circuit, which from a
random start takes far more tokens than the two million of the embedded pre-training: the lookup stays at chance.
In the spirit of mimetic initialisation (Trockman & Kolter, 2023) the circuit is laid out in advance and then trained
like every other weight. The residual stream starts as three slots: token identity | previous tokens | scratch.

    layer 0, heads 0 and 1    attend one and two positions back (constant query and key biases under RoPE) and write
                              the token found there to the previous-tokens slot and to the scratch slot
    layer 1, first half       attend to earlier occurrences of the current token (equal query and key maps of the
                              identity slot; opposite biases discourage attending to oneself), read what preceded
                              it from the previous-tokens slot, write it to scratch

Everything else keeps its default initialisation.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import LlamaForCausalLM

__all__ = ["lay_out_copy_circuit"]

BACK_STRENGTH = (4.0, 4.0, 3.0, 2.0)  # on the fastest RoPE frequencies: sharp about the chosen distance
ANTI_SELF = 4.0
MATCH_STRENGTH = 1.5


@torch.no_grad()
def lay_out_copy_circuit(model: LlamaForCausalLM) -> None:
    """Overwrite the embeddings and parts of the first two attention layers in place.

    The model needs attention biases, as many key-value heads as heads, and at least two layers and two heads.
    """
    heads, hidden = int(model.config.num_attention_heads), int(model.config.hidden_size)
    width = hidden // heads
    identity = hidden // 2
    previous = slice(identity, identity + width)
    scratch = slice(identity + width, identity + 2 * width)

    def orthonormal() -> Tensor:
        basis: Tensor = torch.linalg.qr(torch.randn(identity, identity))[0]
        return basis[:width]  # (width, identity)

    embedding = model.model.embed_tokens.weight  # (vocab, hidden)
    embedding.zero_()
    embedding[:, :identity] = torch.randn(embedding.shape[0], identity) * 2**0.5
    for layer in model.model.layers:
        attention = layer.self_attn
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj):
            if projection.bias is not None:
                projection.bias.zero_()

    look_back = model.model.layers[0].self_attn
    strength = torch.zeros(width // 2)
    strength[: len(BACK_STRENGTH)] = torch.tensor(BACK_STRENGTH)
    for distance, slot in ((1, previous), (2, scratch)):
        rows = slice((distance - 1) * width, distance * width)
        angle = model.model.rotary_emb.inv_freq.float() * distance  # (width / 2,)
        look_back.k_proj.bias[rows] = torch.cat([strength, torch.zeros(width // 2)])
        look_back.q_proj.bias[rows] = torch.cat([strength * torch.cos(angle), -strength * torch.sin(angle)])
        look_back.q_proj.weight[rows] *= 0.1
        look_back.k_proj.weight[rows] *= 0.1
        look_back.v_proj.weight[rows] = 0
        look_back.v_proj.weight[rows, :identity] = orthonormal()
        look_back.o_proj.weight[:, rows] = 0
        look_back.o_proj.weight[slot, rows] = torch.eye(width)

    match = model.model.layers[1].self_attn
    push = torch.zeros(width)
    push[: len(BACK_STRENGTH)] = ANTI_SELF
    for head in range(heads // 2):
        rows = slice(head * width, (head + 1) * width)
        same = orthonormal() * MATCH_STRENGTH
        for projection in (match.q_proj, match.k_proj):
            projection.weight[rows] = 0
            projection.weight[rows, :identity] = same
        match.k_proj.bias[rows] = push
        match.q_proj.bias[rows] = -push
        match.v_proj.weight[rows] = 0
        match.v_proj.weight[rows, previous] = torch.eye(width)
        match.o_proj.weight[:, rows] = 0
        match.o_proj.weight[scratch, rows] = torch.eye(width)
