"""What a row means: the formats of the Hub, and one internal form for all of them.

A format is told from the columns and the values, never from a name. Choices are taken out of a prompt's text where a
dataset has no column for them, answers out of a completion; the working is what remains of a completion when the
sentence that names the answer is cut off.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from posttrain_crew.tools.data.reader import RawRow
from posttrain_crew.tools.data.roles import Refusal, Turn, read_turns, split_dialogue
from posttrain_crew.tools.data.text import normalised, number_of, tokens

__all__ = [
    "LABELS",
    "PROVENANCE",
    "Example",
    "Format",
    "copy_of",
    "detect_format",
    "format_of",
    "normalise_row",
    "provenance_of",
    "read_row",
    "row_texts",
    "split_prompt",
]

Format = Literal["mcq", "messages", "sharegpt", "prompt_completion", "alpaca", "preference", "text", "unknown"]
LABELS = "ABCDEFGHIJ"
MINIMUM_WORKING_TOKENS = 3
MAX_PARSED_CHARS = 20_000
"""In a longer prompt no choices are looked for: it is no question."""
TELLING_CHARS = 12
"""A shorter text (a subject, an id, a role) says nothing that could be an item."""
CHOICE_OVERHEAD = 40
"""Letters, brackets and words such as `Question:` that a prompt may add to each of its parts."""
PROVENANCE = ("generator", "seed", "parent", "parent_sha256", "model")
"""Columns that say where a synthetic row is from (synthesis/rows.py); a row has them if it has the first three."""
PROVENANCE_CHARS = 500
MAX_COPIES = 10
TAIL_CHARS = 400
"""The sentence that names the answer is looked for in the last characters of a completion."""

_QUESTION = ("question", "problem", "query", "input_question", "stem", "prompt")
_CHOICES = ("choices", "options", "answers", "candidates", "endings")
_ANSWER = ("answer", "label", "answer_key", "answerkey", "correct", "correct_answer", "target", "gold", "answer_idx",
           "answer_index", "correct_option", "cop")  # fmt: skip
_SOLUTION = ("solution", "explanation", "rationale", "reasoning", "working", "support", "exp", "cot", "solution_text")
_COMPLETION = ("completion", "response", "output", "answer", "reply")
_CHOICE_COLUMNS = (
    ("a", "b", "c", "d"),
    ("option_a", "option_b", "option_c", "option_d"),
    ("opa", "opb", "opc", "opd"),
    ("choice_a", "choice_b", "choice_c", "choice_d"),
    ("option1", "option2", "option3", "option4"),
)

_LINE = re.compile(r"^[ \t]*[(\[]?([A-J]|10|[1-9])[)\].:][ \t]+(\S.*?)[ \t]*$", re.MULTILINE)
_INLINE = re.compile(r"\(([A-J])\)[ \t]*(.+?)(?=\s*\([A-J]\)|\s*$)")
_PREFIX = re.compile(r"^\s*(?:question|q|problem)\s*\d*\s*[:.)]\s*", re.IGNORECASE)
_TAIL = re.compile(r"\n?\s*(?:answer|choices|options)\s*:\s*$", re.IGNORECASE)
_STATED = re.compile(
    r"(?:(?:^|(?<=[.!?\n;]))\s*|\s+)(?:so|thus|therefore|hence)?,?\s*(?:the\s+)?(?:final\s+|correct\s+|right\s+)?"
    r"(?:answer|option|choice)\s*(?:is\s*:?|[:=])\s*\**\s*[(\[{]?\s*(?P<what>[^\n.]*(?:\.\d[^\n.]*)?)\.?\**\s*$",
    re.IGNORECASE,
)
_BOXED = re.compile(r"\\boxed\{([^{}]*)\}\s*\$?\.?\s*$")
_HASHES = re.compile(r"\n?####\s*(.+?)\s*$")
_LETTER = re.compile(r"[(\[]?\s*([A-J])\s*[)\]]?(?=$|[\s.,:;)\]*])")
_CLOSING = re.compile(r"\(([A-J])\)\s*\.?\s*$")


@dataclass(frozen=True)
class Example:
    """One question in the form that the checks and the builder use."""

    question: str
    """Without the choices."""
    choices: tuple[str, ...]
    """Empty for an open question."""
    answer: str | None
    """The label, A for the first choice, whatever the source counts with; for an open question the answer's text."""
    solution: str | None
    """The working, without the sentence that names the answer; None where there is none."""
    raw_completion: str | None
    """What the source has as completion, untouched."""
    pass_rate: float | None = None
    """Share of a student's own answers that were right, 0-1, where the source has it (column `pass_rate`)."""
    rejected: str | None = None
    """The reply that a preference pair prefers the other to."""
    further: tuple[str, ...] = ()
    """All other texts of the row: later turns, system prompts, rejected replies, other columns."""
    provenance: Mapping[str, str | int] | None = None
    """Of a synthetic row: its generator, seed, parent and so on (PROVENANCE)."""
    copy: int = 0
    """Of a synthetic row that is repeated because of its weight: which repeat it is. Others are 0."""

    @property
    def answer_text(self) -> str | None:
        """The text of the right choice, or the open answer."""
        if self.answer is None or not self.choices:
            return self.answer
        index = LABELS.find(self.answer)
        return self.choices[index] if 0 <= index < len(self.choices) else None

    @property
    def worked(self) -> bool:
        """Whether a working comes before the answer."""
        return self.solution is not None


