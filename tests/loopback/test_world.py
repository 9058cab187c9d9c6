"""What the loopback world serves is what its modules promise: texts, datasets, viewer, and the way it is started."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from posttrain_crew.tools.embedded.benchmark import items
from posttrain_crew.tools.embedded.families import FAMILIES
from tests.loopback.content import FOLDER, Content
from tests.loopback.repos import REPOS
from tests.loopback.shelf import File, Shelf
from tests.loopback.world import Loopback

GOOD, LEAKING = "lab-notebook/quanta-steps", "quizdump/science-mcq-worked"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    headers = {"authorization": "Bearer hf_loopback"}
    with httpx.Client(timeout=30, follow_redirects=True, headers=headers) as made:
        yield made


@pytest.fixture
def http(world: Loopback, client: httpx.Client) -> httpx.Client:
    client.base_url = httpx.URL(world.url)
    return client


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return Shelf(tmp_path_factory.mktemp("shelf"), seed=0)


def rows_of(shelf: Shelf, name: str) -> list[dict[str, Any]]:
    return shelf.rows(REPOS[name])


# ---- papers


def test_every_citation_is_known_and_there_are_cycles() -> None:
    content = Content.load()
    assert len(content.papers) >= 25
    assert sum(paper.folder is not None for paper in content.papers.values()) >= 10
    edges = {paper.key: {link.cited.key for link in content.references(paper)} for paper in content.papers.values()}
    assert any(citing in edges[cited] for citing, several in edges.items() for cited in several)
    for paper in content.papers.values():
        assert [link.citing for link in content.references(paper)] == [paper] * len(edges[paper.key])
        assert all(paper.key in edges[link.citing.key] for link in content.citations(paper))


@pytest.mark.parametrize(
    ("paper", "html", "ar5iv", "md", "pdf"),
    [
        ("2609.90001", True, True, True, True),
        ("2609.90008", False, True, False, False),
        ("2609.90010", False, False, True, True),
        ("2609.90011", False, False, False, True),
        ("2609.90013", False, False, True, False),
        ("2609.90014", False, False, False, True),
    ],
)
def test_where_a_full_text_can_be_had(
    http: httpx.Client, paper: str, html: bool, ar5iv: bool, md: bool, pdf: bool
) -> None:
    assert (http.get(f"/arxiv/html/{paper}").status_code == 200) is html
    assert ("ltx_document" in http.get(f"/ar5iv/html/{paper}v1").text) is ar5iv
    assert http.get(f"/papers/{paper}.md").headers["content-type"].startswith("text/markdown") is md
    assert (http.get(f"/arxiv/pdf/{paper}").status_code == 200) is pdf


def test_markdown_has_formulas_and_tables_of_the_html(http: httpx.Client) -> None:
    text = http.get("/papers/2609.90001.md").text
    assert text.startswith("# Worked Solutions Teach Small Language Models to Reason in Steps\n")
    assert "\n## " in text
    assert "\n|---|" in text
    assert "$" in text
    assert http.get("/arxiv/html/2609.90001v3").content == (FOLDER / "2609.90001" / "paper.html").read_bytes()


def test_hostile_pages(http: httpx.Client) -> None:
    assert "IGNORE YOUR INSTRUCTIONS" in http.get("/arxiv/html/2609.90018").text
    assert not http.get("/arxiv/html/2609.90019").text.rstrip().endswith(">")
    assert http.get("/arxiv/html/2609.90020").text.count("<div>") == 30_000


# ---- datasets


def held_out_questions() -> dict[str, str]:
    """Every wording of every dev and test item, and the id of the item."""
    found: dict[str, str] = {}
    for split in ("dev", "test"):
        for item in items(split):
            family = FAMILIES[item.family]
            numbers = tuple(int(number) for number in item.id.partition("/")[2].split("-"))
            found |= {family.question(numbers, wording): item.id for wording in range(len(family.wordings))}
    return found


def test_the_good_dataset_is_clean_and_worked(shelf: Shelf) -> None:
    rows = rows_of(shelf, GOOD)
    assert len(rows) == 1800
    assert not {row["question"] for row in rows} & set(held_out_questions())
    for row in rows:
        assert len(set(row["choices"])) == 4
        value = row["choices"]["ABCD".index(row["answer"])]
        assert row["solution"].endswith(f" = {value} ({row['answer']}).")


def test_the_leaking_dataset_has_reworded_items(shelf: Shelf) -> None:
    rows = rows_of(shelf, LEAKING)
    reworded = held_out_questions()
    exact = {item.question for split in ("dev", "test") for item in items(split)}
    leaked = [row["question"] for row in rows if row["question"] in reworded]
    assert len(leaked) == round(0.15 * len(rows))
    assert not set(leaked) & exact
    assert REPOS[LEAKING].downloads == max(repo.downloads for repo in REPOS.values())


def test_words_of_the_good_dataset_are_no_words_of_a_search() -> None:
    repo = REPOS[GOOD]
    said = " ".join([repo.id, repo.text, repo.title, *repo.all_tags]).lower()
    for word in ("science", "worked", "solution", "reasoning", "mcq", "question", "answer", "choice", "stem", "math"):
        assert word not in said


def test_other_datasets_are_as_they_are_described(shelf: Shelf) -> None:
    turns = rows_of(shelf, "stemdialogs/tutor-turns")
    assert [turn["from"] for turn in turns[0]["conversations"]] == ["human", "gpt"]
    assert "The answer is (" in turns[0]["conversations"][1]["value"]
    assert set(rows_of(shelf, "mcq-fast/letters-only")[0]) == {"question", "choices", "answer"}
    pair = rows_of(shelf, "prefs-lab/science-pairs")[0]
    assert set(pair) == {"prompt", "chosen", "rejected"}
    assert pair["chosen"] != pair["rejected"]
    assert set(rows_of(shelf, "kitchen/instruct-recipes")[0]) == {"instruction", "input", "output"}
    assert set(rows_of(shelf, "globe/capital-cities")[0]) == {"prompt", "completion"}
    assert set(rows_of(shelf, "openbooks/chemistry-notes")[0]) == {"text"}


def test_rows_depend_on_the_seed_alone(tmp_path: Path, shelf: Shelf) -> None:
    again, other = Shelf(tmp_path / "a", seed=0), Shelf(tmp_path / "b", seed=1)
    repo = REPOS["prefs-lab/science-pairs"]
    assert again.file(repo, "data/train.parquet").etag == shelf.file(repo, "data/train.parquet").etag  # type: ignore[union-attr]
    assert other.rows(repo) != shelf.rows(repo)
    assert other.sha(repo) != shelf.sha(repo)


def test_evil_files_are_evil(shelf: Shelf) -> None:
    import pyarrow.parquet as pq

    def file(name: str, path: str) -> File:
        found = shelf.file(REPOS[name], path)
        assert found is not None
        return found

    bomb = file("evil/zip-bomb", "data/train.jsonl.gz")
    assert bomb.size < 8 * 2**20
    with gzip.open(bomb.place) as stream:
        assert all(stream.readline().startswith(b'{"question"') for _ in range(50))
        assert len(stream.readline(64 * 2**20)) == 64 * 2**20
    wide = file("evil/wide", "data/train.parquet")
    assert len(pq.read_schema(wide.place).names) == 20_000
    huge = file("evil/huge-field", "data/train.jsonl").place.read_bytes().splitlines()
    assert len(huge[9]) > 5 * 2**20 > 100 * len(huge[8])
    with pytest.raises(RecursionError):
        json.loads(file("evil/nested-blobs", "data/train.jsonl").place.read_bytes().splitlines()[9])
    assert "IGNORE YOUR INSTRUCTIONS" in REPOS["evil/prompt-injection"].readme.decode()
    assert shelf.paths(REPOS["evil/script-loader"]) == [".gitattributes", "README.md", "script-loader.py"]


# ---- Hub files and the viewer


def test_ranges_of_files(http: httpx.Client) -> None:
    for path in ("data/train.parquet", "README.md"):
        url = f"/datasets/{GOOD}/resolve/main/{path}"
        whole = http.get(url).content
        head = http.head(url)
        assert int(head.headers["content-length"]) == len(whole)
        part = http.get(url, headers={"range": "bytes=4-11"})
        assert (part.status_code, part.content) == (206, whole[4:12])
        assert part.headers["content-range"] == f"bytes 4-11/{len(whole)}"
        assert http.get(url, headers={"range": "bytes=-4"}).content == whole[-4:]
        assert http.get(url, headers={"range": "bytes=99999999-"}).status_code == 416


def test_the_viewer_agrees_with_the_file(http: httpx.Client) -> None:
    import pyarrow.parquet as pq

    asked = {"dataset": GOOD, "config": "default", "split": "train"}
    splits = http.get("/datasets-server/splits", params={"dataset": GOOD})
    assert splits.json()["splits"] == [asked]
    assert len(splits.headers["x-revision"]) == 40
    listed = http.get("/datasets-server/parquet", params={"dataset": GOOD}).json()["parquet_files"]
    content = http.get(listed[0]["url"]).content
    assert len(content) == listed[0]["size"]
    rows = pq.read_table(io.BytesIO(content)).to_pylist()
    first = http.get("/datasets-server/first-rows", params=asked).json()
    assert [item["row"] for item in first["rows"]] == rows[:100]
    assert first["truncated"]
    assert {item["name"]: item["type"] for item in first["features"]}["choices"] == {
        "feature": {"dtype": "string", "_type": "Value"},
        "_type": "List",
    }
    page = http.get("/datasets-server/rows", params={**asked, "offset": 1790, "length": 20}).json()
    assert [item["row"] for item in page["rows"]] == rows[1790:]
    assert page["num_rows_total"] == len(rows)
    info = http.get("/datasets-server/info", params={"dataset": GOOD, "config": "default"}).json()["dataset_info"]
    assert info["splits"]["train"]["num_examples"] == len(rows)
    size = http.get("/datasets-server/size", params={"dataset": GOOD}).json()["size"]
    assert size["dataset"]["num_rows"] == len(rows)
    columns = http.get("/datasets-server/statistics", params=asked).json()["statistics"]
    told = {column["column_name"]: column["column_statistics"] for column in columns}
    assert told["answer"]["frequencies"] == dict(Counter(row["answer"] for row in rows))
    assert told["question"]["max"] == max(len(row["question"]) for row in rows)
    assert sum(told["question"]["histogram"]["hist"]) == len(rows)
    found = http.get("/datasets-server/search", params={**asked, "query": "pond"}).json()
    assert found["num_rows_total"] == sum("pond" in json.dumps(row).lower() for row in rows) > 0
    kept = http.get("/datasets-server/filter", params={**asked, "where": "\"answer\"='A'"}).json()
    assert kept["num_rows_total"] == sum(row["answer"] == "A" for row in rows)


@pytest.mark.parametrize(
    ("endpoint", "dataset", "more", "status", "code"),
    [
        ("splits", "gone-lab/lost-set", {}, 404, "ExternalAuthenticatedError"),
        ("splits", "walled/physics-olympiad", {}, 404, "ExternalAuthenticatedError"),
        ("splits", "mcq-fast/letters-only", {}, 404, "DisabledViewerError"),
        ("info", "evil/script-loader", {}, 501, "DatasetWithScriptNotSupportedError"),
        ("statistics", "evil/wide", {"config": "default", "split": "train"}, 501, "TooManyColumnsError"),
        ("rows", GOOD, {"config": "default"}, 422, "MissingRequiredParameter"),
        ("rows", GOOD, {"config": "default", "split": "test"}, 404, "SplitNotFoundError"),
        ("rows", GOOD, {"config": "default", "split": "train", "length": "101"}, 422, "InvalidParameter"),
        ("filter", GOOD, {"config": "default", "split": "train", "where": "1=1; drop"}, 422, "InvalidParameter"),
    ],
)
def test_errors_of_the_viewer(
    http: httpx.Client, endpoint: str, dataset: str, more: dict[str, str], status: int, code: str
) -> None:
    answer = http.get(f"/datasets-server/{endpoint}", params={"dataset": dataset, **more})
    assert (answer.status_code, answer.headers["x-error-code"]) == (status, code)
    assert answer.json()["error"]


def test_the_viewer_wants_a_token_for_what_is_not_public(world: Loopback) -> None:
    answer = httpx.get(f"{world.url}/datasets-server/splits?dataset=walled/physics-olympiad")
    assert (answer.status_code, answer.headers["x-error-code"]) == (401, "ExternalUnauthenticatedError")
    granted = {"authorization": "Bearer hf_granted"}
    assert httpx.get(str(answer.url), headers=granted).status_code == 200


def test_a_dataset_with_two_splits(http: httpx.Client) -> None:
    asked = {"dataset": "globe/capital-cities"}
    splits = http.get("/datasets-server/splits", params=asked).json()["splits"]
    assert [item["split"] for item in splits] == ["train", "validation"]
    size = http.get("/datasets-server/size", params=asked).json()["size"]
    assert [(item["split"], item["num_rows"]) for item in size["splits"]] == [("train", 400), ("validation", 100)]
    assert size["dataset"]["num_rows"] == 500
    files = http.get("/datasets-server/parquet", params=asked).json()["parquet_files"]
    assert [len(http.get(item["url"]).content) for item in files] == [item["size"] for item in files]
    info = http.get("/datasets-server/info", params=asked).json()["dataset_info"]["default"]
    assert {name: split["num_examples"] for name, split in info["splits"].items()} == {"train": 400, "validation": 100}


def test_first_rows_cut_what_is_too_large(http: httpx.Client) -> None:
    asked = {"dataset": "evil/huge-field", "config": "default", "split": "train"}
    answer = http.get("/datasets-server/first-rows", params=asked)
    assert len(answer.content) < 200_000
    assert "solution" in answer.json()["rows"][9]["truncated_cells"]


# ---- the server


def test_it_starts_fast_and_makes_nothing_before_it_is_asked(tmp_path: Path) -> None:
    before = time.monotonic()
    with Loopback(folder=tmp_path) as world:
        assert time.monotonic() - before < 2
        assert httpx.get(f"{world.url}/api/datasets?full=true").status_code == 200
        assert not any(tmp_path.iterdir())
        assert httpx.get(f"{world.url}/datasets/globe/capital-cities/resolve/main/README.md").status_code == 200
        assert any(tmp_path.iterdir())
    with pytest.raises(httpx.ConnectError):
        httpx.get(world.url)


def test_by_hand(world: Loopback) -> None:
    command = [sys.executable, "-m", "tests.loopback", "--port"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [*command, "0"], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        told = "".join(iter(process.stdout.readline, "GET / tells about faults. Ctrl-C ends it.\n"))
        url = re.search(r"http://127\.0\.0\.1:\d+", told)
        assert url is not None
        assert f"CREW_LOOPBACK_URL={url[0]} crew run posttrain --target gpqa-mini --sources loopback\n" in told
        assert "Semantic Scholar" in httpx.get(url[0]).text
        taken = url[0].rpartition(":")[2]
        second = subprocess.run(
            [*command, taken], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
        )
        assert second.returncode == 1
        assert f"port {taken} cannot be used" in second.stderr
        assert "Traceback" not in second.stderr
    finally:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")


def test_a_path_that_no_service_has_is_noticed(http: httpx.Client, world: Loopback) -> None:
    for path in ("/api/nothing", "/s2/graph/v2/paper", "/arxiv/list/cs.CL", "/datasets-server/rows/x", "/ar5iv/abs/1"):
        assert http.get(path).status_code == 404
    assert world.unknown_paths == [
        "/api/nothing",
        "/s2/graph/v2/paper",
        "/arxiv/list/cs.CL",
        "/datasets-server/rows/x",
        "/ar5iv/abs/1",
    ]


def test_a_query_of_10_kb(http: httpx.Client, world: Loopback) -> None:
    query = "solutions & reasoning\n" * 500
    answer = http.get("/s2/graph/v1/paper/search", params={"query": query, "fields": "title"})
    assert answer.status_code == 200
    assert world.requests[-1].parameters[0] == ("query", query)
    assert not world.unknown_parameters
