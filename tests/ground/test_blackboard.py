"""The blackboard keeps what it is given, and notices what was done to it."""

from __future__ import annotations

import multiprocessing
import sqlite3
import threading
from pathlib import Path

import pytest

from posttrain_crew.blackboard import Blackboard
from posttrain_crew.entries import BudgetSettled, EntryBody, Incident, PaperRead, SessionStarted
from posttrain_crew.errors import BlackboardError


def incident(what: str = "down") -> Incident:
    return Incident(where="test", what=what, instead="waited")


def post_many(path: Path, author: str, count: int) -> None:
    board = Blackboard(path)
    for number in range(count):
        board.post(incident(str(number)), author=author)


def test_what_is_posted_can_be_read_again_with_its_type_and_place(board: Blackboard) -> None:
    first = board.post(incident("one"), author="data")
    second = board.post(incident("two"), author="data", refs=(first.id,), status="hypothesis")
    assert (first.id, second.id, second.seq) == ("inc-1", "inc-2", 2)
    assert board.get("inc-2") == second
    assert board.typed("inc-1", Incident).body.what == "one"
    assert [entry.id for entry in board.of(Incident, newest=1)] == ["inc-2"]
    assert [entry.id for entry in board.since(1)] == ["inc-2"]
    assert board.counts() == {"incident": 2}
    assert board.latest(SessionStarted) is None
    assert board.verify() == 2


def test_an_entry_of_another_kind_is_not_handed_out(board: Blackboard) -> None:
    board.post(incident(), author="data")
    with pytest.raises(BlackboardError, match="is a `incident`, not a `session`"):
        board.typed("inc-1", SessionStarted)
    with pytest.raises(BlackboardError, match="no entry `inc-9`"):
        board.get("inc-9")


def test_refs_must_exist_and_be_enough(board: Blackboard) -> None:
    with pytest.raises(BlackboardError, match="exp-99"):
        board.post(incident(), author="data", refs=("exp-99",))
    with pytest.raises(BlackboardError, match="at least 1"):
        board.post(BudgetSettled(label="x"), author="crew")
    assert board.last_seq() == 0


def test_a_body_that_is_no_known_kind_is_refused(board: Blackboard) -> None:
    class Opinion(EntryBody):
        text: str

    with pytest.raises(BlackboardError, match="Opinion"):
        board.post(Opinion(text="it is fine"), author="data")


def test_a_key_makes_a_post_happen_once(board: Blackboard) -> None:
    first = board.post(incident("first"), author="crew", key="k")
    again = board.post(incident("second"), author="crew", key="k")
    assert again == first
    assert board.by_key("k") == first
    assert board.last_seq() == 1


@pytest.mark.parametrize("statement", ["UPDATE entries SET author = 'me'", "DELETE FROM entries"])
def test_rows_cannot_be_changed_or_removed(board: Blackboard, statement: str) -> None:
    board.post(incident(), author="data")
    with sqlite3.connect(board.location) as connection, pytest.raises(sqlite3.DatabaseError, match="append-only"):
        connection.execute(statement)
    assert board.verify() == 1


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET body = replace(body, 'two', 'won') WHERE seq = 2",
        "DELETE FROM entries WHERE seq = 2",
        "UPDATE entries SET author = 'coordinator' WHERE seq = 2",
    ],
)
def test_a_change_behind_its_back_is_found(board: Blackboard, statement: str) -> None:
    for what in ("one", "two", "three"):
        board.post(incident(what), author="data")
    with sqlite3.connect(board.location) as connection:
        connection.execute("DROP TRIGGER entries_no_update")
        connection.execute("DROP TRIGGER entries_no_delete")
        connection.execute(statement)
    with pytest.raises(BlackboardError, match="hash chain breaks at entry 2"):
        board.verify()


def test_threads_lose_nothing(board: Blackboard) -> None:
    threads = [
        threading.Thread(target=lambda: [board.post(incident(), author="t") for _ in range(250)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert board.verify() == 1000
    assert len({entry.id for entry in board.since()}) == 1000


def test_processes_lose_nothing(board: Blackboard) -> None:
    context = multiprocessing.get_context("fork")
    board.close()
    workers = [context.Process(target=post_many, args=(Path(board.location), f"p{n}", 150)) for n in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert board.verify() == 300


@pytest.mark.parametrize("content", [b"this is no database at all, not in the least" * 50, b""])
def test_a_file_that_is_no_blackboard_is_one_paragraph(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "blackboard.db"
    path.write_bytes(content)
    with pytest.raises(BlackboardError) as caught:
        Blackboard(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(BlackboardError, match="no blackboard at"):
        Blackboard(tmp_path / "missing.db")


def test_a_damaged_page_is_an_error_of_ours(board: Blackboard) -> None:
    for _ in range(200):
        board.post(incident("x" * 200), author="data")
    board.close()
    path = Path(board.location)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    raw = bytearray(path.read_bytes())
    raw[8192:40000] = b"\xff" * (40000 - 8192)
    path.write_bytes(raw)
    with pytest.raises(BlackboardError):
        Blackboard(path).verify()


def test_bodies_refuse_unknown_fields_and_changes() -> None:
    with pytest.raises(ValueError, match="Extra inputs"):
        Incident(where="a", what="b", instead="c", mood="good")  # type: ignore[call-arg]
    body = PaperRead(arxiv_id="1", title="t", year=2024, techniques=[], findings=[], source="library")
    with pytest.raises(ValueError, match="frozen"):
        body.title = "other"  # type: ignore[misc]
