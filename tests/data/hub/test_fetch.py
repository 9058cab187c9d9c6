"""Fetching: pinned, hashed, bounded, resumable; hostile repositories are refused or survived; nothing is executed."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from posttrain_crew.errors import (
    AccessDeniedError,
    BadAnswerError,
    DatasetError,
    InputError,
    NotFoundError,
    ServiceUnavailableError,
)
from posttrain_crew.files import sha256_file
from posttrain_crew.tools.data.hub import fetch as fetch_module
from posttrain_crew.tools.data.hub.client import HubFile
from posttrain_crew.tools.data.hub.fetch import fetched_datasets, place_of
from posttrain_crew.tools.data.hub.files import choose, local_name
from posttrain_crew.tools.data.reader import open_dataset
from tests.loopback.world import Loopback

from .conftest import MakeFetcher
from .tiny_hub import REVISION, TinyHub

GOOD = "lab-notebook/quanta-steps"
ROW = {"question": "2 + 2?", "choices": ["3", "4"], "answer": "B"}
LINES = b"".join(json.dumps({**ROW, "n": number}).encode() + b"\n" for number in range(50))


def test_a_dataset_comes_whole_and_once(world: Loopback, make_fetcher: MakeFetcher) -> None:
    fetcher = make_fetcher(world.url)
    made = fetcher.fetch(GOOD)
    folder = place_of(fetcher.root, GOOD)
    assert made.revision == fetcher.hub.info(GOOD).revision and made.licence == "cc-by-4.0" and made.via == "files"
    (file,) = made.files
    assert sha256_file(folder / "data" / file.name) == file.sha256 and file.path == "data/train.parquet"
    dataset = open_dataset(folder, GOOD)
    assert dataset.count() == 1800 and dataset.card.licence == "cc-by-4.0"
    assert not [path for path in folder.rglob("*") if path.suffix in (".py", ".part")]
    world.requests.clear()
    assert fetcher.fetch(GOOD) == made and fetcher.fetch(GOOD, revision=made.revision) == made
    assert not world.requests
    assert [(known, place) for known, place in fetched_datasets(fetcher.root)] == [(made, folder)]


@pytest.mark.parametrize("fault", ["500", "503", "cut", "429_retry_after"])
def test_a_passing_fault_in_the_middle_of_a_file_changes_nothing(
    fault: str, world: Loopback, make_fetcher: MakeFetcher
) -> None:
    world.faults.add("hub", fault, path="/cdn/")
    fetcher = make_fetcher(world.url)
    fetcher.fetch(GOOD)
    assert open_dataset(place_of(fetcher.root, GOOD)).count() == 1800 and world.faults.pending == 0


def test_what_cannot_be_had(world: Loopback, make_fetcher: MakeFetcher, tmp_path: Path) -> None:
    fetcher = make_fetcher(world.url)
    with pytest.raises(AccessDeniedError, match="accept its terms at"):
        fetcher.fetch("walled/physics-olympiad")
    with pytest.raises(NotFoundError, match="is not on the Hub"):
        fetcher.fetch("gone-lab/lost-set")
    for bad in ("../../evil", "/etc/passwd", "a/b/c"):
        with pytest.raises(InputError):
            fetcher.fetch(bad)
    with pytest.raises(DatasetError, match=r"only code|no data file"):
        fetcher.fetch("evil/script-loader")
    with pytest.raises(DatasetError, match="20000 columns"):
        fetcher.fetch("evil/wide")
    assert fetched_datasets(fetcher.root) == []
    assert not list(Path.cwd().glob("EXECUTED*")) and not list(tmp_path.rglob("EXECUTED*"))
    assert not [path for path in fetcher.root.rglob("*") if path.is_file() and path.suffix != ".lock"]


@pytest.mark.parametrize("name", ["evil/huge-field", "evil/nested-blobs", "evil/prompt-injection"])
def test_what_is_odd_but_readable_is_read_in_bounds(name: str, world: Loopback, make_fetcher: MakeFetcher) -> None:
    fetcher = make_fetcher(world.url)
    fetcher.fetch(name)
    rows = list(open_dataset(place_of(fetcher.root, name)).rows())
    assert rows and all(len(json.dumps(row)) < 1_000_000 for row in rows if row is not None)


def test_a_kill_in_the_middle_loses_no_finished_file(make_fetcher: MakeFetcher) -> None:
    files = {f"data/train-{number}.jsonl": LINES for number in range(3)}
    with TinyHub("some/set", files, down={"data/train-2.jsonl"}).served() as tiny:
        fetcher = make_fetcher(tiny.url)
        with pytest.raises(ServiceUnavailableError):
            fetcher.fetch("some/set")
        assert fetched_datasets(fetcher.root) == []
        tiny.down.clear()
        tiny.asked.clear()
        made = make_fetcher(tiny.url).fetch("some/set")
    assert [path for path in tiny.asked if "/data/" in path] == [
        f"/datasets/some/set/resolve/{REVISION}/data/train-2.jsonl"
    ]
    assert len(made.files) == 3 and made.revision == REVISION and not list(fetcher.root.glob("some/.set-*"))


def test_other_contents_than_stated_are_refused(make_fetcher: MakeFetcher) -> None:
    lying = TinyHub("some/set", {"train.jsonl": LINES}, digests={"train.jsonl": "ab" * 32})
    with lying.served() as tiny, pytest.raises(BadAnswerError, match="other contents"):
        make_fetcher(tiny.url).fetch("some/set")


def test_csv_tsv_and_gz_become_jsonl(make_fetcher: MakeFetcher) -> None:
    table = 'question,answer\n"Two lines,\nand a ""quote""",A\nempty,\n'
    for files in (
        {"train.csv": table.encode("utf-8-sig")},
        {"train.csv.gz": gzip.compress(table.encode())},
        {"data/train.json.gz": gzip.compress(json.dumps([{"question": 'Two lines,\nand a "quote"', "answer": "A"},
                                                         {"question": "empty", "answer": None}]).encode())},
        {"train.tsv": b'question\tanswer\n"Two lines,\nand a ""quote"""\tA\nempty\t\n'},
    ):  # fmt: skip
        name = f"some/{next(iter(files)).replace('/', '-')}"
        with TinyHub(name, files).served() as tiny:
            fetcher = make_fetcher(tiny.url)
            made = fetcher.fetch(name)
        rows = list(open_dataset(place_of(fetcher.root, name)).rows())
        assert rows == [{"question": 'Two lines,\nand a "quote"', "answer": "A"}, {"question": "empty", "answer": None}]
        assert made.files[0].name.endswith(".jsonl")


