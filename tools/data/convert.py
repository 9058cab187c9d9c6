"""Rows of any format as rows that a trainer takes; questions with choices in the target's prompt and answer form.

    sft   {"prompt": [turns], "completion": [reply]}                     TRL trains on the reply alone
    dpo   {"prompt": [turns], "chosen": [reply], "rejected": [reply]}
    grpo  {"prompt": [turns], "answer": label or text}                   only what the target's metric can check

A conversation of several turns keeps all of them in the prompt, and its last reply is what is trained on. Roles come
out as system, user and assistant, whatever they were called. What cannot be converted is refused with a reason that is
counted; a row is never guessed into shape.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from posttrain_crew.target import Answer
from posttrain_crew.tools.data.formats import Example, Format, format_of, normalise_row
from posttrain_crew.tools.data.reader import RawRow
from posttrain_crew.tools.data.rendering import answer_line, label_of, render_completion, render_prompt
from posttrain_crew.tools.data.roles import Refusal, Turn, read_turns, split_dialogue
from posttrain_crew.tools.data.text import number_of

__all__ = ["Goal", "Record", "convert_row", "preference_pair", "wrong_completion"]

Goal = Literal["sft", "dpo", "grpo"]
Record = dict[str, object]
MAX_ANSWER_CHARS = 200
"""A longer answer is an essay: no reward can check it by comparing."""


def convert_row(
    row: RawRow | None, goal: Goal, answer: Answer, wrong_samples: Mapping[str, Sequence[str]] | None = None
) -> Record | Refusal:
    """One row as a training row.

    Args:
        answer: the target's answer form.
        wrong_samples: for `dpo`, wrong replies of the student itself by user prompt; they make better rejected replies
            than anything made up, because they are what it would say.

    Reasons of a refusal: unreadable, unknown_format, no_prompt, no_reply, no_answer, no_working, other_form,
    multi_turn, not_verifiable, same_reply, no_pair, and those of `roles.read_turns`: tool_use, not_text, unknown_role,
    ...
    """
    if row is None:
        return Refusal("unreadable")
    kind = format_of(row)
    if kind == "unknown":
        return Refusal("unknown_format")
    if goal == "dpo" and kind == "preference":
        return preference_pair(row)
    turns = _conversation(row, kind)
    if isinstance(turns, Refusal):
        return turns
    example = normalise_row(row, kind)
    if example is None:
        return Refusal("no_prompt")
    several = turns is not None and (len(turns) > 2 or turns[0].role != "user")
    if goal == "grpo":
        return Refusal("multi_turn") if several else _verifiable(example, answer)
    if goal == "dpo":
        return (
            Refusal("no_pair") if several or not example.choices else _made_pair(example, answer, wrong_samples or {})
        )
    return _supervised(example, None if not several else turns, answer)


def preference_pair(row: RawRow) -> Record | Refusal:
    """A row with chosen and rejected; the prompt is given, or is the turns that both begin with (HH-RLHF text, too)."""
    fields = {name.lower(): value for name, value in row.items()}
    given = fields.get("prompt", fields.get("question", fields.get("instruction")))
    sides: list[list[Turn]] = []
    for name in ("chosen", "rejected"):
        turns = _side(fields.get(name))
        if isinstance(turns, Refusal):
            return turns
        sides.append(turns)
    chosen, rejected = sides
    common = 0
    while common < min(len(chosen), len(rejected)) - 1 and chosen[common] == rejected[common]:
        common += 1
    if len(chosen) != common + 1 or len(rejected) != common + 1:
        return Refusal("no_pair")  # they part before the last turn: two conversations, not two replies
    prompt = chosen[:common]
    if given:
        asked = read_turns(given) if isinstance(given, list) else [Turn("user", str(given))]
        if isinstance(asked, Refusal):
            return asked
        prompt = prompt if prompt and prompt[0].content.strip() == asked[0].content.strip() else [*asked, *prompt]
    if not prompt or prompt[-1].role != "user":
        return Refusal("no_prompt")
    good, bad = chosen[-1], rejected[-1]
    if good.role != "assistant" or bad.role != "assistant" or not good.content.strip() or not bad.content.strip():
        return Refusal("no_reply")
    if good.content.strip() == bad.content.strip():
        return Refusal("same_reply")
    return {
        "prompt": [turn.record() for turn in prompt],
        "chosen": [good.record()],
        "rejected": [bad.record()],
    }


def wrong_completion(example: Example, label: str, answer: Answer, samples: Sequence[str] = ()) -> str:
    """A reply to prefer others to: a wrong sample of the student, or else an answer line with a wrong label.

    The second is the weaker choice: it is not what the student would say, and teaches little but `answer, and show the
    working`. It is without the working on purpose: pairs that differ in one letter only push the probability of the
    chosen reply down, too (arXiv 2402.13228).
    """
    right = answer_line(label, answer)
    for sample in samples:
        if sample.strip() and not sample.rstrip().endswith(right):
            return sample
    labels = answer.labels[: len(example.choices)]
    # the next label, so that no label is rejected more often than others
    return answer_line(labels[(labels.index(label) + 1) % len(labels)], answer)


def _side(value: object) -> list[Turn] | Refusal:
    if isinstance(value, str):
        return split_dialogue(value) or [Turn("assistant", value)]
    if isinstance(value, Mapping):
        value = [value]
    return read_turns(value)


def _conversation(row: RawRow, kind: Format) -> list[Turn] | Refusal | None:
    """The turns of a row that has turns, without what follows the last reply; None where it has none."""
    fields = {name.lower(): value for name, value in row.items()}
    if kind in ("messages", "sharegpt"):
        value = next((fields[n] for n in ("messages", "conversations", "conversation") if fields.get(n)), None)
        turns = read_turns(value)
    elif kind == "prompt_completion" and isinstance(fields.get("prompt"), list):
        after = fields.get("completion")
        turns = read_turns([*_list(fields["prompt"]), *_list(after)])
    elif kind == "preference":
        pair = preference_pair(row)
        if isinstance(pair, Refusal):
            return pair
        turns = read_turns([*_list(pair["prompt"]), *_list(pair["chosen"])])
    else:
        return None
    if isinstance(turns, Refusal):
        return turns
    if not any(turn.role == "user" for turn in turns):
        return Refusal("no_prompt")
    last = max((i for i, turn in enumerate(turns) if turn.role == "assistant"), default=len(turns) - 1)
    return turns[: last + 1]


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _supervised(example: Example, turns: list[Turn] | None, answer: Answer) -> Record | Refusal:
    if turns is not None:
        if turns[-1].role != "assistant" or len(turns) < 2 or not turns[-1].content.strip():
            return Refusal("no_reply")
        return {"prompt": [turn.record() for turn in turns[:-1]], "completion": [turns[-1].record()]}
    label = label_of(example, answer)
    if example.choices and answer.kind == "choice":
        if label is None:
            return Refusal("no_answer" if example.answer is None else "other_form")
        reply = render_completion(example, label, answer, worked=example.worked)
        return _pair(render_prompt(example, answer), "completion", reply)
    reply = (example.raw_completion or example.answer_text or "").strip()
    return _pair(_open_prompt(example), "completion", reply) if reply else Refusal("no_reply")


def _verifiable(example: Example, answer: Answer) -> Record | Refusal:
    right = example.answer_text
    if right is None or not right.strip():
        return Refusal("no_answer")
    if answer.kind == "choice":
        label = label_of(example, answer)
        if label is None:
            return Refusal("not_verifiable" if not example.choices else "other_form")
        return {"prompt": [Turn("user", render_prompt(example, answer)).record()], "answer": label}
    if answer.kind == "number":
        number = number_of(right)
        return {"prompt": _asked(example), "answer": number} if number is not None else Refusal("not_verifiable")
    if len(right) > MAX_ANSWER_CHARS or "\n" in right.strip():
        return Refusal("not_verifiable")
    return {"prompt": _asked(example), "answer": right.strip()}


def _made_pair(example: Example, answer: Answer, wrong: Mapping[str, Sequence[str]]) -> Record | Refusal:
    label = label_of(example, answer)
    if answer.kind != "choice" or label is None:
        return Refusal("no_answer" if example.answer is None else "other_form")
    if not example.worked:
        return Refusal("no_working")
    prompt = render_prompt(example, answer)
    chosen = render_completion(example, label, answer, worked=True)
    record = _pair(prompt, "chosen", chosen)
    rejected = wrong_completion(example, label, answer, wrong.get(prompt, ()))
    return record | {"rejected": [Turn("assistant", rejected).record()]}


def _asked(example: Example) -> list[dict[str, str]]:
    return [Turn("user", _open_prompt(example)).record()]


def _open_prompt(example: Example) -> str:
    """The question with its choices, where a target without labels still gets one with choices."""
    return "\n".join([example.question, *(f"- {choice}" for choice in example.choices)])


def _pair(prompt: str, name: str, reply: str) -> Record:
    return {"prompt": [Turn("user", prompt).record()], name: [Turn("assistant", reply).record()]}
