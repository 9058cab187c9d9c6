"""Pace between requests, and which services the words of `--sources` stand for."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from posttrain_crew.errors import InputError, ServiceUnavailableError
from posttrain_crew.settings import Settings
from posttrain_crew.tools.services.pace import Pace
from posttrain_crew.tools.services.services import Services, unreachable
from tests.services.scripted import Reply, Scripted


def test_requests_of_all_threads_keep_their_distance() -> None:
    waits: list[float] = []
    pace = Pace(3.0, clock=lambda: 100.0, sleep=waits.append)
    threads = [threading.Thread(target=pace.wait) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(waits) == [3.0, 6.0, 9.0]  # the first one starts at once


def test_a_request_that_never_left_keeps_nobody_waiting() -> None:
    waits: list[float] = []
    pace = Pace(3.0, clock=lambda: 0.0, sleep=waits.append)
    pace.wait()
    pace.unused()
    pace.hold(1)
    pace.wait()
    assert waits == [1.0]


def test_a_hold_moves_the_next_request() -> None:
    waits: list[float] = []
    pace = Pace(1.0, clock=lambda: 0.0, sleep=waits.append)
    pace.hold(20)
    pace.hold(5)  # a shorter one does not take the longer one back
    pace.wait()
    assert waits == [20.0]


@pytest.mark.parametrize("text", ["", " , ", "internet", "live,shiped"])
def test_sources_that_are_none(text: str) -> None:
    with pytest.raises(InputError, match="shipped, live, loopback"):
        Services.parse(text)


def test_sources_are_what_their_words_say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shipped = Services.parse("shipped", cache=tmp_path)
    assert shipped.shipped and not shipped.online
    with pytest.raises(InputError, match="live"):
        _ = shipped.hub
    with pytest.raises(InputError, match="one of them"):
        Services.parse("live,loopback")
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/")
    live = Services.parse("live, shipped", Settings(s2_url="https://s2.example"), cache=tmp_path)
    assert live.online and live.shipped
    assert live.hub.base_url == "https://mirror.example" and live.semantic_scholar.base_url == "https://s2.example"
    assert live.hub is live.hub  # one Service each: pace and breaker are shared


def test_keys_go_to_their_service_and_the_users_token_not_to_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_users_own")
    with Scripted(Reply(b"{}")) as server:
        services = Services.parse("loopback", Settings(loopback_url=server.url, s2_api_key="k-7"))
        services.semantic_scholar.get("x")
        services.hub.get("x")
        services.arxiv_api.get("x")
    s2, hub, arxiv = server.asked
    assert s2.path == "/s2/x" and s2.headers["x-api-key"] == "k-7" and "authorization" not in s2.headers
    assert hub.headers["authorization"] == "Bearer hf_loopback" and "x-api-key" not in hub.headers
    assert not {"authorization", "x-api-key"} & set(arxiv.headers)


def test_sources_where_nothing_answers_are_told_before_a_run() -> None:
    with Scripted(Reply(b"{}")) as server:
        settings = Settings(loopback_url=server.url)
        assert unreachable(Services.parse("loopback", settings)) is None
    told = unreachable(Services.parse("loopback", settings))
    assert isinstance(told, ServiceUnavailableError) and "tests.loopback" in str(told)
    assert unreachable(Services.parse("shipped")) is None


def test_threads_that_ask_first_at_the_same_time_share_a_service() -> None:
    services = Services.parse("loopback", Settings(loopback_url="http://127.0.0.1:9"))
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _number: services.hub, range(8)))
    assert len({id(service) for service in made}) == 1