def test_bombs_and_damage_are_refused(make_fetcher: MakeFetcher) -> None:
    bomb = b"".join([gzip.compress(b" " * 2**20)] * 100)
    wide = json.dumps({f"c{number}": 1 for number in range(1500)}).encode() + b"\n"
    for files, said in (
        ({"train.jsonl.gz": bomb}, "unpacks to more than 64 MiB"),
        ({"train.jsonl.gz": gzip.compress(LINES)[:100]}, "cannot be unpacked"),
        ({"train.csv": ",".join(f"c{number}" for number in range(2000)).encode() + b"\n1\n"}, "2000 columns"),
        ({"train.csv": b"a\n" + b"x" * (9 * 2**20)}, "line of more than 8 MiB"),
        ({"train.csv": "question,answer\nWer fährt?,Müller\n".encode("latin-1")}, "no UTF-8 text .byte 0xe4"),
        ({"train.csv": "question,answer\nWho?,me\n".encode("utf-16")}, "no UTF-8 text"),
        ({"train.csv": b"question,answer,question\na,b,c\n"}, "names question more than once"),
        ({"train.csv": b'question,answer\n"never closed,b\nc,d\n'}, "cannot be read: Error: unexpected end"),
        ({"train.json": json.dumps([{"text": "café"}], ensure_ascii=False).encode("latin-1")}, "UnicodeDecodeError"),
        ({"train.json": b'{"test": [{"a": 1}], "dev": [{"a": 2}]}'}, "several lists of objects .test, dev."),
        ({"train.jsonl": wide}, "1500 columns"),
        ({"train.parquet": b"PAR1 nothing"}, "cannot be read"),
    ):
        with TinyHub("evil/set", files).served() as tiny:
            fetcher = make_fetcher(tiny.url)
            with pytest.raises(DatasetError, match=said) as caught:
                fetcher.fetch("evil/set")
        assert str(fetcher.root) not in str(caught.value) and fetched_datasets(fetcher.root) == []


