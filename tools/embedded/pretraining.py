"""Pre-training of the embedded base model from scratch: tokenizer, packing, one short training loop.

A LlamaForCausalLM of about 0.7 M parameters reads about two million tokens of corpus.py. Matrices are trained by Muon,
the rest by AdamW; the rate is constant and then falls linearly to zero; the first steps see indexes only
(structured_init.py says why). Fixed seeds all the way: the same machine makes the same model.

Left out: validation, checkpoints, any use of a GPU. Run it through base_model.py, which caches the result.

The architecture is Llama because AutoTokenizer gives `qwen2` models its own pre-tokenizer, which splits numbers.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from posttrain_crew.tools.embedded import corpus
from posttrain_crew.tools.embedded.families import BIGGEST, FAMILIES
from posttrain_crew.tools.embedded.structured_init import lay_out_copy_circuit

__all__ = ["END", "PretrainingConfig", "build_tokenizer", "pretrain"]

END = "<|endoftext|>"
SPECIAL = (END, "<|im_start|>", "<|im_end|>")
MAX_LENGTH = 1024
CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{%- if message['role'] == 'assistant' %}"
    "{{- '<|im_start|>assistant\n' }}"
    "{% generation %}{{- message['content'] + '<|im_end|>' }}{% endgeneration %}{{- '\n' }}"
    "{%- else %}"
    "{{- '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{%- endif %}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
WORD = r" ?\([A-D]\)| ?[A-Za-z]+[0-9]?| ?[0-9]+|\n| ?[^\sA-Za-z0-9]|\s"
"""Pre-tokens: a bracketed letter, a word or unit (`m/s2` is three), a whole number, a line break, a sign."""


@dataclass(frozen=True)
class PretrainingConfig:
    """All choices of the pre-training; made on the dev split alone."""

    seed: int = 0
    hidden: int = 128
    layers: int = 3
    heads: int = 4
    intermediate: int = 256
    steps: int = 500
    rows: int = 32
    """Rows of a batch."""
    length: int = 128
    """Tokens of a row."""
    lookup_steps: int = 40
    """First steps, which see indexes only."""
    matrix_rate: float = 1e-2
    """Peak learning rate of Muon."""
    rate: float = 5e-3
    """Peak learning rate of AdamW."""
    warmup: int = 30
    hold: float = 0.6
    """Share of the steps before the rates begin to fall."""
    threads: int = 2
    """Whatever the environment says: another number of threads may round, and so end, differently."""


def build_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A ChatML tokenizer: every pre-token of `texts` and every number up to BIGGEST is one token, the rest is bytes.

    It is a byte-level BPE without merges: the words are given, so that no row of the embedding is spent on parts.
    """
    splitter = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORD), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    words = {word for text in texts for word, _ in splitter.pre_tokenize_str(text)}
    words |= {word for number in range(BIGGEST + 1) for word, _ in splitter.pre_tokenize_str(f" {number}")}
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = [*SPECIAL, *alphabet, *sorted(words - set(alphabet))]
    tokenizer = Tokenizer(
        models.BPE(vocab={word: index for index, word in enumerate(vocabulary)}, merges=[], ignore_merges=True)
    )
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.ByteLevel()
    fast: PreTrainedTokenizerFast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=SPECIAL[2],
        pad_token=END,
        padding_side="left",
        model_max_length=MAX_LENGTH,
    )  # type: ignore[no-untyped-call]
    fast.chat_template = CHAT_TEMPLATE
    return fast


def _tokenizer_texts() -> Iterator[str]:
    """Every wording and formula with small numbers, and documents of every kind without their chat markers."""
    for family in FAMILIES.values():
        yield family.formula
        yield from (family.question((2, 2, 2, 2), wording) for wording in range(len(family.wordings)))
    for text in corpus.documents(1000, "tokenizer"):
        for marker in SPECIAL:
            text = text.replace(marker, "")
        yield text


