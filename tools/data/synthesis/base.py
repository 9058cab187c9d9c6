"""What synthesis is made of: a row with its provenance, and the protocols of those who make, check and sample it.

A generator makes candidate rows, a verifier says whether one is right, a sampler produces text with some model. All
are plain objects; a plugin brings the first two (hooks `register_generators`, `register_verifiers`), and pipeline.py
puts them in order.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol, TypeVar, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field

from posttrain_crew.errors import InputError
from posttrain_crew.files import canonical_json, sha256_text
from posttrain_crew.target import Target
from posttrain_crew.tools.data.formats import LABELS, Example

__all__ = [
    "BatchVerifier",
    "Generator",
    "Message",
    "NoParameters",
    "OnSampled",
    "Parameters",
    "Request",
    "Sampler",
    "Source",
    "SyntheticRow",
    "Usage",
    "Verification",
    "Verifier",
    "parameters_as",
]

Message = dict[str, str]
"""`role` (system, user, assistant) and `content`."""


class Parameters(BaseModel):
    """Base of what a generator or verifier can be told. An unknown key is an error; fields have descriptions."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class NoParameters(Parameters):
    """For those that need none."""


ParametersT = TypeVar("ParametersT", bound=BaseModel)


def parameters_as(kind: type[ParametersT], given: BaseModel) -> ParametersT:
    """The parameters in the class that a generator or verifier declared. Raises InputError for another one."""
    if not isinstance(given, kind):
        raise InputError(f"parameters of the class {kind.__name__} are needed; {type(given).__name__} was given.")
    return given


class SyntheticRow(BaseModel):
    """One made row: what is trained on, what is right, and where it comes from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: list[Message]
    """What the student is asked, the last turn by the user, in the target's own form."""
    completion: str
    """What it should answer, in the target's own form."""
    question: str
    """The question without its choices."""
    choices: tuple[str, ...] = ()
    """Empty for an open question."""
    answer: str | None = None
    """The right answer as the target's answer line names it (a label or a value); None where none can be checked."""
    place: int | None = None
    """Index of the right choice; None for an open question."""
    solution: str | None = None
    """The working alone, without the answer line."""
    tests: str | None = None
    """For a row that asks for code: Python that fails where the completion's code is wrong."""
    generator: str
    seed: int
    parent: str
    """What it was made from: `dataset#row`, a cell of a specification, a template with its numbers."""
    parent_sha256: str
    """Hash of the parent's content, so that it can be found again."""
    model: str
    """Who wrote the completion; `computed` where it was calculated."""
    checks: dict[str, str] = {}
    """By verifier: `ok`, or what it said."""
    pass_rate: float | None = Field(default=None, ge=0, le=1)
    """Share of the student's own samples that were right; None where that was not measured."""
    weight: float = Field(default=1.0, ge=0, le=100)
    """How often it should be seen, relative to a plain row."""

    @property
    def id(self) -> str:
        """16 hex digits of what is trained on: the same text has the same id, whoever made it."""
        return sha256_text(canonical_json([self.prompt, self.completion]))[:16]

    def example(self) -> Example:
        """The row as the checks of tools/data see it."""
        answer = self.answer if self.place is None else LABELS[self.place]
        return Example(self.question, self.choices, answer, self.solution, self.completion)


class Verification(BaseModel):
    """What a verifier found."""

    model_config = ConfigDict(frozen=True)

    ok: bool
    reason: str = ""
    """Why not, in a few words that do not depend on the row, so that equal faults can be counted."""


@dataclass(frozen=True)
class Usage:
    """What sampling cost."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    usd: float | None = 0.0
    """None once one price in it is not known."""

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Usage) -> Usage:
        usd = None if self.usd is None or other.usd is None else self.usd + other.usd
        return Usage(
            self.requests + other.requests,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            usd,
        )


OnSampled = Callable[[int, list[str], Usage], None]
"""Called once for each prompt as soon as it is answered: its index, its texts, what they cost."""


class Sampler(Protocol):
    """Text from a model."""

    model: str
    """Its name in each row's provenance."""
    usage: Usage
    """All that it has cost so far."""
    left_out: Counter[str]
    """Prompts (of a chat service: requests) that got no text, by reason: `budget`, `too_long`, `refused`."""

    @property
    def identity(self) -> str:
        """Tells two models apart that have the same name: part of the key under which samples are kept."""
        ...

    def group(self, n: int) -> int:
        """Prompts that are sampled together, so that their texts depend on each other; 1 where they do not."""
        ...

    def sample(
        self,
        prompts: Sequence[list[Message]],
        *,
        n: int,
        temperature: float,
        max_tokens: int,
        seed: int,
        on_sampled: OnSampled | None = None,
    ) -> list[list[str]]:
        """`n` texts for each prompt, in order; fewer, or none, for a prompt that was left out (`left_out` says why).

        The same model, group of prompts and seed give the same texts where the model allows it. Temperature 0: greedy.

        Raises:
            ModelError: the model cannot be loaded. ServiceError: the service behind it fails for all prompts alike.
        """
        ...


@dataclass(frozen=True)
class Source:
    """A question with a known answer to start from."""

    example: Example
    name: str
    """`dataset#row`."""


@dataclass
class Request:
    """What a generator works with."""

    rows: int
    """Candidates wanted at most."""
    seed: int
    target: Target
    params: BaseModel
    """An instance of the generator's `parameters`."""
    sampler: Sampler | None = None
    sources: Sequence[Source] = ()
    """Questions with known answers that do not occur in the benchmark."""
    tally: Counter[str] = field(default_factory=Counter)
    """The generator counts here what became of its work; it goes into the card."""

    def rng(self, purpose: str) -> random.Random:
        """A random generator of its own for each purpose: one more draw in one place changes nothing elsewhere."""
        return random.Random(f"{self.seed} {purpose}")

    def need_sampler(self, who: str) -> Sampler:
        """The sampler. Raises InputError where none was given."""
        if self.sampler is None:
            raise InputError(
                f"the generator `{who}` needs a model that writes: give --model (a folder or `builtin:NAME`) or --llm."
            )
        return self.sampler

    def need_sources(self, who: str) -> Sequence[Source]:
        """The questions. Raises InputError where none was given."""
        if not self.sources:
            raise InputError(
                f"the generator `{who}` needs questions with known answers: give --from, a dataset that has them."
            )
        return self.sources


@runtime_checkable
class Generator(Protocol):
    """Makes candidate rows. Registered is what makes one when it is called without arguments, such as its class."""

    summary: ClassVar[str]
    """One line for `crew data synthesize --list`."""
    parameters: ClassVar[type[BaseModel]]
    """Pydantic model of what it can be told."""
    needs: ClassVar[tuple[Literal["model", "questions", "specification"], ...]]
    """What it cannot do without."""

    def generate(self, request: Request) -> Iterator[SyntheticRow]:
        """Candidates, at most `request.rows`. The same request and samples give the same rows in the same order.

        Raises:
            InputError: the request lacks what it needs.
        """
        ...


@runtime_checkable
class Verifier(Protocol):
    """Says whether a row is right. Registered is what makes one from a `verifiers.Bench` and its parameters."""

    summary: ClassVar[str]
    parameters: ClassVar[type[BaseModel]]

    def verify(self, row: SyntheticRow) -> Verification:
        """The verdict on one row. What a row says is data: it is never executed here nor obeyed."""
        ...


@runtime_checkable
class BatchVerifier(Protocol):
    """A verifier that asks a model, and asks for many rows at once."""

    def verify_all(self, rows: Sequence[SyntheticRow]) -> list[Verification]:
        """The verdicts, in order."""
        ...