def detect_format(rows: Iterable[RawRow | None]) -> Format:
    """The format that most of the given rows have; `unknown` where none of crew's formats fits."""
    votes: dict[Format, int] = {}
    for row in rows:
        if row is not None:
            kind = format_of(row)
            votes[kind] = votes.get(kind, 0) + 1
    return max(votes, key=lambda kind: votes[kind]) if votes else "unknown"


def normalise_row(row: RawRow | None, kind: Format) -> Example | None:
    """A row in the internal form, or None where it has no readable question.

    An answer that names no choice becomes None: the row is then readable, but has no label.
    """
    if row is None:
        return None
    example = _READERS[kind]({name.lower(): value for name, value in row.items()})
    if example is None:
        return None
    seen = {example.question, example.raw_completion, *example.choices}
    further = [text for text in row_texts(row) if text not in seen and not _is_source(text, example)]
    rate = row.get("pass_rate")
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate <= 1:
        rate = None
    made = provenance_of(row)
    if not further and rate is None and made is None:
        return example
    return replace(example, further=tuple(further), pass_rate=rate, provenance=made, copy=copy_of(row))


def copy_of(row: RawRow) -> int:
    """Number of a synthetic row's wanted repeat, 0 to MAX_COPIES - 1; 0 for every other row."""
    copy = row.get("copy")
    wanted = isinstance(copy, int) and 0 < copy < MAX_COPIES and provenance_of(row) is not None
    return int(copy) if wanted else 0  # type: ignore[call-overload]


def provenance_of(row: RawRow) -> dict[str, str | int] | None:
    """Where a synthetic row is from (PROVENANCE); None for a row that does not say it."""
    generator, seed, parent = (row.get(name) for name in PROVENANCE[:3])
    if not (isinstance(generator, str) and isinstance(seed, int) and isinstance(parent, str)):
        return None
    given = ((name, row.get(name)) for name in PROVENANCE)
    return {
        name: value[:PROVENANCE_CHARS] if isinstance(value, str) else value
        for name, value in given
        if isinstance(value, str | int)
    }


def read_row(row: RawRow) -> Example | None:
    """A row in the internal form, its format told from itself alone; None where no question can be read from it."""
    return normalise_row(row, format_of(row))


def row_texts(row: RawRow) -> list[str]:
    """Every text of a row that is longer than a word or two, however deep it lies, in order."""
    found: list[str] = []
    waiting: list[object] = list(reversed(list(row.values())))
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            if len(value) >= TELLING_CHARS:
                found.append(value)
        elif isinstance(value, Mapping):
            waiting.extend(reversed(list(value.values())))
        elif isinstance(value, list):
            waiting.extend(reversed(value))
    return found


def _is_source(text: str, example: Example) -> bool:
    """Whether a text is the prompt, or a part of it, that question and choices were taken from."""
    most = len(example.question) + sum(len(choice) + CHOICE_OVERHEAD for choice in example.choices) + CHOICE_OVERHEAD
    if len(text) > most:
        return False
    return example.question in text or split_prompt(text)[0] in example.question


def split_prompt(prompt: str) -> tuple[str, tuple[str, ...]]:
    """Question and choices of a prompt: lines `(A) 12`, `A) 12`, `A. 12`, `1. 12`, or `(A) 12 (B) 13` in one line."""
    prompt = _tamed(prompt)
    if len(prompt) > MAX_PARSED_CHARS:
        return prompt.strip(), ()
    for pattern in (_LINE, _INLINE):
        found = list(pattern.finditer(prompt))
        start = next((i for i in range(len(found) - 1, -1, -1) if found[i][1] in ("A", "1")), None)
        if start is None:
            continue
        run = found[start:]
        order = LABELS if run[0][1] == "A" else [str(n) for n in range(1, 11)]
        run = [match for match, label in zip(run, order, strict=False) if match[1] == label]
        if len(run) >= 2:
            return _clean_question(prompt[: run[0].start()]), tuple(match[2].strip() for match in run)
    return _clean_question(prompt), ()