def as_parquet() -> bytes:
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([ROW]), buffer)
    return bytes(buffer.getvalue())


def test_what_a_table_lacks_is_told(make_fetcher: MakeFetcher) -> None:
    table = b",question,answer\n0,What is it?,A\n1,What, now?,B\n2,short\n3,And then?,C\n"
    with TinyHub("some/set", {"train.csv": table}).served() as tiny:
        fetcher = make_fetcher(tiny.url)
        made = fetcher.fetch("some/set")
    rows = list(open_dataset(place_of(fetcher.root, "some/set")).rows())
    assert rows[0] == {"column_1": "0", "question": "What is it?", "answer": "A"} and rows[1:3] == [None, None]
    assert len(rows) == 4 and made.notes == made.files[0].notes
    assert ["without a name were called column_1" in made.notes[0], "2 rows of" in made.notes[1]] == [True, True]
    assert fetched_datasets(fetcher.root)[0][0].notes == made.notes


def test_a_set_without_a_training_split_says_so(make_fetcher: MakeFetcher) -> None:
    split = {"config_name": "main", "data_files": [{"split": "test", "path": "a*"}, {"split": "dev", "path": "b*"}]}
    for hub, names in (
        (TinyHub("one/set", {"test.jsonl": LINES}), ["test.jsonl"]),
        (TinyHub("two/set", {"a.jsonl": LINES, "b.jsonl": LINES}, card={"configs": [split]}), ["dev", "test"]),
        (TinyHub("three/set", {"load.py": b"1"}, copy={"main/test/0.parquet": as_parquet()}), ["test"]),
        (TinyHub("four/set", {"train.jsonl": LINES, "test.jsonl": LINES}), []),
        (TinyHub("five/set", {"fr.jsonl": LINES, "en.jsonl": LINES}), []),
    ):
        with hub.served() as tiny:
            made = make_fetcher(tiny.url).fetch(tiny.id)
        assert made.held_out == names
        assert any("it has no training split" in note for note in made.notes) == bool(names)


