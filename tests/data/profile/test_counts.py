"""What is counted over all rows is exact, and the same for parquet, JSON Lines and JSON."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from posttrain_crew.tools.data.profile.hashing import RepeatCounter, digests
from posttrain_crew.tools.data.profile.model import ColumnProfile, Profile
from posttrain_crew.tools.data.profile.profiler import Options, profile_path
from tests.data.profile.planted import altered, as_jsonl, as_parquet, mcq, words


def column(profile: Profile, path: str) -> ColumnProfile:
    return next(each for each in profile.columns if each.path == path)


def rows_with_holes() -> list[dict[str, object]]:
    rows: list[dict[str, object]] = [{**row, "score": i / 10, "year": 2000 + i % 3} for i, row in enumerate(mcq(200))]
    for i in range(30):
        rows[i]["answer"] = None
    for i in range(10):
        rows[i + 100]["question"] = "  "
    for i in range(20):
        rows[i + 50]["choices"] = []
    rows[7]["score"] = float("nan")
    return rows


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "json"])
def test_schema_nulls_and_lengths(kind: str, tmp_path: Path) -> None:
    rows = rows_with_holes()
    path = tmp_path / f"rows.{kind}"
    if kind == "parquet":
        as_parquet(path, rows, row_group_size=64)
    elif kind == "jsonl":
        as_jsonl(path, rows)
    else:
        path.write_text(json.dumps(rows, indent=1))
    found = profile_path(path)
    assert (found.rows, found.rows_read, found.unreadable, found.files) == (200, 200, 0, 1)
    assert found.bytes == path.stat().st_size
    assert found.format == "mcq"
    assert [each.path for each in found.columns] == [
        "id", "question", "choices", "choices[]", "answer", "score", "year"
    ]  # fmt: skip
    answer, question, choices = column(found, "answer"), column(found, "question"), column(found, "choices")
    assert (answer.null, answer.null_rate, answer.missing) == (30, 0.15, 0)
    assert (question.empty, question.empty_rate) == (10, 0.05)
    assert (choices.empty, choices.types) == (20, {"list": 200})
    assert column(found, "choices[]").types == {"text": 720}
    lengths = sorted(len(str(row["question"])) for row in rows)
    assert question.chars is not None
    assert (question.chars.minimum, question.chars.maximum, question.chars.n) == (2, lengths[-1], 200)
    assert question.chars.mean == pytest.approx(sum(lengths) / 200)
    assert question.chars.median == lengths[99]
    score, year = column(found, "score"), column(found, "year")
    assert (score.types, score.not_finite, score.maximum) == ({"number": 200}, 1, 19.9)
    assert (year.types, year.minimum, year.maximum) == ({"integer": 200}, 2000, 2002)
    balance = {each.column: each.values for each in found.balance}
    assert balance["year"] == {"2000": 67, "2001": 67, "2002": 66}
    assert balance["answer"] == {"C": 43, "D": 43, "A": 42, "B": 42}
    assert "question" not in balance
    text = " ".join(found.warnings)
    for part in ("answer (15%)", "choices (10%)", "NaN or infinite numbers in score", "no licence"):
        assert part in text


def test_long_lengths_are_right_to_one_per_cent(tmp_path: Path) -> None:
    sizes = [int(1.01**i) for i in range(500, 1400)]
    found = profile_path(as_jsonl(tmp_path / "rows.jsonl", ({"text": "x" * size} for size in sizes if size < 100_000)))
    kept = sorted(size for size in sizes if size < 100_000)
    chars = column(found, "text").chars
    assert chars is not None
    assert chars.maximum == kept[-1]
    for value, share in ((chars.median, 0.5), (chars.p95, 0.95), (chars.p99, 0.99)):
        assert value == pytest.approx(kept[-(-int(share * 1000) * len(kept) // 1000) - 1], rel=0.015)


def test_exact_repeats_whatever_their_id_case_and_punctuation(tmp_path: Path) -> None:
    rows = mcq(900)
    again = [
        {**row, "id": f"again-{i}", "question": str(row["question"]).upper() + " !!"} for i, row in enumerate(rows[:90])
    ]
    other_answers = [{**row, "choices": ["1", "2", "3", "4"]} for row in rows[:10]]
    found = profile_path(as_parquet(tmp_path / "rows.parquet", rows + again + other_answers, row_group_size=100))
    assert found.repeated_rows is not None and found.repeated_prompts is not None
    assert (found.repeated_rows.rows, found.repeated_rows.exact) == (1000, True)
    assert found.repeated_rows.rate == pytest.approx(0.09)
    assert found.repeated_prompts.rate == pytest.approx(0.10)
    assert found.repeated_prompts.largest_group == 3


def test_prompts_of_conversations_are_their_first_user_turns(tmp_path: Path) -> None:
    random_ = random.Random(0)
    rows = [
        {
            "messages": [
                {"role": "system", "content": "be brief"},
                {"role": "user", "content": "the same question" if i < 25 else words(random_, 8)},
                {"role": "assistant", "content": words(random_, 8)},
            ]
        }
        for i in range(100)
    ]
    for path in (as_parquet(tmp_path / "a.parquet", rows), as_jsonl(tmp_path / "b.jsonl", rows)):
        found = profile_path(path)
        assert found.repeated_rows is not None and found.repeated_rows.rate == 0
        assert found.repeated_prompts is not None and found.repeated_prompts.rate == pytest.approx(0.24)
        assert found.repeated_prompts.largest_group == 25


def test_near_duplicates_are_found_though_only_a_part_is_sampled(tmp_path: Path) -> None:
    random_ = random.Random(3)
    rows = mcq(8000)
    rows += [altered(row, random_) for row in rows[:1200]]
    random_.shuffle(rows)
    found = profile_path(as_parquet(tmp_path / "rows.parquet", rows), Options(sample=2000))
    near = found.near_duplicates
    assert near is not None and near.sample <= 2000
    assert near.low <= 1200 / 9200 <= near.high
    assert near.high - near.low < 0.08
    clean = profile_path(as_parquet(tmp_path / "clean.parquet", mcq(3000)), Options(sample=2000)).near_duplicates
    assert clean is not None and clean.rate == 0


def test_repeats_of_more_texts_than_are_kept() -> None:
    counter = RepeatCounter(capacity=4000)
    texts = [f"text {i}".encode() for i in range(40_000)]
    for start in range(0, len(texts), 500):
        counter.add(digests(texts[start : start + 500]))
        counter.add(digests(texts[start : start + 125]))
    found = counter.result()
    assert found is not None
    assert not found.exact and 2000 <= found.rows <= 6000
    assert found.rate == pytest.approx(0.2, abs=0.03)
    assert found.largest_group == 2


def test_one_text_in_a_million_rows_takes_one_place() -> None:
    counter = RepeatCounter(capacity=4000)
    chunk = digests([b"the same"] * 50_000)
    for _ in range(20):
        counter.add(chunk)
    found = counter.result()
    assert found is not None
    assert (found.rows, found.exact, found.largest_group) == (1_000_000, True, 1_000_000)
