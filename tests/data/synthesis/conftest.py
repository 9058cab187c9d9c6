"""Writers that answer by a script, a benchmark to be kept apart from, and a plugin with planted rows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Literal

import pytest
from pydantic import BaseModel

from posttrain_crew.plugins import hookimpl, manager
from posttrain_crew.target import Target
from posttrain_crew.tools.data.contamination import ContaminationIndex
from posttrain_crew.tools.data.formats import Example
from posttrain_crew.tools.data.synthesis.base import Message, NoParameters, Request, Source, SyntheticRow
from posttrain_crew.tools.data.synthesis.chat import Completion
from posttrain_crew.tools.embedded.benchmark import Item, train_items


@pytest.fixture(scope="session")
def index(target: Target) -> ContaminationIndex:
    return ContaminationIndex.of_target(target)


def example_of(item: Item) -> Example:
    return Example(item.question, item.choices, item.answer, item.solution, None)


def questions(count: int, seed: int = 0) -> list[Source]:
    """Train-side questions, as a dataset would give them."""
    return [Source(example_of(item), f"train#{i}") for i, item in enumerate(train_items(count, f"tests {seed}"))]


class ScriptedWriter:
    """A chat model whose answers are a function of what it is asked. Counts its requests; 10 tokens in, 10 out each."""

    def __init__(self, answer: Callable[[list[Message], int], str], usd: float | None = 0.0) -> None:
        self.model = "scripted"
        self.asked: list[tuple[str, int]] = []
        self._answer = answer
        self._usd = usd
        self._lock = threading.Lock()

    def price(self, prompt_tokens: int, completion_tokens: int) -> float | None:
        return None if self._usd is None else self._usd * (prompt_tokens + completion_tokens)

    def __call__(self, messages: list[Message], *, temperature: float, max_tokens: int, seed: int) -> Completion:
        with self._lock:
            self.asked.append((messages[-1]["content"], seed))
        return Completion(self._answer(messages, seed), 10, 10, self.price(10, 10))


class Planted:
    """A generator that yields rows that a test gave it."""

    summary: ClassVar[str] = "rows of a test"
    parameters: ClassVar[type[BaseModel]] = NoParameters
    needs: ClassVar[tuple[Literal["model", "questions", "specification"], ...]] = ()
    rows: ClassVar[Sequence[SyntheticRow]] = ()

    def generate(self, request: Request) -> Iterator[SyntheticRow]:
        yield from self.rows


class _Plugin:
    @hookimpl
    def register_generators(self) -> dict[str, Any]:
        return {"planted": Planted}


@pytest.fixture
def planted() -> Iterator[type[Planted]]:
    """The generator `planted`, registered as a plugin's would be."""
    plugin = _Plugin()
    manager().register(plugin, name="planted-rows")
    yield Planted
    manager().unregister(plugin)
    Planted.rows = ()
