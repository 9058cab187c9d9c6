"""From an example to a row in the target's form, and from rows to lines of a file."""

from __future__ import annotations

from posttrain_crew.files import canonical_json, sha256_text
from posttrain_crew.target import Answer
from posttrain_crew.tools.data.formats import LABELS, Example
from posttrain_crew.tools.data.rendering import render_prompt
from posttrain_crew.tools.data.synthesis.base import Message, Request, SyntheticRow

__all__ = ["content_sha256", "make_row", "record", "user_turn"]


def content_sha256(example: Example) -> str:
    """Hash of a question with its choices and answer."""
    return sha256_text(canonical_json([example.question, list(example.choices), example.answer]))


def user_turn(example: Example, answer: Answer) -> Message:
    """The question as the benchmark asks it."""
    open_question = not example.choices
    return {"role": "user", "content": example.question if open_question else render_prompt(example, answer)}


def make_row(
    example: Example,
    request: Request,
    *,
    completion: str,
    label: str | None,
    solution: str | None,
    generator: str,
    parent: str,
    model: str,
    parent_sha256: str | None = None,
    weight: float = 1.0,
) -> SyntheticRow:
    """A row with its provenance.

    Args:
        label: the right answer as the target's answer line names it; None where there is none to check.
        parent_sha256: hash of what it was made from; of the example itself by default.
    """
    place = LABELS.find(example.answer) if example.choices and example.answer else -1
    return SyntheticRow(
        prompt=[user_turn(example, request.target.answer)],
        completion=completion,
        question=example.question,
        choices=example.choices,
        answer=label,
        place=place if place >= 0 else None,
        solution=solution,
        generator=generator,
        seed=request.seed,
        parent=parent[:500],
        parent_sha256=parent_sha256 or content_sha256(example),
        model=model,
        weight=weight,
    )


def record(row: SyntheticRow, copy: int = 0) -> dict[str, object]:
    """A line of the file: `prompt` and `completion` as TRL takes them, the columns that an audit reads, provenance.

    Args:
        copy: number of the repeat, for a row that is in the file several times.
    """
    line: dict[str, object] = {
        "prompt": row.prompt,
        "completion": [{"role": "assistant", "content": row.completion}],
    }
    if row.choices:
        line |= {"question": row.question, "choices": list(row.choices), "answer": row.answer, "solution": row.solution}
    elif row.answer is not None:
        line |= {"answer": row.answer}
    line |= {
        "id": row.id,
        "generator": row.generator,
        "seed": row.seed,
        "parent": row.parent,
        "parent_sha256": row.parent_sha256,
        "model": row.model,
        "checks": row.checks,
        "pass_rate": row.pass_rate,
        "copy": copy,
    }
    if row.tests is not None:
        line["tests"] = row.tests
    return line
