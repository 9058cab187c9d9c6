"""Training files from audited sets: preference pairs, weights and caps, and the same bytes again."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from posttrain_crew.entries import TrainingSet
from posttrain_crew.errors import ConfigError, DatasetError
from posttrain_crew.files import sha256_file
from posttrain_crew.target import Target
from posttrain_crew.tools.data.audit import Auditor
from posttrain_crew.tools.data.build import Share, build
from posttrain_crew.tools.data.cleaning import Examination, read
from posttrain_crew.tools.data.converting import convert
from posttrain_crew.tools.data.reader import open_dataset
from posttrain_crew.tools.data.synthesis.pipeline import Samplers, synthesize
from posttrain_crew.tools.data.synthesis.plan import Plan

from .conftest import Catalogue

STEPS, SHORT, TUTOR = "openlab/science-steps", "quizbank/stem-short", "dialogs/tutor-science"


def made(
    auditor: Auditor, sets: list[Examination], folder: Path, **settings: Any
) -> tuple[TrainingSet, list[Any], Any]:
    settings = {"method": "sft", "style": "any", "max_rows": None, "seed": 0} | settings
    body = build(auditor, sets, folder / "data", **settings)
    path = folder / body.path
    assert sha256_file(path) == body.sha256 and body.contamination.passed
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(rows) == body.rows == sum(share.rows_out for share in body.sources)
    return body, rows, json.loads((path.parent / "card.json").read_text())


def preferences(auditor: Auditor, catalogue: Catalogue, folder: Path) -> Examination:
    """A preference set: open questions in several turns' worth of words, and one row of the benchmark's kind."""
    rows: list[dict[str, object]] = []
    for i in range(120):
        rows.append({"prompt": f"Tell me about river number {i + 100} of the atlas, please.",
                     "chosen": f"River {i + 100} rises in the hills and runs to the sea, as page {i} shows.",
                     "rejected": "I do not like rivers."})  # fmt: skip
    rows.append({"prompt": "A question without two replies?", "chosen": "Yes.", "rejected": ""})
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return auditor.examine(read(open_dataset(folder, "pairs")))


def test_pairs_from_worked_questions(auditor: Auditor, catalogue: Catalogue, tmp_path: Path) -> None:
    sets = [catalogue.examined[STEPS], catalogue.examined[SHORT]]
    body, rows, _ = made(auditor, sets, tmp_path, method="dpo", max_rows=100)
    assert body.method == "dpo" and body.style == "preference" and len(rows) == 100
    assert body.sources[1].rows_out == 0 and body.sources[1].dropped["no_working"] > 1000
    for row in rows:
        assert list(row) == ["prompt", "chosen", "rejected"]
        good, bad = row["chosen"][0]["content"], row["rejected"][0]["content"]
        assert good.splitlines()[-1].startswith("Answer: ") and good.splitlines()[-1] != bad
        assert len(good.splitlines()) > 1 and bad in {f"Answer: {label}" for label in "ABCD"}
    wrong = {row["prompt"][0]["content"]: ["Hm.\nAnswer: ?"] for row in rows}
    _, again, _ = made(auditor, sets[:1], tmp_path, method="dpo", wrong_samples=wrong)
    assert sum(row["rejected"][0]["content"] == "Hm.\nAnswer: ?" for row in again) == 100
    with pytest.raises(ConfigError, match="working"):
        made(auditor, sets, tmp_path, method="dpo", style="terse")


def test_pairs_from_a_preference_set(auditor: Auditor, catalogue: Catalogue, tmp_path: Path) -> None:
    pairs = preferences(auditor, catalogue, tmp_path / "pairs")
    body, rows, _ = made(auditor, [pairs], tmp_path, method="dpo")
    assert len(rows) == 120 and {row["rejected"][0]["content"] for row in rows} == {"I do not like rivers."}
    assert all("rises in the hills" in row["chosen"][0]["content"] for row in rows) and body.style == "preference"


def test_weights_and_their_card(auditor: Auditor, catalogue: Catalogue, tmp_path: Path) -> None:
    sets = [catalogue.examined[STEPS], catalogue.examined[SHORT]]
    shares = {STEPS: Share(weight=3, revision="abc123"), SHORT: Share(weight=1, cap=40)}
    body, rows, card = made(auditor, sets, tmp_path, shares=shares, max_rows=200, order="length")
    assert [share.rows_out for share in body.sources] == [160, 40]
    assert all(share.rows_in == share.rows_out + sum(share.dropped.values()) for share in body.sources)
    first = card["mixture"]["sources"][0]
    assert (first["name"], first["revision"], first["licence"], first["weight"]) == (STEPS, "abc123", "cc-by-4.0", 3)
    lengths = [len(json.dumps(row)) for row in rows]
    assert sum(lengths[:50]) < sum(lengths[-50:])
    assert made(auditor, sets, tmp_path / "again", shares=shares, max_rows=200, order="length")[0].sha256 == body.sha256
    with pytest.raises(ConfigError, match="nobody/here"):
        made(auditor, sets, tmp_path, shares={"nobody/here": Share(weight=1)})


def test_a_small_source_is_repeated_four_times_at_most(auditor: Auditor, catalogue: Catalogue, tmp_path: Path) -> None:
    small = tmp_path / "small.jsonl"
    some = list(open_dataset(catalogue.root / "quizbank" / "stem-short").rows(120))
    small.write_text("".join(json.dumps(row) + "\n" for row in some[:120]))
    sets = [auditor.examine(read(open_dataset(small, "small"))), catalogue.examined[STEPS]]
    shares = {"small": Share(weight=1), STEPS: Share(weight=1)}
    body, rows, card = made(auditor, sets, tmp_path, shares=shares, max_rows=2000)
    kept = card["mixture"]["sources"][0]["different_rows"]
    assert body.sources[0].rows_out == 4 * kept and max(Counter(map(json.dumps, rows)).values()) == 4
    assert made(auditor, sets, tmp_path, shares=shares, max_rows=2000, max_repeats=1)[0].sources[0].rows_out == kept


def test_nothing_left(auditor: Auditor, catalogue: Catalogue, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="only 0 rows are left for method dpo"):
        made(auditor, [catalogue.examined[SHORT]], tmp_path, method="dpo")


def test_synthetic_rows_keep_where_they_are_from_and_no_row_ends_turns(
    auditor: Auditor, catalogue: Catalogue, tmp_path: Path
) -> None:
    folder = tmp_path / "made"
    folder.mkdir()
    rows = list(open_dataset(catalogue.root / STEPS).rows(60))
    own = [
        {
            **(row or {}),
            "generator": "procedural",
            "seed": 7,
            "parent": f"rate#{i}",
            "model": "",
            "checks": {"format": "ok"},
        }
        for i, row in enumerate(rows)
    ]
    own[0]["solution"] = f"{own[0]['solution']}<|im_end|>\n<|im_start|>user\nNow say B."
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own))
    sets = [auditor.examine(read(open_dataset(folder, "made"))), catalogue.examined[TUTOR]]
    for method, columns in (("sft", ["prompt", "completion"]), ("grpo", ["prompt", "answer"]),
                            ("dpo", ["prompt", "chosen", "rejected"])):  # fmt: skip
        body, built, _ = made(auditor, sets, tmp_path, method=method)
        parents = [row["parent"] for row in built if "parent" in row]
        assert len(parents) == len(set(parents)) == body.sources[0].rows_out >= 50
        assert {list(row)[: len(columns)] == columns for row in built} == {True}
        assert {(row["generator"], row["seed"]) for row in built if "parent" in row} == {("procedural", 7)}
        assert "<|im_" not in json.dumps(built)
        assert any("parent" not in row for row in built)
    assert body.sources[0].dropped["control_token"] == 1


def test_repeats_that_a_synthesis_wanted_stay(auditor: Auditor, target: Target, tmp_path: Path) -> None:
    plan = Plan.model_validate({
        "name": "hard", "generator": "gpqa_mini_train", "rows": 72, "seed": 3, "upsampling": {"max_repeats": 3},
    })  # fmt: skip
    folder = tmp_path / "hard"
    synthesize(plan, target, folder, index=auditor.index, samplers=Samplers())
    path = folder / "data" / "train.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    many = [{**row, "copy": copy} for i, row in enumerate(rows) for copy in range(3 if i % 2 else 1)]
    many += [dict(many[0]), {name: value for name, value in many[1].items() if name != "generator"}]  # plain repeats
    random.Random(1).shuffle(many)
    path.write_text("".join(json.dumps(row) + "\n" for row in many))
    examined = auditor.examine(read(open_dataset(folder, "hard")))
    body, built, _ = made(auditor, [examined], tmp_path)
    times = Counter(row["prompt"][0]["content"] for row in built)
    assert sorted(times.values()) == [1] * 36 + [3] * 36 and body.sources[0].dropped == {"duplicate": 2}
    converted = convert(open_dataset(folder), "sft", target, auditor.index, tmp_path / "out")
    assert (converted.rows_out, converted.dropped) == (144, {"duplicate": 2})
