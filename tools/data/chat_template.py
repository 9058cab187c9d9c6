"""Whether a model's chat template teaches what it will be asked for.

A trainer renders prompt and reply together; at evaluation the template renders the prompt alone and adds the generation
prompt. If the two differ, the model learns to go on from a text that it is never given. Templates in use do differ:
some open a `<think>` block in the generation prompt alone, cut `<think>` out of replies, or trim them. Checked here,
with what turn_end.py sets right for the trainers, on probe conversations and then on every row:

    1. the generation prompt is the beginning of the training render, as text and as tokens
    2. the reply follows at once and unchanged
    3. a token at which generation stops comes right after it, and inside the trained part

The template is run by transformers in its sandbox of Jinja; code of a model folder is never run (`trust_remote_code` is
off).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain_crew.errors import ConfigError, ModelError
from posttrain_crew.tools.data.roles import Turn
from posttrain_crew.tools.data.turn_end import prepare_for_chat

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["CONTROL_TOKENS", "ChatTemplate"]

CONTROL_TOKENS = (
    "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|start_header_id|>", "<|begin_of_text|>",
    "<start_of_turn>", "<end_of_turn>", "<|assistant|>", "<|user|>", "[INST]", "[/INST]", "<|eom_id|>",
)  # fmt: skip
"""Tokens of common templates: in the text of a row they end turns and begin others."""
_MARKED = re.compile(r"\{%-?\s*generation\b")
SHOWN = 40
_REPLY = "It is 4, for 2 + 2 = 4.\nAnswer: B"
_PROBES: dict[str, tuple[Turn, ...]] = {
    "a question": (Turn("user", "What is 2 + 2?\n(A) 3\n(B) 4"),),
    "a second question": (
        Turn("user", "What is 1 + 1?"),
        Turn("assistant", "It is 2."),
        Turn("user", "And what is 2 + 2?"),
    ),
}


class ChatTemplate:
    """The chat template of a model folder, checked when it is made.

    Args:
        model: folder with tokenizer files and a chat template; the embedded base model's, or any Hugging Face model's.

    Raises:
        ModelError: the tokenizer cannot be loaded. ConfigError: it has no chat template, or one whose training render
            and generation prompt do not agree; the message shows the first difference.

    Attributes:
        changes: what was set right in memory, a sentence each; the folder stays as it is.
    """

    def __init__(self, model: Path) -> None:
        self.model = model
        self._tokenizer = _load(model)
        if not self._tokenizer.chat_template:
            raise ConfigError(
                f"the model {model} has no chat template: neither training nor evaluation would know the turns. Give "
                "it that of its instruct version (`chat_template.jinja` in its folder)."
            )
        stops = _generation_ends(model)
        self.changes = prepare_for_chat(self._tokenizer, stops)
        self._stops = _stop_tokens(model, self._tokenizer, stops)
        for name, prompt in _PROBES.items():
            if (problem := self.problem(prompt, _REPLY)) is not None:
                raise ConfigError(
                    f"the chat template of {model} does not fit its own generation prompt, on {name}: {problem} A "
                    "model trained with it learns another text than it will be asked for. Put a template without that "
                    "difference into its folder (chat_template.jinja), for training and evaluation alike."
                )
        self._check_trained_part()

    @property
    def supports_system(self) -> bool:
        """Whether a system turn can be rendered, and agrees."""
        return self.problem((Turn("system", "Be brief."), *_PROBES["a question"]), _REPLY) is None

    def render(self, prompt: Sequence[Turn], reply: str | None) -> str:
        """The text that a trainer makes of prompt and reply; without a reply, the prompt with the generation prompt.

        Raises:
            ConfigError: the template refuses these turns.
        """
        turns = [turn.record() for turn in prompt]
        if reply is not None:
            turns.append({"role": "assistant", "content": reply})
        from jinja2 import TemplateError  # comes with transformers

        try:
            text = self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=reply is None)
        except (TemplateError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise ConfigError(
                f"the chat template of {self.model} refuses the turns {', '.join(turn.role for turn in prompt)}: "
                f"{str(error)[:300]}"
            ) from error
        return str(text)

    def problem(self, prompt: Sequence[Turn], reply: str) -> str | None:
        """What is wrong with the rendering of one row, None where training and generation agree."""
        try:
            asked, trained = self.render(prompt, None), self.render(prompt, reply)
        except ConfigError as error:
            return str(error)
        if not trained.startswith(asked):
            at = next((i for i, (a, b) in enumerate(zip(asked, trained, strict=False)) if a != b), len(trained))
            return (
                f"from character {at} the generation prompt goes on with {asked[at : at + SHOWN]!r}, the training "
                f"render with {trained[at : at + SHOWN]!r} (before it: {asked[max(0, at - SHOWN) : at]!r})."
            )
        rest = trained[len(asked) :]
        if not rest.startswith(reply):
            at = next(
                (i for i, (a, b) in enumerate(zip(reply, rest, strict=False)) if a != b), min(len(reply), len(rest))
            )
            return (
                f"after the generation prompt the reply begins {reply[at : at + SHOWN]!r}, but the training render has "
                f"{rest[at : at + SHOWN]!r} there (character {at} of the reply)."
            )
        end = rest[len(reply) :]
        if not end.lstrip().startswith(self._stops):
            return (
                f"the reply is followed by {end[:SHOWN]!r}, which is none of the tokens at which generation stops "
                f"({', '.join(self._stops)}): the model would not learn to stop."
            )
        return self._token_problem(asked, trained)

    def has_control_tokens(self, texts: Sequence[str]) -> bool:
        """Whether a text holds a special token of this model or of a common template."""
        return any(token in text for token in self._special for text in texts)

    @property
    def _special(self) -> tuple[str, ...]:
        added = self._tokenizer.added_tokens_decoder.values()
        own = [str(token) for token in added if token.special and len(str(token)) > 2]
        return tuple(dict.fromkeys([*own, *CONTROL_TOKENS]))

    def _token_problem(self, asked: str, trained: str) -> str | None:
        first = self._tokenizer(asked, add_special_tokens=False)["input_ids"]
        whole = self._tokenizer(trained, add_special_tokens=False)["input_ids"]
        if whole[: len(first)] == first:
            return None
        at = next((i for i, (a, b) in enumerate(zip(first, whole, strict=False)) if a != b), len(whole))
        return (
            f"token {at} of the generation prompt is {self._tokenizer.decode(first[at : at + 1])!r}, in the training "
            f"render it is {self._tokenizer.decode(whole[at : at + 1])!r}: the two texts merge where they meet."
        )

    def _check_trained_part(self) -> None:
        """With `{% generation %}` marks only the marked part is trained: the stop token has to lie in it."""
        if not _MARKED.search(str(self._tokenizer.chat_template)) or not self._tokenizer.is_fast:
            return
        turns = [turn.record() for turn in _PROBES["a question"]] + [{"role": "assistant", "content": _REPLY}]
        made: Any = self._tokenizer.apply_chat_template(
            turns, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        mask = list(made.get("assistant_masks", ()))
        trained = [int(i) for i, marked in zip(made["input_ids"], mask, strict=True) if marked]
        if not any(stop in self._tokenizer.decode(trained) for stop in self._stops):
            raise ConfigError(
                f"the chat template of {self.model} ends its `{{% generation %}}` part before the end of the turn: "
                f"none of {', '.join(self._stops)} is trained, and the model would not learn to stop. Move the mark "
                "behind it."
            )


def _load(model: Path) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer  # seconds

    if not model.is_dir():
        raise ModelError(f"there is no model folder at {model}.")
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            str(model), local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise ModelError(f"the tokenizer of {model} cannot be loaded: {str(error)[:300]}") from error
    return tokenizer


def _generation_ends(model: Path) -> list[int]:
    path = model / "generation_config.json"
    if not path.is_file():
        return []
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    given = raw.get("eos_token_id") if isinstance(raw, dict) else None
    return [i for i in (given if isinstance(given, list) else [given]) if isinstance(i, int)]


def _stop_tokens(model: Path, tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> tuple[str, ...]:
    """Tokens at which generation stops: those of generation_config.json, and the tokenizer's end of sequence."""
    tokens = [str(tokenizer.convert_ids_to_tokens(i)) for i in ids]
    if tokenizer.eos_token:
        tokens.append(str(tokenizer.eos_token))
    found = tuple(dict.fromkeys(token for token in tokens if token and token != "None"))
    if not found:
        raise ConfigError(f"the model {model} names no token at which generation stops (eos_token, generation_config).")
    return found