def test_bounds_on_bytes_files_and_disk(make_fetcher: MakeFetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {f"train-{number}.jsonl": LINES for number in range(4)}
    with TinyHub("some/set", files).served() as tiny:
        made = make_fetcher(tiny.url, max_bytes=2 * len(LINES) + 10).fetch("some/set")
        assert len(made.files) == 2 and made.partial and "over the bounds" in made.left_out[-1]["reason"]
    with TinyHub("some/other", files).served() as tiny:
        assert len(make_fetcher(tiny.url, max_files=3).fetch("some/other").files) == 3
    with TinyHub("some/large", files).served() as tiny, pytest.raises(DatasetError, match="too large"):
        make_fetcher(tiny.url, max_bytes=100).fetch("some/large")
    silent = TinyHub("some/silent", files, sizes=dict.fromkeys(files))
    with silent.served() as tiny, pytest.raises(BadAnswerError, match="larger than"):
        make_fetcher(tiny.url, max_bytes=100).fetch("some/silent")
    usage = fetch_module.shutil.disk_usage("/")._replace(free=2**30)
    monkeypatch.setattr(fetch_module.shutil, "disk_usage", lambda _: usage)
    with TinyHub("some/full", files).served() as tiny, pytest.raises(DatasetError, match="on the disk"):
        make_fetcher(tiny.url).fetch("some/full")


def test_the_parquet_copy_stands_in_for_formats_that_are_not_read(make_fetcher: MakeFetcher, tmp_path: Path) -> None:
    pq.write_table(pa.table({"question": ["q"], "answer": ["A"]}), tmp_path / "x.parquet")
    content = (tmp_path / "x.parquet").read_bytes()
    copy = {
        "default/train/0000.parquet": content,
        "default/test/0000.parquet": content,
        "other/train/0000.parquet": content,
    }
    with TinyHub("some/arrow", {"data.arrow": b"x", "load.py": b"raise SystemExit"}, copy=copy).served() as tiny:
        fetcher = make_fetcher(tiny.url)
        made = fetcher.fetch("some/arrow")
        assert made.via == "refs/convert/parquet" and made.revision == REVISION
        assert [file.path for file in made.files] == ["default/train/0000.parquet"]
        assert any("load.py" in note for note in made.notes) and any("other" in note for note in made.notes)
    assert not any("load.py" in path for path in tiny.asked)


def test_names_that_lead_out_are_left_there(make_fetcher: MakeFetcher, tmp_path: Path) -> None:
    files = {"../../../../evil.jsonl": LINES, "/abs.jsonl": LINES, "a/../../b.jsonl": LINES, ".hidden/x.jsonl": LINES,
             "c:\\windows.jsonl": LINES, "data/train.jsonl": LINES, "data/model.pkl": b"cos\nsystem\n"}  # fmt: skip
    with TinyHub("evil/names", files).served() as tiny:
        made = make_fetcher(tiny.url).fetch("evil/names")
    assert [file.path for file in made.files] == ["data/train.jsonl"]
    reasons = {each["path"]: each["reason"] for each in made.left_out}
    assert sum("leads out" in reason for reason in reasons.values()) == 4
    assert "never loaded" in reasons["data/model.pkl"]
    assert not list(tmp_path.parent.glob("evil.jsonl")) and not any(
        "resolve" in p and "evil" in p.split("resolve")[1] for p in tiny.asked
    )


def test_the_card_says_which_files_are_the_training_split() -> None:
    files = [HubFile(path, 10, None) for path in (
        "easy/train.parquet", "easy/test.parquet", "hard/train-00.parquet", "hard/train-01.parquet", "hard/val.parquet",
        "dataset_infos.json")]  # fmt: skip
    configs = [
        {"config_name": "easy", "data_files": [{"split": "train", "path": "easy/train.parquet"}]},
        {"config_name": "hard", "default": True,
         "data_files": [{"split": "train", "path": "hard/train-*"}, {"split": "validation", "path": "hard/val*"}]},
    ]  # fmt: skip
    chosen = choose(files, {"configs": configs})
    assert chosen.config == "hard" and chosen.other_configs == ("easy",)
    assert [file.path for file in chosen.files] == ["hard/train-00.parquet", "hard/train-01.parquet"]
    assert [file.path for file in choose(files, {"configs": configs}, "easy").files] == ["easy/train.parquet"]
    with pytest.raises(DatasetError, match="Configurations: easy, hard"):
        choose(files, {"configs": configs}, "medium")
    hostile = {"configs": [{"config_name": "x", "data_files": [{"path": ["../" * 50, "*" * 500]}]}, "y", {}]}
    assert choose(files, hostile).config == "x"


def test_without_configs_names_decide() -> None:
    def taken(*paths: str) -> list[str]:
        return [file.path for file in choose([HubFile(path, 5, None) for path in paths], {}).files]

    assert taken("train.jsonl", "test.jsonl", "dev.jsonl") == ["train.jsonl"]
    assert taken("a.jsonl", "validation.jsonl") == ["a.jsonl"]
    assert taken("test.jsonl") == ["test.jsonl"]
    assert taken("a.parquet", "b.parquet", "a.csv", "meta.json") == ["a.parquet", "b.parquet"]
    assert taken("contest/latest.jsonl") == ["contest/latest.jsonl"]
    assert local_name("data/a b/ü.jsonl.gz", ["a-b--.jsonl.gz"]) == "a-b.jsonl.gz"
    assert local_name("x/train.csv", ["x--train.csv"]) == "x--train-2.csv"