def _pack(tokenizer: PreTrainedTokenizerFast, texts: Iterable[str], rows: int, length: int) -> torch.Tensor:
    """Whole documents, each after an END, first-fit into rows of `length`, padded with END -> (rows, length)."""
    end = int(tokenizer.pad_token_id)
    full: list[list[int]] = []
    started: list[list[int]] = []
    for text in texts:
        if len(full) >= rows:
            break
        ids = [end, *tokenizer(text, add_special_tokens=False)["input_ids"]][:length]
        row = next((row for row in started if len(row) + len(ids) <= length), None)
        if row is None:
            started.append(ids)
        else:
            row.extend(ids)
        if len(started) > 16:  # close the fullest
            full.append(started.pop(max(range(len(started)), key=lambda i: len(started[i]))))
    return torch.tensor([row + [end] * (length - len(row)) for row in full[:rows]])


def _endless(make: Callable[[int, str], Iterator[str]], seed: int) -> Iterator[str]:
    """Documents without end, in chunks."""
    chunk = 0
    while True:
        yield from make(2000, f"{seed} {chunk}")
        chunk += 1


def _new_model(config: PretrainingConfig, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.hidden,
            intermediate_size=config.intermediate,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.heads,
            attention_bias=True,
            max_position_embeddings=MAX_LENGTH,
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    lay_out_copy_circuit(model)
    return model


def _optimizers(model: LlamaForCausalLM, config: PretrainingConfig) -> tuple[torch.optim.Optimizer, ...]:
    """Muon for the matrices inside the layers, AdamW for embeddings, head, norms and biases."""
    matrices: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        (matrices if parameter.ndim == 2 and "layers" in name else others).append(parameter)
    return (
        torch.optim.Muon(
            matrices, lr=config.matrix_rate, momentum=0.95, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(others, lr=config.rate, betas=(0.9, 0.95), weight_decay=0.0),
    )


def _rate_factor(step: int, config: PretrainingConfig) -> float:
    """Warm-up, plateau, linear fall to zero at the last step."""
    falling = (config.steps - step) / (config.steps * (1 - config.hold))
    return min(1.0, (step + 1) / config.warmup, falling)


def pretrain(out_dir: Path, config: PretrainingConfig, on_progress: Callable[[str], None]) -> None:
    """Make tokenizer and model and save both, with a generation config and a `pretraining.json`, to `out_dir`."""
    started = time.monotonic()
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    tokenizer = build_tokenizer(_tokenizer_texts())
    model = _new_model(config, tokenizer)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    on_progress(f"base model: {parameters / 1e6:.2f} M parameters, vocabulary {len(tokenizer)}")

    first = _pack(
        tokenizer, _endless(corpus.lookup_documents, config.seed), config.lookup_steps * config.rows, config.length
    )
    rest = _pack(
        tokenizer,
        _endless(corpus.documents, config.seed),
        (config.steps - config.lookup_steps) * config.rows,
        config.length,
    )
    data = torch.cat([first, rest])  # (steps * rows, length)
    on_progress(f"corpus: {data.numel() / 1e6:.2f} M tokens after {time.monotonic() - started:.0f} s")

    optimizers = _optimizers(model, config)
    peaks = (config.matrix_rate, config.rate)
    model.train()
    loss_value = 0.0
    for step in range(config.steps):
        batch = data[step * config.rows : (step + 1) * config.rows]  # (rows, length)
        # the padding at the end of a row teaches nothing; the END before a document, and after the last one, does
        padding = (batch == tokenizer.pad_token_id) & (batch.roll(1, dims=1) == tokenizer.pad_token_id)
        loss = model(input_ids=batch, labels=batch.masked_fill(padding, -100), use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, peak in zip(optimizers, peaks, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = peak * _rate_factor(step, config)
            optimizer.step()
            optimizer.zero_grad()
        loss_value += (loss.item() - loss_value) * (0.03 if step else 1.0)
        if (step + 1) % 100 == 0 or step + 1 == config.steps:
            on_progress(f"step {step + 1}/{config.steps}, loss {loss_value:.3f}, {time.monotonic() - started:.0f} s")

    model.generation_config.eos_token_id = [tokenizer.eos_token_id, tokenizer.pad_token_id]
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.do_sample = False
    model.save_pretrained(out_dir)
    tokenizer.save_pretrained(out_dir)
    report = {"config": asdict(config), "parameters": parameters, "tokens": data.numel(), "loss": loss_value}
    (out_dir / "pretraining.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
