"""Each fault does what it says, on a real connection."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import arxiv
import httpx
import pytest

from posttrain_crew.tools.services.http import Service
from tests.loopback.repos import REPOS
from tests.loopback.world import Loopback

SEARCH = "/s2/graph/v1/paper/search?query=worked+solutions&fields=title"


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=10, follow_redirects=True) as made:
        yield made


@pytest.fixture
def http(world: Loopback, client: httpx.Client) -> httpx.Client:
    client.base_url = httpx.URL(world.url)
    return client


@pytest.mark.parametrize(
    ("service", "path"),
    [
        ("s2", SEARCH),
        ("arxiv", "/arxiv/api/query?search_query=all:models"),
        ("arxiv_html", "/arxiv/html/2609.90001"),
        ("ar5iv", "/ar5iv/html/2609.90001"),
        ("hub", "/api/datasets?search=science"),
        ("datasets_server", "/datasets-server/is-valid?dataset=quizdump/science-mcq-worked"),
    ],
)
def test_a_status_comes_once_and_then_the_answer(world: Loopback, http: httpx.Client, service: str, path: str) -> None:
    kinds = ["401", "403", "404", "429", "500", "502", "503", "504"]
    for kind in kinds:
        world.faults.add(service, kind)
    refused = [http.get(path) for _ in kinds]
    assert [str(answer.status_code) for answer in refused] == kinds
    assert all(answer.text and "retry-after" not in answer.headers for answer in refused)
    assert http.get(path).status_code == 200
    assert world.faults.pending == 0


def test_retry_after(world: Loopback, http: httpx.Client) -> None:
    world.faults.add("s2", "429_retry_after", times=2)
    world.faults.add("s2", "429_retry_after", seconds=7)
    told = [http.get(SEARCH) for _ in range(4)]
    assert [answer.status_code for answer in told] == [429, 429, 429, 200]
    assert [answer.headers.get("retry-after") for answer in told] == ["0", "0", "7", None]


@pytest.mark.parametrize("path", [SEARCH, "/datasets/quizdump/science-mcq-worked/resolve/main/README.md"])
def test_cut_ends_the_connection_in_the_middle(world: Loopback, http: httpx.Client, path: str) -> None:
    whole = http.get(path).content
    world.faults.add("s2" if "/s2/" in path else "hub", "cut")
    got = b""
    with pytest.raises(httpx.RemoteProtocolError), http.stream("GET", path) as response:
        announced = int(response.headers["content-length"])
        for block in response.iter_raw():
            got += block
    assert announced == len(whole)
    assert got == whole[: len(whole) // 2]
    assert http.get(path).content == whole


def test_slow_takes_its_time_and_comes_in_pieces(world: Loopback, http: httpx.Client) -> None:
    whole = http.get(SEARCH).content
    world.faults.add("s2", "slow", seconds=0.3)
    before = time.monotonic()
    with http.stream("GET", SEARCH) as response:
        pieces = list(response.iter_raw(chunk_size=None))
    assert time.monotonic() - before >= 0.25
    assert len(pieces) > 3
    assert b"".join(pieces) == whole


def test_a_slow_answer_does_not_hold_up_the_end(world: Loopback) -> None:
    with Loopback() as other:
        other.faults.add("s2", "slow", seconds=600)
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(other.url + SEARCH, timeout=0.2)
        assert httpx.get(other.url + SEARCH).status_code == 200
        before = time.monotonic()
    assert time.monotonic() - before < 3


@pytest.mark.parametrize("kind", ["bad_json", "html", "no_body"])
def test_answers_that_are_no_json(world: Loopback, http: httpx.Client, kind: str) -> None:
    world.faults.add("s2", kind)
    answer = http.get(SEARCH)
    assert answer.status_code == 200
    assert int(answer.headers["content-length"]) == len(answer.content)
    with pytest.raises(ValueError, match=r"Expecting|Unterminated|delimiter"):
        answer.json()


def test_bomb_is_small_on_the_wire(world: Loopback, http: httpx.Client) -> None:
    world.faults.add("s2", "bomb")
    unpacked = 0
    with http.stream("GET", SEARCH) as response:
        assert int(response.headers["content-length"]) < 4 * 2**20
        for block in response.iter_bytes(1 << 20):
            unpacked += len(block)
            if unpacked > 100 * 2**20:
                break
    assert unpacked > 100 * 2**20


def test_empty_is_a_page_that_contradicts_its_total(world: Loopback, http: httpx.Client) -> None:
    right = http.get(SEARCH).json()
    world.faults.add("s2", "empty")
    http.get("/s2/graph/v1/paper/ARXIV:2609.90001")  # no page: not hit
    empty = http.get(SEARCH).json()
    assert empty == {**right, "data": []}
    assert empty["total"] > 0
    world.faults.add("hub", "empty")
    page = http.get("/api/datasets?limit=2")
    assert page.json() == []
    assert "next" in page.links
    world.faults.add("arxiv", "empty", path="/query")
    client = arxiv.Client(page_size=2, delay_seconds=0, num_retries=0)
    client.query_url_format = f"{world.url}/arxiv/api/query?{{}}"
    assert list(client.results(arxiv.Search("all:models"))) == []


def test_moved_fields(world: Loopback, http: httpx.Client) -> None:
    right = http.get(SEARCH).json()
    world.faults.add("s2", "moved_fields")
    world.faults.add("s2", "moved_fields", keys=["title"])
    first, second = http.get(SEARCH).json(), http.get(SEARCH).json()
    assert set(first) ^ set(right) == {"data", "new_data"}
    assert set(second["data"][0]) == {"paperId", "new_title"}
    world.faults.add("arxiv", "moved_fields")
    feed = http.get("/arxiv/api/query?search_query=all:models").text
    assert "<item>" in feed
    assert "<entry>" not in feed
    world.faults.add("arxiv_html", "moved_fields")
    assert "ltx_" not in http.get("/arxiv/html/2609.90001").text


def test_a_fault_can_be_meant_for_a_path_and_last(world: Loopback, http: httpx.Client) -> None:
    world.faults.add("hub", "500", times=None, path="/resolve/")
    assert http.get("/api/datasets").status_code == 200
    readme = "/datasets/globe/capital-cities/resolve/main/README.md"
    assert [http.get(readme).status_code for _ in range(3)] == [500, 500, 500]
    world.faults.clear()
    assert http.get(readme).status_code == 200


def test_head_is_spared_by_faults_of_the_body(world: Loopback, http: httpx.Client) -> None:
    readme = "/datasets/globe/capital-cities/resolve/main/README.md"
    world.faults.add("hub", "cut")
    assert http.head(readme).status_code == 200
    assert world.faults.pending == 1
    world.reset()
    world.faults.add("hub", "503")
    assert http.head(readme).status_code == 503


def test_a_file_that_is_cut_goes_on_where_it_stopped(world: Loopback, tmp_path: Path) -> None:
    file = "datasets/lab-notebook/quanta-steps/resolve/main/data/train.parquet"
    made = world.shelf.file(REPOS["lab-notebook/quanta-steps"], "data/train.parquet")
    assert made is not None
    world.faults.add("hub", "cut", path="/resolve/")
    hub = Service("hub", world.url, backoff_s=0.0, headers={"authorization": "Bearer hf_secret"})
    hub.download(file, tmp_path / "got", max_bytes=2**24)
    hub.close()
    assert (tmp_path / "got").read_bytes() == made.place.read_bytes()
    asked = [request for request in world.requests if request.path.startswith("/cdn/")]
    assert [request.headers.get("range") for request in asked] == [None, f"bytes={made.size // 2}-"]
    assert not any("authorization" in request.headers for request in asked)


def test_faults_by_hand(world: Loopback, http: httpx.Client) -> None:
    planned = http.post("/_faults", json={"service": "s2", "kind": "429_retry_after", "seconds": 3})
    assert planned.json() == {"pending": 1}
    assert http.get(SEARCH).headers["retry-after"] == "3"
    http.post("/_faults", json={"service": "s2", "kind": "500", "times": None})
    assert http.post("/_faults", json={"clear": True}).json() == {"pending": 0}
    for wrong in ({"service": "s3", "kind": "500"}, {"kind": "500"}, {"service": "s2", "kind": "flood"}, [1]):
        assert http.post("/_faults", json=wrong).status_code == 400
    assert "429_retry_after" in http.get("/").text
    assert [request.path for request in world.requests] == ["/s2/graph/v1/paper/search", "/"]


def test_unknown_faults_are_refused(world: Loopback) -> None:
    with pytest.raises(ValueError, match="datasets_server"):
        world.faults.add("dataset_server", "500")
    with pytest.raises(ValueError, match="bad_json"):
        world.faults.add("s2", "broken")
