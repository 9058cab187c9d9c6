"""Items that a language model writes from a specification of edge cases.

What comes back is read as strict JSON in a fixed shape. Little is mended: a code fence or words around the object are
cut off, and after that a prompt is asked once more at most. An item with a missing or unknown key, an over-long text,
choices that repeat, or the control tokens of a chat template is dropped and counted. Texts are data: nothing in them is
followed, and they never become part of another prompt.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from posttrain_crew.errors import InputError
from posttrain_crew.files import canonical_json, sha256_text
from posttrain_crew.tools.data.formats import LABELS, Example
from posttrain_crew.tools.data.rendering import label_of
from posttrain_crew.tools.data.synthesis.answers import AnswerRule
from posttrain_crew.tools.data.synthesis.base import Message, Parameters, Request, SyntheticRow, parameters_as
from posttrain_crew.tools.data.synthesis.rows import make_row
from posttrain_crew.tools.data.synthesis.specification import (
    Cell,
    Specification,
    chosen_cells,
    load_specification,
    pair_coverage,
)
from posttrain_crew.tools.data.text import normalised

__all__ = ["CONTROL", "SpecificationParameters", "WrittenItems", "read_items"]

CONTROL = re.compile(r"<\|[^|<>\s]{1,40}\|>|\[/?INST\]|<</?SYS>>|</?s>|<(?:start|end)_of_turn>|<(?:bos|eos|pad)>")
"""Control tokens of the usual chat templates: in a row, they would end a turn or begin one."""
MAX_REPLY_CHARS = 200_000

Text = Annotated[str, Field(min_length=1)]


class SpecificationParameters(Parameters):
    """What the writing of items can be told."""

    spec: str = Field(description="YAML file, or the name of a shipped example: emergency_messages, hedged_medical")
    per_call: int = Field(default=2, ge=1, le=10, description="items asked for in one request")
    repairs: int = Field(default=1, ge=0, le=3, description="further requests for an answer that cannot be read")
    temperature: float = Field(default=1.0, ge=0, le=2, description="of sampling")
    max_tokens: int = Field(default=2048, ge=16, le=32768, description="new tokens per request")


class _Item(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ChoiceItem(_Item):
    """The shape of an item with one right choice."""

    question: Text
    correct: Text
    wrong: list[Text]
    working: Text


class OpenItem(_Item):
    """The shape of an open item."""

    question: Text
    reply: Text


class WrittenItems:
    """The generator `specification`."""

    summary: ClassVar[str] = "items that an LLM writes from a YAML specification of edge cases, spread over its grid"
    parameters: ClassVar[type[BaseModel]] = SpecificationParameters
    needs: ClassVar[tuple[Literal["model", "questions", "specification"], ...]] = ("model", "specification")

    def generate(self, request: Request) -> Iterator[SyntheticRow]:
        """See `Generator`. Counts cells, pairs_met, pairs, requests, unreadable, refused_items (wrong shape), items."""
        params = parameters_as(SpecificationParameters, request.params)
        spec = load_specification(params.spec)
        sampler = request.need_sampler("specification")
        answer = request.target.answer
        if spec.form == "choice" and (answer.kind != "choice" or spec.wrong_choices + 1 > len(answer.labels)):
            raise InputError(
                f"`{spec.name}` writes items with {spec.wrong_choices + 1} choices, but the target "
                f"{request.target.name} asks for {answer.kind} ({answer.labels}). Set `wrong_choices`, or `form: open`."
            )
        calls = -(-request.rows // params.per_call)
        cells = chosen_cells(spec, calls, request.rng("cells"))
        met, pairs = pair_coverage(spec, cells)
        request.tally.update({"cells": len(cells), "pairs_met": met, "pairs": pairs})
        items: dict[int, list[ChoiceItem | OpenItem]] = {}
        waiting = list(range(len(cells)))
        for attempt in range(1 + params.repairs):
            if not waiting:
                break
            replies = sampler.sample(
                [_prompt(spec, cells[i], params.per_call, i, attempt) for i in waiting],
                n=1,
                temperature=params.temperature,
                max_tokens=params.max_tokens,
                seed=request.seed + attempt,
            )
            request.tally["requests"] += sum(bool(said) for said in replies)
            failed: list[int] = []
            for i, said in zip(waiting, replies, strict=True):
                if not said:
                    continue  # left out by the sampler, which counts it
                read = read_items(said[0], spec)
                if read is None:
                    request.tally["unreadable"] += 1
                    failed.append(i)
                    continue
                items[i] = read[0][: params.per_call]
                request.tally["refused_items"] += read[1]
                if not items[i]:
                    failed.append(i)
            waiting = failed
        made = 0
        for i in sorted(items):
            for number, item in enumerate(items[i]):
                if made < request.rows:
                    made += 1
                    request.tally["items"] += 1
                    yield _row(item, spec, cells[i], f"{i}.{number}", request, sampler.model)


def read_items(reply: str, spec: Specification) -> tuple[list[ChoiceItem | OpenItem], int] | None:
    """(items of the right shape, number of items dropped), or None where the reply holds no such object at all."""
    found = _json_object(reply[:MAX_REPLY_CHARS])
    listed = found.get("items") if isinstance(found, dict) else None
    if not isinstance(listed, list) or set(found or ()) != {"items"}:
        return None
    kind: type[ChoiceItem | OpenItem] = ChoiceItem if spec.form == "choice" else OpenItem
    kept: list[ChoiceItem | OpenItem] = []
    for raw in listed[:100]:
        try:
            item = kind.model_validate(raw)
        except ValidationError:
            continue
        if _is_sound(item, spec):
            kept.append(item)
    return kept, len(listed) - len(kept)


def _is_sound(item: ChoiceItem | OpenItem, spec: Specification) -> bool:
    texts = [item.question, item.reply] if isinstance(item, OpenItem) else [item.question, item.correct, item.working]
    if isinstance(item, ChoiceItem):
        texts += item.wrong
        choices = [normalised(text) or text.strip() for text in (item.correct, *item.wrong)]
        one_line = not any("\n" in text.strip() for text in (item.correct, *item.wrong))
        if len(item.wrong) != spec.wrong_choices or len(set(choices)) != len(choices) or not one_line:
            return False
    return all(text.strip() and len(text) <= spec.max_chars and not CONTROL.search(text) for text in texts)


def _json_object(text: str) -> dict[str, object] | None:
    """The one JSON object of a reply: whole, within a code fence, or from the first brace to the last."""
    text = text.strip()
    tries = [text]
    if match := re.search(r"```(?:json)?[ \t]*\n(.*?)\n[ \t]*```", text, re.DOTALL):
        tries.append(match[1])
    first, last = text.find("{"), text.rfind("}")
    if 0 <= first < last:
        tries.append(text[first : last + 1])
    for candidate in tries:
        try:
            value = json.loads(candidate)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            return value
    return None


def _prompt(spec: Specification, cell: Cell, count: int, number: int, attempt: int) -> list[Message]:
    shape = (
        f'{{"question": "...", "correct": "the right choice", "wrong": [{spec.wrong_choices} wrong choices], '
        '"working": "why the right choice is right, without letters or numbers of choices"}'
        if spec.form == "choice"
        else '{"question": "what the user writes", "reply": "the answer"}'
    )
    lines = [f"- {axis.replace('_', ' ')}: {value}" for axis, value in cell.items()]
    asked = (
        f"Write {count} different item(s) for this cell:\n" + "\n".join(lines) + f"\n(request {number})\n\n"
        f'Answer with one JSON object {{"items": [...]}} and nothing else; each item is {shape}. '
        f"No text may be longer than {spec.max_chars} characters."
    )
    if attempt:
        asked += "\nAn earlier answer to this was no such JSON object: no code fence, no comment, no other key."
    return [{"role": "system", "content": spec.instructions}, {"role": "user", "content": asked}]


def _row(
    item: ChoiceItem | OpenItem, spec: Specification, cell: Cell, number: str, request: Request, model: str
) -> SyntheticRow:
    label: str | None = None
    solution: str | None = None
    if isinstance(item, ChoiceItem):
        # models put the right choice first more often than not: the order is drawn here
        order = request.rng(f"order {number}").sample([item.correct, *item.wrong], len(item.wrong) + 1)
        choices = tuple(text.strip() for text in order)
        solution = item.working.strip()
        example = Example(item.question.strip(), choices, LABELS[order.index(item.correct)], solution, None)
        label = label_of(example, request.target.answer)
        completion = f"{solution}\n{AnswerRule(request.target.answer).line(label)}" if label else solution
    else:
        example = Example(item.question.strip(), (), None, None, None)
        completion = item.reply.strip()
    return make_row(
        example,
        request,
        completion=completion,
        label=label,
        solution=solution,
        generator="specification",
        parent=f"{spec.name}: {canonical_json(cell)}",
        parent_sha256=sha256_text(canonical_json([spec.model_dump(), cell])),
        model=model,
        weight=spec.weight(cell),
    )
