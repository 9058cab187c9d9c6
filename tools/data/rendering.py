"""The benchmark's own prompt and answer line, from the target's templates."""

from __future__ import annotations

import re

from posttrain_crew.errors import DatasetError
from posttrain_crew.target import Answer
from posttrain_crew.tools.data.formats import LABELS, Example

__all__ = ["answer_line", "label_of", "render_completion", "render_prompt"]

_ENDS_WITH_ANSWER = re.compile(r"\n\s*answer\s*:\s*[^\n]*$", re.IGNORECASE)


def label_of(example: Example, answer: Answer) -> str | None:
    """What the benchmark would call the right answer of this row; None where it cannot be said in its form."""
    if answer.kind != "choice":
        return example.answer_text
    if example.answer is None or not example.choices or len(example.choices) > len(answer.labels):
        return None
    index = LABELS.find(example.answer)
    return answer.labels[index] if 0 <= index < len(example.choices) else None


def render_prompt(example: Example, answer: Answer) -> str:
    """The user turn, equal to the benchmark's. Raises DatasetError for more choices than the target has labels."""
    if answer.kind != "choice":
        return example.question
    if len(example.choices) > len(answer.labels):
        raise DatasetError(
            f"a question with {len(example.choices)} choices cannot be put as this target's prompt, which has "
            f"{len(answer.labels)} labels: leave such rows out."
        )
    choices = "\n".join(
        answer.choice.format(label=label, text=text)
        for label, text in zip(answer.labels, example.choices, strict=False)
    )
    return answer.prompt.format(question=example.question, choices=choices)


def answer_line(label: str, answer: Answer) -> str:
    """The line that the strict metric wants."""
    return answer.template.format(answer=label)


def render_completion(example: Example, label: str, answer: Answer, *, worked: bool) -> str:
    """The assistant turn: the working, if wanted and there, and the answer line."""
    line = answer_line(label, answer)
    if not worked or example.solution is None:
        return line
    return f"{_ENDS_WITH_ANSWER.sub('', example.solution)}\n{line}"
