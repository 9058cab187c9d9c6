"""Paid samples: budget, retries, refusals over real HTTP; and a kill -9 after which none is paid twice."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from posttrain_crew.errors import (
    AccessDeniedError,
    BudgetError,
    DatasetError,
    InputError,
    ServiceError,
    ServiceUnavailableError,
)
from posttrain_crew.settings import Settings
from posttrain_crew.target import Target
from posttrain_crew.tools.data.contamination import ContaminationIndex
from posttrain_crew.tools.data.synthesis.chat import Allowance, ChatSampler
from posttrain_crew.tools.data.synthesis.litellm_complete import LiteLLMComplete
from posttrain_crew.tools.data.synthesis.pipeline import Samplers, synthesize
from posttrain_crew.tools.data.synthesis.plan import Plan
from posttrain_crew.tools.data.synthesis.samplers import RecordedSampler

from .conftest import ScriptedWriter, questions
from .tiny_server import TinyServer, server

__all__ = ["server"]

ASK = [[{"role": "user", "content": f"question {i}"}] for i in range(6)]
KEY = "sk-very-secret-indeed-1234"


def client(server: TinyServer, **settings: Any) -> LiteLLMComplete:
    given = Settings(llm_base_url=server.url, llm_api_key=SecretStr(KEY), **settings)
    return LiteLLMComplete("openai/tiny", given, retry_wait_s=0.01)


def ask(sampler: Any, n: int = 1) -> list[list[str]]:
    return sampler.sample(ASK, n=n, temperature=1.0, max_tokens=50, seed=7)  # type: ignore[no-any-return]


def test_over_http(server: TinyServer) -> None:
    server.statuses = [429, 500, 503]
    sampler = ChatSampler(client(server, llm_price_in=0.001, llm_price_out=0.002), concurrency=3)
    assert ask(sampler, n=2) == [["6 * 7 = 42\nAnswer: A"] * 2] * 6
    assert sorted(server.answered) == sorted((f"question {i}", seed) for i in range(6) for seed in (7, 8))
    assert (sampler.usage.requests, sampler.usage.tokens) == (12, 12 * 42)
    assert sampler.usage.usd == pytest.approx(12 * (30 * 0.001 + 12 * 0.002))
    server.statuses = [400]
    few = ChatSampler(client(server), concurrency=1)
    assert [len(texts) for texts in ask(few)] == [0, 1, 1, 1, 1, 1]
    assert dict(few.left_out) == {"refused": 1} and few.usage.usd is None  # no price is not a price of 0
    server.statuses = [401]
    with pytest.raises(AccessDeniedError) as caught:
        ask(ChatSampler(client(server), concurrency=1))
    assert KEY not in str(caught.value) and "openai/tiny" in str(caught.value)
    server.statuses = [500] * 60
    with pytest.raises(ServiceUnavailableError, match="goes on"):  # down is not "no rows"
        ask(ChatSampler(client(server), concurrency=1))
    server.statuses = [400] * 60
    with pytest.raises(ServiceError, match="refused each of 6"):  # not six bad prompts, but one bad request
        ask(ChatSampler(client(server), concurrency=1))
    with pytest.raises(InputError, match="its provider"):
        ask(ChatSampler(LiteLLMComplete("gpt-that-is-none", Settings(llm_base_url=server.url))))
    with pytest.raises(InputError, match="playbook"):
        LiteLLMComplete("playbook", Settings())


def test_the_budget_ends_the_asking_and_says_so(tmp_path: Path) -> None:
    writer = ScriptedWriter(lambda _messages, _seed: "text", usd=0.01)
    sampler = ChatSampler(writer, allowance=Allowance(tokens=180), concurrency=1)
    told = ask(sampler)  # each sets about 61 aside and uses 20
    assert len(writer.asked) == sum(map(bool, told)) == 6 and not sampler.left_out
    for limit, wanted in ((Allowance(tokens=120), 3), (Allowance(usd=1.0), 2)):
        writer.asked.clear()
        sampler = ChatSampler(writer, allowance=limit, concurrency=1)
        assert sum(map(bool, ask(sampler))) == len(writer.asked) == wanted
        assert dict(sampler.left_out) == {"budget": 6 - wanted}
        assert limit.spent.tokens == 20 * wanted
    unpriced = ChatSampler(ScriptedWriter(lambda _messages, _seed: "text", usd=None), allowance=Allowance(usd=5.0))
    with pytest.raises(BudgetError, match="not known"):
        ask(unpriced)

    path = tmp_path / "samples.jsonl"
    first = RecordedSampler(ChatSampler(writer, allowance=Allowance(tokens=120), concurrency=1), path)
    ask(first)
    writer.asked.clear()
    second = RecordedSampler(ChatSampler(writer, concurrency=1), path)
    assert all(ask(second)) and len(writer.asked) == 3 and second.replayed == 3  # only what was left out
    assert second.usage.tokens == 120
    path.write_bytes(path.read_bytes()[:-20])  # a kill in the middle of a line
    writer.asked.clear()
    third = RecordedSampler(ChatSampler(writer), path)
    assert all(ask(third)) and len(writer.asked) == 1 and third.replayed == 5
    path.write_text('{"key": 1}\n')
    with pytest.raises(DatasetError, match="samples"):
        RecordedSampler(ChatSampler(writer), path)


SCRIPT = """
import sys
from pathlib import Path
from posttrain_crew.settings import Settings
from posttrain_crew.target import load_target
from posttrain_crew.tools.data.contamination import ContaminationIndex
from posttrain_crew.tools.data.synthesis.chat import ChatSampler
from posttrain_crew.tools.data.synthesis.litellm_complete import LiteLLMComplete
from posttrain_crew.tools.data.synthesis.pipeline import Samplers, synthesize
from posttrain_crew.tools.data.synthesis.plan import Plan
from tests.data.synthesis.conftest import questions

