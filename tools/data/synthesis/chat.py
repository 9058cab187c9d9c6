"""Texts from a chat service, within a limit of tokens and dollars.

What makes one request is injected (`Complete`); litellm_complete.py has the one for litellm. A prompt that does not fit
the limits any more is left out and counted; one that the service refuses (a content rule) is left out and counted, too.
A service that is down, or a key that is wrong, is an error: no rows is not an answer.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Protocol

from posttrain_crew.errors import BudgetError, CrewError, ServiceError
from posttrain_crew.tools.data.synthesis.base import Message, OnSampled, Usage

__all__ = ["Allowance", "ChatSampler", "Complete", "Completion", "RefusedError"]

CHARS_PER_TOKEN = 3.0
"""A low guess, so that what is set aside for a prompt is rather too much."""
ALL_REFUSED = 3
"""So many refusals and no answer at all are the service's fault, or the request's, and not that of the prompts."""
Told = tuple[list[str], Usage, str]
"""Texts, their cost, and why there are none."""


class RefusedError(CrewError):
    """The service will not answer this one prompt."""


@dataclass(frozen=True)
class Completion:
    """One answer and its cost."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    usd: float | None
    """None where the price is not known."""


class Complete(Protocol):
    """One request to a chat model."""

    model: str

    def price(self, prompt_tokens: int, completion_tokens: int) -> float | None:
        """USD of such a request, or None where the price is not known."""
        ...

    def __call__(self, messages: list[Message], *, temperature: float, max_tokens: int, seed: int) -> Completion:
        """Ask once, with what retries are due inside.

        Raises:
            RefusedError: this prompt is refused. ServiceError: the service failed.
        """
        ...


@dataclass
class Allowance:
    """What may be spent. Amounts are set aside before a request and replaced by its true cost after it."""

    tokens: int | None = None
    usd: float | None = None
    spent: Usage = field(default_factory=Usage)
    per_call: bool = False
    """Whether what earlier attempts at the same dataset spent is left out of account."""
    _aside_tokens: int = 0
    _aside_usd: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, tokens: int, usd: float | None) -> bool:
        """Set an amount aside; False where it does not fit what is left."""
        with self._lock:
            if self.tokens is not None and self.spent.tokens + self._aside_tokens + tokens > self.tokens:
                return False
            if self.usd is not None:
                if usd is None or self.spent.usd is None:
                    raise BudgetError(
                        "the price of this model is not known, so a limit in USD cannot be kept. Set CREW_LLM_PRICE_IN "
                        "and CREW_LLM_PRICE_OUT (USD per token), or limit tokens instead."
                    )
                if self.spent.usd + self._aside_usd + usd > self.usd:
                    return False
            self._aside_tokens += tokens
            self._aside_usd += usd or 0.0
            return True

    def settle(self, tokens: int, usd: float | None, used: Usage) -> None:
        """Give back what was set aside and count what was used."""
        with self._lock:
            self._aside_tokens -= tokens
            self._aside_usd -= usd or 0.0
            self.spent += used


class ChatSampler:
    """Asks a chat service, several requests at a time.

    Args:
        identity: what else tells this model apart (its address), beside its name.
        allowance: shared by all samplers of one synthesis.
        concurrency: requests in flight at most.
    """

    def __init__(
        self, complete: Complete, *, allowance: Allowance | None = None, concurrency: int = 8, identity: str = ""
    ) -> None:
        self._complete = complete
        self._allowance = allowance or Allowance()
        self._concurrency = max(1, concurrency)
        self._identity = identity
        self.model = complete.model
        self._refusal = ""
        self.usage = Usage()
        self.left_out: Counter[str] = Counter()

    @property
    def identity(self) -> str:
        return f"{self.model} {self._identity}"

    def group(self, n: int) -> int:
        return 1

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
        """See `Sampler`. Each of the `n` texts is a request of its own, since many servers ignore `n`; the seeds are
        `seed`, `seed + 1`, ... BudgetError: a limit in USD was set and the price is not known."""
        texts: list[list[str]] = [[] for _ in prompts]
        stop = threading.Event()
        with ThreadPoolExecutor(self._concurrency) as pool:
            work = {
                pool.submit(self._one, prompt, n, temperature, max_tokens, seed, stop): index
                for index, prompt in enumerate(prompts)
            }
            failure: BaseException | None = None
            for done in _ended(work, stop):
                if (error := done.exception()) is not None:
                    stop.set()  # what is in flight may end and is kept; nothing new is asked
                    failure = failure or error
                    continue
                said, usage, why = done.result()
                self.usage += usage
                if why:
                    self.left_out[why] += 1
                texts[work[done]] = said
                if on_sampled is not None and (usage.requests or said):
                    on_sampled(work[done], said, usage)
        if failure is not None:
            raise failure
        if not self.usage.requests and self.left_out["refused"] >= ALL_REFUSED:
            raise ServiceError(
                f"the model `{self.model}` refused each of {self.left_out['refused']} requests, the last one so: "
                f"{self._refusal} That is not a matter of one prompt: check the model's name and the parameters.",
                service="llm",
            )
        return texts

    def _one(
        self, prompt: list[Message], n: int, temperature: float, max_tokens: int, seed: int, stop: threading.Event
    ) -> Told:
        guess = int(sum(len(message["content"]) for message in prompt) / CHARS_PER_TOKEN) + 8 * len(prompt)
        price = self._complete.price(guess, max_tokens)
        tokens, usd = n * (guess + max_tokens), None if price is None else n * price
        if stop.is_set():
            return [], Usage(), ""
        if not self._allowance.take(tokens, usd):
            return [], Usage(), "budget"
        texts: list[str] = []
        used = Usage()
        try:
            for turn in range(n):
                answer = self._complete(prompt, temperature=temperature, max_tokens=max_tokens, seed=seed + turn)
                texts.append(answer.text)
                used += Usage(1, answer.prompt_tokens, answer.completion_tokens, answer.usd)
        except RefusedError as error:
            self._refusal = str(error)
            return [], used, "refused"
        finally:
            self._allowance.settle(tokens, usd, used)
        return texts, used, ""


def _ended(work: Iterable[Future[Told]], stop: threading.Event) -> Iterator[Future[Told]]:
    """The futures as they end. An interrupt lets nothing new begin."""
    try:
        yield from as_completed(work)
    except BaseException:
        stop.set()
        raise
