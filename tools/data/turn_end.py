"""Makes a model's tokenizer fit for chat before it trains or samples: the end of a turn, and templates that are known.

Base models come with the chat template of their instruct version, but with the end of a text as end token:
Qwen3-1.7B-Base ends a turn with `<|im_end|>` and stops at `<|endoftext|>` only. A model that was trained so ends its
turn and goes on writing, which costs most of the score (PostTrainBench runs without 151645 among the end tokens scored
0). Qwen3's template also puts an empty `<think>` block before the last reply in training, and none in the generation
prompt.

Both are set right here, in one place for every trainer, sampler, check and evaluation; each says what it changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["end_ids", "prepare_for_chat", "turn_end"]

_QWEN3_CONDITION = "loop.last or (not loop.last and reasoning_content)"
_QWEN3_LAST = f"{{%- if {_QWEN3_CONDITION} %}}"
"""Where Qwen3's template adds its empty `<think>` block."""
_REPLY = "It is 4."


def turn_end(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The id of the special token that the chat template puts right after a reply; None where it puts none."""
    from jinja2 import TemplateError  # comes with transformers

    turns = [{"role": "user", "content": "What is 2 + 2?"}, {"role": "assistant", "content": _REPLY}]
    try:
        text = str(tokenizer.apply_chat_template(turns, tokenize=False))
    except (TemplateError, ValueError, TypeError, KeyError, RecursionError):
        return None  # chat_template.py says what is wrong with it
    _before, found, end = text.rpartition(_REPLY)
    ids = tokenizer(end.lstrip(), add_special_tokens=False)["input_ids"] if found else []
    special = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    return int(ids[0]) if ids and ids[0] in special else None


def end_ids(*given: int | Sequence[int] | None) -> list[int]:
    """Token ids at which generation stops, each once, from `eos_token_id`s of configs: one, several, or none."""
    found: list[int] = []
    for value in given:
        found += [value] if isinstance(value, int) else list(value or ())
    return list(dict.fromkeys(found))


def prepare_for_chat(tokenizer: PreTrainedTokenizerBase, stops: int | Sequence[int] | None) -> list[str]:
    """Change the tokenizer, in place, so that a model learns the turns it will be asked for and stops after its own.

    Args:
        tokenizer: with a chat template.
        stops: `eos_token_id` of the model's generation config; where the turn's end is among them nothing is changed.

    Returns:
        A sentence for each change, for the job's notes.
    """
    notes = []
    template = tokenizer.chat_template
    if isinstance(template, str) and _QWEN3_LAST in template:
        tokenizer.chat_template = template.replace(_QWEN3_LAST, "{%- if reasoning_content %}")
        notes.append(
            "the chat template's empty <think> block before the last reply is left out: the generation prompt has none"
        )
    end = turn_end(tokenizer)
    if end is not None and end not in end_ids(stops, tokenizer.eos_token_id):
        name, before = tokenizer.convert_ids_to_tokens(end), tokenizer.eos_token
        tokenizer.eos_token = name
        notes.append(f"the end token is {name}, with which the chat template ends a turn; it was {before}")
    return notes