target = load_target(Path(sys.argv[1]))
writer = ChatSampler(LiteLLMComplete("openai/tiny", Settings(llm_base_url=sys.argv[3], llm_api_key="k")), concurrency=4)
synthesize(Plan.model_validate_json(sys.argv[4]), target, Path(sys.argv[2]), index=ContaminationIndex.of_target(target),
           samplers=Samplers(writer), sources=questions(40))
"""


@pytest.mark.slow
def test_killed_in_the_middle_nothing_is_paid_twice(
    server: TinyServer, target: Target, index: ContaminationIndex, tmp_path: Path
) -> None:
    plan = Plan(name="t", generator="rejection_sampling", params={"samples": 2}, rows=100)
    assert target.origin is not None
    arguments = [str(target.origin), str(tmp_path / "out"), server.url, plan.model_dump_json()]
    server.hold_after = 30
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *arguments], cwd=Path(__file__).parents[3], stderr=subprocess.PIPE
    )
    assert server.held.wait(60), process.stderr.read().decode()[-2000:] if process.stderr else ""
    process.send_signal(signal.SIGKILL)
    process.communicate()
    paid = len(server.answered)
    recorded = (tmp_path / "out/parts/writer.jsonl").read_text().count("\n")
    assert paid >= recorded >= paid - 4  # at most what was in flight is lost
    server.hold_after = None
    server.release.set()

    writer = ChatSampler(client(server), identity="")
    card = synthesize(plan, target, tmp_path / "out", index=index, samplers=Samplers(writer), sources=questions(40))
    times = Counter(server.answered)
    assert len(times) == 80 and sum(times.values()) <= 80 + 4 + 4
    assert card.usage["writer"].requests == 80
    assert card.counts["generated"]["samples"] == 80 and card.rows == card.counts["generated"]["kept"] > 0

    whole = ChatSampler(client(server))
    again = synthesize(plan, target, tmp_path / "whole", index=index, samplers=Samplers(whole), sources=questions(40))
    assert again.sha256 == card.sha256  # as if there had been no kill