def _tamed(text: str) -> str:
    """Long runs of white space cut short: the patterns here would take quadratic time on them."""
    return re.sub(r"\s{20,}", lambda run: "\n" if "\n" in run[0] else " ", text)


def _clean_question(text: str) -> str:
    return _PREFIX.sub("", _TAIL.sub("", _tamed(text).strip())).strip()


def format_of(row: RawRow) -> Format:
    """The format of one row."""
    fields = {name.lower(): value for name, value in row.items()}
    if "chosen" in fields and "rejected" in fields:
        return "preference"
    for name in ("messages", "conversations", "conversation"):
        value = fields.get(name)
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            return "sharegpt" if "from" in value[0] else "messages"
    if _text(fields, _QUESTION) and _choices_of(fields):
        return "mcq"
    if isinstance(fields.get("prompt"), list):
        return "prompt_completion"
    if _text(fields, ("instruction",)) and "output" in fields:
        return "alpaca"
    if _text(fields, _QUESTION) and any(name in fields for name in (*_COMPLETION, *_ANSWER)):
        return "prompt_completion"
    return "text" if _text(fields, ("text", "content")) else "unknown"


def _mcq(fields: Mapping[str, object]) -> Example | None:
    question, choices = _text(fields, _QUESTION), _choices_of(fields)
    if not question:
        return None
    given = next((fields[name] for name in _ANSWER if fields.get(name) is not None), None)
    zero_based = "cop" not in fields
    solution = _text(fields, _SOLUTION)
    working, _ = _split_completion(solution, choices) if solution else (None, None)
    return Example(_clean_question(question), choices, _label(given, choices, fields, zero_based), working, solution)


def _conversation(fields: Mapping[str, object]) -> Example | None:
    value = next((v for n in ("messages", "conversations", "conversation") if isinstance(v := fields.get(n), list)), [])
    turns = read_turns(value)
    return None if isinstance(turns, Refusal) else _from_turns(turns)


def _from_turns(turns: Sequence[Turn]) -> Example | None:
    """The first question and its reply: later turns talk about this answer."""
    asked = next((i for i, turn in enumerate(turns) if turn.role == "user"), None)
    if asked is None:
        return None
    reply = next((turn.content for turn in turns[asked + 1 :] if turn.role == "assistant"), None)
    return _from_texts(turns[asked].content, reply)


def _pair(fields: Mapping[str, object]) -> Example | None:
    prompt = fields.get("prompt")
    if isinstance(prompt, list):  # conversational prompt + completion, as TRL has it
        completion, answer = fields.get("completion"), fields.get("answer")
        if not isinstance(completion, list):
            completion = [{"role": "assistant", "content": f"Answer: {answer}"}] if isinstance(answer, str) else []
        return _conversation({"messages": [*prompt, *completion]})
    asked = _text(fields, _QUESTION)
    if not asked:
        return None
    reply = _text(fields, _COMPLETION) or _text(fields, _ANSWER)
    working = _text(fields, _SOLUTION)
    return _from_texts(asked, f"{working}\nAnswer: {reply}" if working and reply else working or reply)


def _alpaca(fields: Mapping[str, object]) -> Example | None:
    asked, extra = _text(fields, ("instruction",)), _text(fields, ("input",))
    if not asked:
        return None
    return _from_texts(f"{asked}\n{extra}" if extra else asked, _text(fields, ("output",)))


def _preference(fields: Mapping[str, object]) -> Example | None:
    chosen, rejected = (_turns_of(fields.get(name)) for name in ("chosen", "rejected"))
    asked = fields.get("prompt") or fields.get("question") or fields.get("instruction")
    before = read_turns(asked) if isinstance(asked, list) else [Turn("user", asked)] if isinstance(asked, str) else []
    if isinstance(chosen, Refusal) or isinstance(before, Refusal):
        return None
    turns = chosen if any(turn.role == "user" for turn in chosen) else [*before, *chosen]
    found = _from_turns(turns)
    if found is None or isinstance(rejected, Refusal) or not rejected:
        return found
    single = sum(turn.role == "assistant" for turn in turns) == 1 and rejected[-1].role == "assistant"
    other = rejected[-1].content
    return replace(found, rejected=other) if single and other.strip() and other != found.raw_completion else found


