"""Service: what it tries again, what it refuses, what it keeps, and that every failure has its type."""

from __future__ import annotations

import gzip
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from posttrain_crew.errors import (
    AccessDeniedError,
    BadAnswerError,
    NotFoundError,
    RateLimitedError,
    ServiceError,
    ServiceUnavailableError,
)
from posttrain_crew.tools.services.cache import AnswerCache
from posttrain_crew.tools.services.http import Answer, Service
from posttrain_crew.tools.services.pace import CircuitBreaker
from tests.loopback.world import Loopback
from tests.services.scripted import Asked, Reply, Scripted

OK = Reply(b'{"a": 1}')


class Clock:
    """Time that passes by sleeping alone."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def service(server: Scripted, **options: Any) -> Service:
    """A Service that notes its pauses in `waits` instead of making them."""
    options.setdefault("sleep", options.pop("waits", []).append)
    return Service("library of babel", server.url, **{"backoff_s": 0.01, "timeout_s": 10.0, **options})


def json_of(client: Service, **options: Any) -> Any:
    return client.get("x", check=Answer.json, **options).json()


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 529])
def test_what_may_work_later_is_asked_again(status: int) -> None:
    with Scripted(Reply(b"busy", status), Reply(b"busy", status), OK) as server:
        assert json_of(service(server)) == {"a": 1}
        assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("status", "kind", "asked"),
    [
        (400, ServiceError, 1),
        (401, AccessDeniedError, 1),
        (403, AccessDeniedError, 1),
        (404, NotFoundError, 1),
        (410, NotFoundError, 1),
        (418, ServiceError, 1),
        (204, ServiceError, 1),
        (429, RateLimitedError, 4),
        (500, ServiceUnavailableError, 4),
        (503, ServiceUnavailableError, 4),
    ],
)
def test_each_status_has_its_error(status: int, kind: type[ServiceError], asked: int) -> None:
    body = b"" if status == 204 else b'{"error": "the reason"}'
    with Scripted(Reply(body, status)) as server, pytest.raises(ServiceError) as caught:
        service(server).get("x")
    assert type(caught.value) is kind
    assert (caught.value.status, caught.value.service) == (status, "library of babel")
    assert "library of babel" in str(caught.value) and (status == 204 or "the reason" in str(caught.value))
    assert len(server.asked) == asked


@pytest.mark.parametrize("headers", [{"Retry-After": "7"}, {"RateLimit": '"api";r=0;t=7'}])
def test_a_pause_that_the_service_asks_for_is_kept(headers: dict[str, str]) -> None:
    waits: list[float] = []
    with Scripted(Reply(b"", 429, headers), OK) as server:
        service(server, waits=waits).get("x")
    assert len(waits) == 1 and 6.5 < waits[0] <= 7


def test_a_date_as_retry_after_is_understood_and_one_in_the_past_is_no_pause() -> None:
    waits: list[float] = []
    with Scripted(Reply(b"", 503, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}), OK) as server:
        assert service(server, waits=waits, backoff_s=5.0).get("x").json() == {"a": 1}
    assert waits == []


def test_a_pause_that_is_too_long_is_reported_at_once() -> None:
    with Scripted(Reply(b"", 429, {"Retry-After": "3600"})) as server, pytest.raises(RateLimitedError) as caught:
        service(server).get("x")
    assert caught.value.retry_after == 3600 and len(server.asked) == 1


def test_a_long_pause_is_kept_by_the_questions_that_follow() -> None:
    with Scripted(Reply(b"", 429, {"Retry-After": "3600"})) as server:
        client = service(server)
        for _ in range(3):
            with pytest.raises(RateLimitedError) as caught:
                client.get("x")
    assert len(server.asked) == 1  # the service asked not to be asked
    assert caught.value.retry_after is not None and 3590 < caught.value.retry_after <= 3600


def test_one_question_has_patience_for_so_long_in_all() -> None:
    waits: list[float] = []
    with Scripted(Reply(b"", 429, {"Retry-After": "20"})) as server, pytest.raises(RateLimitedError) as caught:
        service(server, waits=waits).get("x")  # 20 s are waited for, 40 s are not
    assert [round(wait) for wait in waits] == [20] and len(server.asked) == 2
    assert caught.value.retry_after == 20


def test_a_bad_answer_does_not_renew_the_patience() -> None:
    def answers(asked: Asked) -> Reply:
        return Reply(b"no json") if len(server.asked) == 2 else Reply(b"", 503, {"Retry-After": "20"})

    with Scripted(answers) as server, pytest.raises(ServiceUnavailableError):
        json_of(service(server, clock=(clock := Clock()), sleep=clock.sleep))
    assert len(server.asked) == 3  # 503, no JSON, and a 503 whose 20 s would be 40 in all


def test_failed_tries_cost_patience() -> None:
    gone = threading.Event()

    def dawdle(_asked: Asked) -> Reply:
        gone.wait(5)
        return OK

    with Scripted(dawdle) as server:
        with pytest.raises(ServiceUnavailableError):
            service(server, timeout_s=0.15, patience_s=0.1).get("x")
        assert len(server.asked) == 1
        gone.set()


def test_a_download_that_comes_on_has_patience_again(tmp_path: Path) -> None:
    body = bytes(range(256)) * 40

    def piece(asked: Asked) -> Reply:
        if len(server.asked) % 2:
            return Reply(b"", 503, {"Retry-After": "20"})
        start = int(asked.headers.get("range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        headers = {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"}
        sent = 4000 if len(server.asked) == 2 else None
        return Reply(body[start:], 206 if start else 200, headers, sent=sent)

    with Scripted(piece) as server:
        clock = Clock()
        service(server, clock=clock, sleep=clock.sleep).download("f", tmp_path / "f", max_bytes=10**6)
    assert (tmp_path / "f").read_bytes() == body and len(server.asked) == 4
    assert clock.now > 40  # more than one question has patience for


def test_pauses_between_tries_grow() -> None:
    waits: list[float] = []
    with Scripted(Reply(b"", 500)) as server, pytest.raises(ServiceUnavailableError):
        service(server, waits=waits, backoff_s=1.0).get("x")
    assert len(waits) == 3 and waits[0] < waits[1] < waits[2]


def test_a_cut_answer_is_asked_for_again_and_never_taken_for_whole() -> None:
    whole = json.dumps({"rows": list(range(100))}).encode()
    with Scripted(Reply(whole, sent=40), Reply(whole)) as server:
        assert json_of(service(server)) == {"rows": list(range(100))}
    with Scripted(Reply(whole, sent=40)) as server, pytest.raises(ServiceUnavailableError):
        json_of(service(server))


def test_a_server_that_dawdles_is_given_up() -> None:
    gone = threading.Event()

    def dawdle(_asked: Asked) -> Reply:
        gone.wait(5)
        return OK

    with Scripted(dawdle) as server:
        with pytest.raises(ServiceUnavailableError, match="no whole answer"):
            service(server, timeout_s=0.1, tries=1).get("x")
        gone.set()


def test_a_server_that_sends_a_byte_now_and_then_is_given_up(tmp_path: Path) -> None:
    with Loopback() as world:
        slow = Service("babel", world.url, timeout_s=0.2, tries=1)
        world.faults.add("hub", "slow", seconds=3, times=None)  # a piece each 0.15 s: never a time-out between two
        with pytest.raises(ServiceUnavailableError, match="had not finished"):
            slow.get("api/papers/search", {"q": "worked solutions"})
        with pytest.raises(ServiceUnavailableError, match="had not finished"):
            slow.download("api/papers/search?q=worked&limit=1", tmp_path / "papers.json", max_bytes=10**6)
        slow.close()


def test_nothing_listening_is_an_outage_that_is_found_out_soon() -> None:
    waits: list[float] = []
    with Scripted(OK) as server:
        pass
    with pytest.raises(ServiceUnavailableError, match="network"):
        service(server, waits=waits).get("x")
    assert len(waits) == 1  # once more, not four times


@pytest.mark.parametrize("address", ["nonsense", "ftp://127.0.0.1/"])
def test_an_address_that_is_none_is_not_tried_again(address: str) -> None:
    waits: list[float] = []
    with pytest.raises(ServiceError, match="cannot be asked"):
        Service("babel", address, sleep=waits.append).get("x")
    assert waits == []


@pytest.mark.parametrize("body", [b"<html>sign in</html>", b"", b'{"a": 1', b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_json_is_asked_for_once_more_and_then_said(body: bytes) -> None:
    with Scripted(Reply(body), OK) as server:
        assert json_of(service(server)) == {"a": 1}
    with Scripted(Reply(body)) as server, pytest.raises(BadAnswerError):
        json_of(service(server))
    assert len(server.asked) == 2


def test_parameters_are_encoded_so_that_a_value_adds_none() -> None:
    query = "a&limit=1#frag\nb=c;d\u2028é\ud800"  # the last one is half a character, as LLMs write it now and then
    with Scripted(OK) as server:
        client = service(server)
        client.get("x", {"q": query, "flag": True, "n": 3, "tag": ["b", "a"], "none": None})
        assert server.asked[0].query == (
            "q=a%26limit%3D1%23frag%0Ab%3Dc%3Bd%E2%80%A8%C3%A9%3F&flag=true&n=3&tag=b&tag=a"
        )


def test_an_answer_is_bounded_packed_or_not() -> None:
    big = b" " * 300_000
    packed = Reply(gzip.compress(big * 100), headers={"Content-Encoding": "gzip"})
    for reply in (Reply(big), packed):
        with Scripted(reply) as server, pytest.raises(BadAnswerError, match="larger than"):
            service(server).get("x", max_bytes=100_000)
        assert len(server.asked) == 1


def test_a_full_address_is_taken_on_the_same_host_only() -> None:
    with Scripted(OK) as server:
        client = service(server)
        assert client.get(f"{server.url}/next?page=2").json() == {"a": 1}
        assert server.asked[0].query == "page=2"
        with pytest.raises(ServiceError, match="elsewhere"):
            client.get("http://localhost.example/x")


def test_keys_do_not_follow_a_redirect_to_another_host() -> None:
    with Scripted(OK) as other:
        away = Reply(b"", 302, {"Location": f"{other.url}/there"})
        home = Reply(b"", 302, {"Location": "/here"})
        with Scripted(home, away) as server:
            client = service(server, headers={"x-api-key": "k-1", "authorization": "Bearer t-1"})
            assert client.get("x").json() == {"a": 1}
    assert [asked.headers.get("x-api-key") for asked in server.asked] == ["k-1", "k-1"]
    assert not {"x-api-key", "authorization"} & set(other.asked[0].headers)


def test_endless_redirects_end() -> None:
    with Scripted(Reply(b"", 302, {"Location": "/again"})) as server, pytest.raises(ServiceError, match="cannot be"):
        service(server).get("x")


# --- cache ---


def test_an_answer_from_the_cache_is_used_until_it_is_too_old(tmp_path: Path) -> None:
    with Scripted(OK, Reply(b'{"a": 2}')) as server:
        client = service(server, cache=AnswerCache(tmp_path))
        assert client.get("x", {"q": "1"}, max_age_s=60).age_s == 0
        assert client.get("x", {"q": "1"}, max_age_s=60).json() == {"a": 1}
        assert len(server.asked) == 1
        assert client.get("x", {"q": "2"}, max_age_s=60).json() == {"a": 2}  # another question
        assert client.get("x", {"q": "1"}).json() == {"a": 2}  # without an age the service is asked
        assert len(server.asked) == 3


def test_an_old_answer_stands_in_for_an_outage_and_says_so(tmp_path: Path) -> None:
    with Scripted(OK, Reply(b"", 500)) as server:
        client = service(server, cache=AnswerCache(tmp_path))
        client.get("x", max_age_s=1e-9)
        answer = client.get("x", max_age_s=1e-9, stale_if_down=True)
        assert answer.json() == {"a": 1} and answer.age_s > 0
        assert answer.stale is not None and "500" in answer.stale
        with pytest.raises(ServiceUnavailableError):
            client.get("x", max_age_s=1e-9)
        with pytest.raises(ServiceUnavailableError):
            client.get("y", stale_if_down=True)


def test_a_refusal_is_not_papered_over_with_an_old_answer(tmp_path: Path) -> None:
    with Scripted(OK, Reply(b"", 404)) as server:
        client = service(server, cache=AnswerCache(tmp_path))
        client.get("x", max_age_s=1e-9)
        with pytest.raises(NotFoundError):
            client.get("x", max_age_s=1e-9, stale_if_down=True)


def test_a_bad_answer_is_never_kept(tmp_path: Path) -> None:
    with Scripted(Reply(b"<html>"), Reply(b"<html>"), OK) as server:
        client = service(server, cache=AnswerCache(tmp_path))
        with pytest.raises(BadAnswerError):
            json_of(client, max_age_s=60)
        assert json_of(client, max_age_s=60) == {"a": 1}
        assert json_of(client, max_age_s=60) == {"a": 1}
        assert len(server.asked) == 3


def test_a_stored_answer_that_has_another_form_by_now_is_asked_for_again(tmp_path: Path) -> None:
    def wants_b(answer: Answer) -> None:
        if "b" not in answer.json():
            raise BadAnswerError("no b")

    with Scripted(OK, Reply(b'{"b": 1}')) as server:
        client = service(server, cache=AnswerCache(tmp_path))
        client.get("x", max_age_s=60)
        assert client.get("x", max_age_s=60, check=wants_b).json() == {"b": 1}


@pytest.mark.parametrize(
    "spoil",
    [lambda data: data[:-3], lambda data: b"", lambda data: b"not json\n" + data, lambda data: b'{"size": 1}\nx'],
)
def test_a_damaged_file_of_the_cache_is_a_miss(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    with Scripted(OK) as server:
        client = service(server, cache=AnswerCache(tmp_path))
        client.get("x", max_age_s=60)
        (stored,) = tmp_path.iterdir()
        stored.write_bytes(spoil(stored.read_bytes()))
        assert client.get("x", max_age_s=60).json() == {"a": 1}
        assert len(server.asked) == 2


def test_the_oldest_answers_leave_a_cache_that_is_full(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path / "full", max_bytes=10_000)
    for number in range(40):
        cache.store(f"{number:064x}", b"x" * 500, {})
        os.utime(tmp_path / "full" / f"{number:064x}", (number, number))
    files, size = cache.size()
    assert size <= 10_000 and 10 <= files < 20
    assert cache.load(f"{39:064x}") is not None and cache.load(f"{0:064x}") is None
    AnswerCache(tmp_path / "full", max_bytes=700).store("f" * 64, b"y" * 100, {})  # what others left counts, too
    assert cache.size()[0] == 1 and cache.load("f" * 64) is not None
    cache.clear()
    assert cache.size() == (0, 0) and cache.load("f" * 64) is None


def test_a_cache_that_cannot_be_written_costs_nothing_but_speed(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with Scripted(OK) as server:
        client = service(server, cache=AnswerCache(blocked / "cache"))
        assert client.get("x", max_age_s=60).json() == {"a": 1}


# --- breaker ---


def test_a_service_that_is_down_is_left_alone_and_tried_again_after_a_rest() -> None:
    now = [0.0]
    with Scripted(*[Reply(b"", 500)] * 4, OK) as server:
        breaker = CircuitBreaker("babel", failures=2, rest_s=30, clock=lambda: now[0])
        client = service(server, tries=2, breaker=breaker)
        for _ in range(2):
            with pytest.raises(ServiceUnavailableError):
                client.get("x")
        with pytest.raises(ServiceUnavailableError, match="not asked again for 30 s") as caught:
            client.get("x")
        assert len(server.asked) == 4 and caught.value.retry_after == 30
        now[0] = 31.0
        assert client.get("x").json() == {"a": 1}
        assert client.get("x").json() == {"a": 1}


def test_a_refusal_shows_that_the_service_is_up() -> None:
    replies = [Reply(b"", 500), Reply(b"", 404)] * 4
    with Scripted(*replies) as server:
        client = service(server, tries=1, breaker=CircuitBreaker("babel", failures=2))
        for _ in range(4):
            with pytest.raises(ServiceUnavailableError):
                client.get("x")
            with pytest.raises(NotFoundError):
                client.get("x")


# --- download ---


def in_parts(data: bytes, cut_at: int, etags: list[str]) -> Callable[[Asked], Reply]:
    """A file server with Range, whose first answer is cut; each further request has the next of `etags`."""
    calls = [0]

    def reply(asked: Asked) -> Reply:
        number = calls[0]
        calls[0] += 1
        tag = {"ETag": etags[min(number, len(etags) - 1)]}
        wanted = asked.headers.get("range")
        if wanted is None or asked.headers.get("if-range", tag["ETag"]) != tag["ETag"]:
            return Reply(data, headers=tag, sent=cut_at if number == 0 else None)
        first = int(wanted.removeprefix("bytes=").rstrip("-"))
        if first >= len(data):
            return Reply(b"", 416, {"Content-Range": f"bytes */{len(data)}"})
        return Reply(data[first:], 206, {**tag, "Content-Range": f"bytes {first}-{len(data) - 1}/{len(data)}"})

    return reply


def test_a_broken_download_goes_on_where_it_stopped(tmp_path: Path) -> None:
    data = bytes(range(256)) * 2000
    with Scripted(in_parts(data, 300_000, ['"v1"'])) as server:
        assert service(server).download("file", tmp_path / "deep" / "file", max_bytes=10**6) == len(data)
        assert (tmp_path / "deep" / "file").read_bytes() == data
        went_on = int(server.asked[1].headers["range"].removeprefix("bytes=").rstrip("-"))
        assert 0 < went_on <= 300_000
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["file"]


def test_halves_of_two_versions_are_not_glued_together(tmp_path: Path) -> None:
    data = b"new" * 50_000
    with Scripted(in_parts(data, 100_000, ['"v1"', '"v2"'])) as server:
        service(server).download("file", tmp_path / "file", max_bytes=10**6)
    assert (tmp_path / "file").read_bytes() == data


def test_a_server_without_ranges_sends_all_again(tmp_path: Path) -> None:
    data = b"x" * 200_000
    with Scripted(Reply(data, sent=150_000), Reply(data)) as server:
        service(server).download("file", tmp_path / "file", max_bytes=10**6)
    assert (tmp_path / "file").read_bytes() == data


def test_a_range_that_is_not_the_one_asked_for_is_not_used(tmp_path: Path) -> None:
    data = bytes(range(256)) * 800
    wrong = Reply(data[7:], 206, {"Content-Range": f"bytes 7-{len(data) - 1}/{len(data)}"})
    with Scripted(Reply(data, sent=150_000), wrong, Reply(data)) as server:
        service(server).download("file", tmp_path / "file", max_bytes=10**6)
    assert (tmp_path / "file").read_bytes() == data


def test_a_file_that_shrank_is_begun_anew(tmp_path: Path) -> None:
    old, new = b"o" * 200_000, b"n" * 1000
    none_left = Reply(b"", 416, {"Content-Range": "bytes */1000"})
    with Scripted(Reply(old, sent=150_000), none_left, Reply(new)) as server:
        service(server).download("file", tmp_path / "file", max_bytes=10**6)
    assert (tmp_path / "file").read_bytes() == new


def test_a_download_that_stays_broken_leaves_no_file(tmp_path: Path) -> None:
    with Scripted(Reply(b"x" * 1000, sent=10)) as server, pytest.raises(ServiceUnavailableError):
        service(server).download("file", tmp_path / "file", max_bytes=10**6)
    assert not (tmp_path / "file").exists()


def test_a_download_is_bounded(tmp_path: Path) -> None:
    with Scripted(Reply(b"x" * 300_000)) as server, pytest.raises(BadAnswerError, match="larger than"):
        service(server).download("file", tmp_path / "file", max_bytes=200_000)
    assert not (tmp_path / "file").exists()


def test_a_refusal_says_which_key_would_end_it() -> None:
    for status, says in ((401, "It needs a valid CREW_KEY."), (429, "More are allowed with a valid CREW_KEY.")):
        with Scripted(Reply(b"no", status)) as server, pytest.raises(ServiceError) as raised:
            service(server, key="a valid CREW_KEY", tries=1).get("x")
        assert says in str(raised.value)
    with Scripted(Reply(b"no", 403)) as server, pytest.raises(AccessDeniedError) as none:
        service(server, key="").get("x")
    assert "It needs" not in str(none.value)


def test_a_bad_answer_is_told_with_what_is_wrong_and_not_with_the_query() -> None:
    with Scripted(Reply(b"<html>sign in</html>")) as server, pytest.raises(BadAnswerError) as raised:
        service(server).get("x", {"fields": "abstract," * 100}, check=Answer.json)
    message = str(raised.value)
    assert len(message) < 300 and "sign in" in message and "abstract" not in message
