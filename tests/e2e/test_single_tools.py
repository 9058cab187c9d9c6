"""The commands for one step: audit a dataset, train once, evaluate once."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import yaml

from posttrain_crew.tools.embedded.benchmark import prompt, train_items
from posttrain_crew.tools.embedded.catalogue import write_catalogue
from tests.e2e.conftest import crew

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.usefixtures("shared_cache")]

DEFECTS = {
    "openlab/science-steps": ("usable", set()),
    "quizbank/stem-short": ("usable", {"no_worked_solutions"}),
    "classroom/stem-explained": ("usable_after_cleaning", {"label_noise"}),
    "examhub/science-practice": ("usable_after_cleaning", {"contamination"}),
    "dialogs/tutor-science": ("usable_after_cleaning", {"foreign_format", "exact_duplicates"}),
    "everyday/howto-quiz": ("rejected", {"off_domain"}),
}


def test_audit_names_the_defect_of_every_candidate_with_numbers(tmp_path: Path) -> None:
    for name in write_catalogue(tmp_path / "catalogue", seed=3):
        done = crew("audit", str(tmp_path / "catalogue" / name), "--target", "gpqa-mini", "--json")
        assert done.code == 0, done.stderr
        verdict, defects = DEFECTS[name]
        assert done.last["verdict"] == verdict, name
        found = {defect["name"]: defect["value"] for defect in done.last["defects"]}
        assert defects <= found.keys(), name
        if "label_noise" in defects:
            assert 0.25 < found["label_noise"] < 0.35
        if "contamination" in defects:
            assert 0.12 < found["contamination"] < 0.18


def test_train_once_then_evaluate_once(tmp_path: Path, base_model: Path, small_target: Path) -> None:
    rows = []
    for item in train_items(320, 0):
        asked = [{"role": "user", "content": prompt(item.question, item.choices)}]
        rows.append({"prompt": asked, "completion": [{"role": "assistant", "content": item.solution}]})
    data = tmp_path / "train.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {
        "method": "sft",
        "model": str(base_model),
        "data": str(data),
        "data_sha256": hashlib.sha256(data.read_bytes()).hexdigest(),
        "seed": 1,
        "trainer": yaml.safe_load(small_target.read_text())["training"]["sft"],
    }
    (tmp_path / "job").mkdir()
    path = tmp_path / "job" / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    done = crew("train", str(path), "--json")
    assert done.code == 0, done.stderr
    assert done.last["ok"] is True
    assert done.last["steps"] == 10
    scored = crew("eval", str(tmp_path / "job" / "model"), "--target", str(small_target), "--split", "dev", "--json")
    assert scored.code == 0, scored.stderr
    result = scored.last
    assert result["n"] == 150
    assert 0 <= result["ci_low"] <= result["score"] <= result["ci_high"] <= 1
    plain = crew("train", str(tmp_path / "nothing.yaml"))
    assert plain.code == 2
    assert "nothing.yaml" in plain.stderr