def _turns_of(reply: object) -> list[Turn] | Refusal:
    if isinstance(reply, str):
        return split_dialogue(reply) or [Turn("assistant", reply)]
    return read_turns([reply] if isinstance(reply, Mapping) else reply)


def _plain(fields: Mapping[str, object]) -> Example | None:
    text = _text(fields, ("text", "content"))
    return Example(text, (), None, None, None) if text else None


_READERS: dict[Format, Callable[[Mapping[str, object]], Example | None]] = {
    "mcq": _mcq,
    "messages": _conversation,
    "sharegpt": _conversation,
    "prompt_completion": _pair,
    "alpaca": _alpaca,
    "preference": _preference,
    "text": _plain,
    "unknown": lambda _fields: None,
}


def _from_texts(asked: str, reply: str | None) -> Example | None:
    question, choices = split_prompt(asked)
    if not question:
        return None
    working, stated = _split_completion(reply, choices) if reply else (None, None)
    answer = _label(stated, choices, {}, True) if choices else stated
    return Example(question, choices, answer, working, reply)


def _split_completion(text: str, choices: Sequence[str]) -> tuple[str | None, str | None]:
    """Working and stated answer of a completion."""
    body, stated = _tamed(text).strip(), None
    start = max(0, len(body) - TAIL_CHARS)
    for pattern in (_BOXED, _HASHES, _STATED):
        if match := pattern.search(body, start):
            what = match["what"] if "what" in pattern.groupindex else match[1]
            body, stated = body[: match.start()].rstrip(), what.strip(" *)]}.")
            break
    if stated is None and (match := _CLOSING.search(body, start)):
        stated = match[1]
    if stated is None and len(tokens(body)) <= MINIMUM_WORKING_TOKENS:
        return None, body
    if stated is None and not choices:
        numeric = re.findall(r"-?\d[\d,]*(?:\.\d+)?", body[-TAIL_CHARS:])
        stated = numeric[-1] if numeric else None
    return (body if len(tokens(body)) > MINIMUM_WORKING_TOKENS else None), stated


def _label(given: object, choices: Sequence[str], fields: Mapping[str, object], zero_based: bool) -> str | None:
    """The label of a given answer: letter, index, or the text of a choice. None where it names no choice."""
    if not choices:
        return str(given) if isinstance(given, str | int | float) and not isinstance(given, bool) else None
    if isinstance(given, list) and len(given) == 1:
        given = given[0]
    if isinstance(given, bool) or given is None:
        return None
    if isinstance(given, int):
        index = given if zero_based else given - 1
        return LABELS[index] if 0 <= index < min(len(choices), len(LABELS)) else None
    if not isinstance(given, str):
        return None
    names = _own_labels(fields)
    if names and given.strip() in names:
        return LABELS[names.index(given.strip())]
    texts = [normalised(choice) for choice in choices]
    if (plain := normalised(given)) in texts and texts.count(plain) == 1:
        return LABELS[texts.index(plain)]
    if (match := _LETTER.match(given.strip())) and LABELS.index(match[1]) < len(choices):
        return match[1]
    if given.strip().isdigit():
        return _label(int(given), choices, {}, zero_based)
    values = [number_of(choice) for choice in choices]
    if (value := number_of(given)) is not None and values.count(value) == 1:
        return LABELS[values.index(value)]
    return None


def _choices_of(fields: Mapping[str, object]) -> tuple[str, ...]:
    for name in _CHOICES:
        value = fields.get(name)
        if isinstance(value, Mapping):
            inner = value.get("text")
            value = inner if isinstance(inner, list) else [value[key] for key in sorted(value)]
        if isinstance(value, list) and 2 <= len(value) <= len(LABELS):
            texts = [item.get("text") if isinstance(item, Mapping) else item for item in value]
            if all(isinstance(text, str | int | float) for text in texts):
                return tuple(re.sub(r"^\(?[A-J][).]\s+", "", str(text)).strip() for text in texts)
    for columns in _CHOICE_COLUMNS:
        if all(isinstance(fields.get(column), str) for column in columns):
            return tuple(str(fields[column]).strip() for column in columns)
    return ()


def _own_labels(fields: Mapping[str, object]) -> list[str]:
    """The labels that ARC-like rows carry beside the texts (`1`..`4` in some of them)."""
    for name in _CHOICES:
        value = fields.get(name)
        if isinstance(value, Mapping) and isinstance(labels := value.get("label"), list):
            return [str(label) for label in labels]
    return []


def _text(fields: Mapping[str, object], names: Sequence[str]) -> str:
    for name in names:
        value = fields.get(name)
        if isinstance(value, str) and value.strip():
            return value.strip()
    return ""
