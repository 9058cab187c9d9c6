"""Each planted defect is found with its number, good data passes, and random labels never do."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest

from posttrain_crew.entries import DatasetProfile
from posttrain_crew.errors import DatasetError
from posttrain_crew.target import Target
from posttrain_crew.tools.data.audit import Auditor, LabelEvidence, audit_path
from posttrain_crew.tools.data.cleaning import examine, read
from posttrain_crew.tools.data.reader import open_dataset

from .conftest import Catalogue

GOOD = LabelEvidence(n=120, answered=120, agree=60, base_accuracy=0.5)
RANDOM = LabelEvidence(n=120, answered=120, agree=30, base_accuracy=0.5)


def profile(auditor: Auditor, from_: Catalogue, name: str, evidence: LabelEvidence | None = None) -> DatasetProfile:
    return auditor.audit(from_.examined[name], evidence=evidence, others=from_.others(name))


def severities(found: DatasetProfile) -> dict[str, str]:
    return {defect.name: defect.severity for defect in found.defects}


def test_clean_worked_set_is_usable(auditor: Auditor, catalogue: Catalogue) -> None:
    found = profile(auditor, catalogue, "openlab/science-steps", GOOD)
    assert (found.verdict, found.answer_style, found.format, found.rows) == ("usable", "worked", "mcq", 1800)
    assert not found.defects and found.licence == "cc-by-4.0"


def test_terse_set_is_usable_and_says_what_it_lacks(auditor: Auditor, catalogue: Catalogue) -> None:
    unprobed = profile(auditor, catalogue, "quizbank/stem-short")
    assert (unprobed.verdict, unprobed.answer_style) == ("usable", "terse")
    assert severities(unprobed) == {"no_worked_solutions": "note"}
    assert "how many labels are right is not known" in unprobed.reason
    probed = profile(auditor, catalogue, "quizbank/stem-short", GOOD)
    assert probed.verdict == "usable" and "right labels at 100%" in probed.reason


def test_wrong_labels_are_counted_and_can_be_dropped(auditor: Auditor, catalogue: Catalogue) -> None:
    found = profile(auditor, catalogue, "classroom/stem-explained")
    (defect,) = found.defects
    assert found.verdict == "usable_after_cleaning" and "30.0%" in found.reason and "840 of 1200" in found.reason
    assert (defect.name, defect.severity, defect.value) == ("label_noise", "clean", pytest.approx(0.30, abs=0.001))


def test_leaked_items_are_counted(auditor: Auditor, catalogue: Catalogue) -> None:
    found = profile(auditor, catalogue, "examhub/science-practice")
    (defect,) = found.defects
    assert found.verdict == "usable_after_cleaning" and "15.0%" in found.reason
    assert (defect.name, defect.severity, defect.value) == ("contamination", "clean", pytest.approx(0.15, abs=0.005))


def test_conversations_with_duplicates(auditor: Auditor, catalogue: Catalogue) -> None:
    found = profile(auditor, catalogue, "dialogs/tutor-science")
    assert (found.verdict, found.format, found.answer_style) == ("usable_after_cleaning", "sharegpt", "worked")
    assert severities(found) == {"foreign_format": "clean", "exact_duplicates": "clean"}
    repeated = found.measures["exact_duplicate_rate"] + found.measures["near_duplicate_rate"]
    assert repeated == pytest.approx(0.25, abs=0.01)


def test_other_domain_is_rejected(auditor: Auditor, catalogue: Catalogue) -> None:
    found = profile(auditor, catalogue, "everyday/howto-quiz")
    assert found.verdict == "rejected" and severities(found)["off_domain"] == "reject"
    assert (
        found.measures["domain_match"]
        < 0.1
        < 0.9
        < profile(auditor, catalogue, "quizbank/stem-short").measures["domain_match"]
    )


def test_nothing_passes_when_all_labels_are_random(auditor: Auditor, noise: Catalogue) -> None:
    for name in noise.examined:
        found = profile(auditor, noise, name, RANDOM)
        assert found.verdict == "rejected", (name, found.reason)
        assert "label_noise" in severities(found), name


def test_random_terse_labels_are_rejected_by_the_probe_alone(auditor: Auditor, noise: Catalogue) -> None:
    found = auditor.audit(noise.examined["quizbank/stem-short"], evidence=RANDOM)
    assert found.verdict == "rejected" and "25%" in found.reason


def test_a_probe_that_tells_nothing_rejects_nothing(auditor: Auditor, catalogue: Catalogue) -> None:
    for evidence in (
        LabelEvidence(n=120, answered=120, agree=30, base_accuracy=0.26),  # the base is at chance
        LabelEvidence(n=10, answered=10, agree=2, base_accuracy=0.5),  # too few rows
    ):
        found = auditor.audit(catalogue.examined["quizbank/stem-short"], evidence=evidence)
        assert found.verdict == "usable" and "say anything" in found.reason


def test_a_low_estimate_is_told_but_only_a_low_bound_rejects(auditor: Auditor, catalogue: Catalogue) -> None:
    low = LabelEvidence(n=120, answered=120, agree=40, base_accuracy=0.5)
    found = auditor.audit(catalogue.examined["quizbank/stem-short"], evidence=low)
    assert found.verdict == "usable" and severities(found)["label_noise"] == "note" and "about 50%" in found.reason


def test_a_weak_probe_does_not_outweigh_consistent_workings(auditor: Auditor, catalogue: Catalogue) -> None:
    doubtful = LabelEvidence(n=120, answered=120, agree=44, base_accuracy=0.5)
    assert profile(auditor, catalogue, "openlab/science-steps", doubtful).verdict == "usable"


def test_table_over_the_catalogue_is_quick(auditor: Auditor, catalogue: Catalogue, noise: Catalogue) -> None:
    started = time.process_time()
    for name in catalogue.examined:
        reading = read(open_dataset(catalogue.root / name, name))
        examination = examine(reading, auditor.index, auditor.thresholds.near_duplicate_similarity)
        found = auditor.audit(examination, others=catalogue.others(name))
        print(f"{name:28} {found.verdict:22} {found.reason}")
    took = time.process_time() - started  # of this process: others share the cores
    for name in noise.examined:
        print(f"noise {name:28} {profile(auditor, noise, name).reason}")
    assert took < 6, took


def test_a_denied_set_is_rejected_under_any_name(auditor: Auditor, catalogue: Catalogue, tmp_path: Path) -> None:
    target = auditor.target.model_copy(update={"deny_datasets": ["exam-board/*", "*gpqa*"]})
    good = (catalogue.root / "openlab" / "science-steps").resolve()
    (data,) = [path for path in good.rglob("*") if path.suffix in (".parquet", ".jsonl", ".json")]
    for name, card, fetched in (
        ("my-gpqa-copy", "", ""),
        ("plain", "---\npretty_name: GPQA rewritten\n---\n", ""),
        ("plain", "---\nsource_datasets:\n- exam-board/questions\n---\n", ""),
        ("plain", "", "Exam-Board/questions"),
        ("plain", "---\npretty_name: science\n---\n", "lab/steps"),
    ):
        folder = tmp_path / str(len(list(tmp_path.iterdir()))) / name
        (folder / "data").mkdir(parents=True)
        shutil.copy(data, folder / "data")
        (folder / "README.md").write_text(card)
        if fetched:
            (folder / "fetch.json").write_text(json.dumps({"repository": fetched}))
        found = audit_path(folder, target)
        if fetched != "lab/steps":
            assert (
                found.verdict == "rejected" and severities(found)["denied"] == "reject" and "deny list" in found.reason
            )
        else:
            assert found.verdict == "usable"
    alone = audit_path(tmp_path / "3" / "plain" / "data" / data.name, target)
    assert severities(alone)["denied"] == "reject"


def test_of_what_cannot_be_read_no_subject_is_told(target: Target, tmp_path: Path) -> None:
    for text in ("", '{"a": null}\n' * 200):
        (tmp_path / "d.jsonl").write_text(text)
        found = audit_path(tmp_path / "d.jsonl", target)
        assert found.verdict == "rejected" and "about something else" not in found.reason


def test_the_audit_does_not_know_names(auditor: Auditor, catalogue: Catalogue, tmp_path: Path) -> None:
    (tmp_path / "renamed").symlink_to(catalogue.root / "classroom" / "stem-explained")
    found = audit_path(tmp_path / "renamed", auditor.target)
    assert found.dataset == "renamed" and found.verdict == "usable_after_cleaning"


def test_more_than_fits_into_memory_is_left_unread_and_told(auditor: Auditor, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"question": f"{n} " + "x" * 1_000, "answer": "1"}) + "\n" for n in range(500)))
    dataset = open_dataset(path)
    for limit, count, whole in ((None, 500, True), (500, 500, True), (499, 499, False), (7, 7, False)):
        reading = read(dataset, limit)
        assert (len(reading.examples), reading.whole) == (count, whole)
    for most in (300_000, 100_000, 10):
        reading = read(dataset, None, most)
        assert not reading.whole and most <= reading.bytes < most + 1300
        assert len(reading.examples) == round(reading.bytes / 1282)
    found = auditor.audit(auditor.examine(read(dataset, None, 300_000)))
    assert (found.measures["rows_all_read"], found.rows) == (0, 234) and 3.0e5 <= found.measures["bytes_read"] < 3.02e5
    assert "only its first 234 rows (0.3 MiB) were read" in found.reason


def test_hostile_files(auditor: Auditor, target: Target, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    (broken / "data").mkdir(parents=True)
    (broken / "data" / "train.parquet").write_bytes(b"PAR1 this is none PAR1")
    with pytest.raises(DatasetError, match=r"train\.parquet"):
        audit_path(broken, target)
    (broken / "data" / "train.parquet").unlink()
    with pytest.raises(DatasetError, match="no data file"):
        audit_path(broken, target)

    rows: list[object] = [
        {"question": "x" * 300_000 + "?", "choices": ["1", "2"], "answer": "A"},
        {
            "question": " " * 90_000 + "(A) " + "1a" * 40_000,
            "choices": ["1", "2"],
            "answer": 7,
            "solution": "\n" * 90_000,
        },
        {"question": {"a": [{"b": [1] * 5}]}, "choices": "no", "answer": None},
        ["not", "an", "object"],
    ]
    nested = "[" * 100_000 + "]" * 100_000
    path = tmp_path / "hostile.jsonl"
    path.write_text(
        "\n".join(
            [
                *map(json.dumps, rows),
                nested,
                '{"cut": ',
                "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"),
            ]
        )
    )
    started = time.process_time()
    found = audit_path(path, target)
    assert time.process_time() - started < 5
    assert found.verdict == "rejected" and found.rows == 7
    assert severities(found)["unreadable_rows"] == "reject" and severities(found)["too_small"] == "reject"
    assert len(found.model_dump_json()) < 10_000


def test_a_link_out_of_the_folder_is_not_followed(target: Target, tmp_path: Path) -> None:
    (tmp_path / "secret.jsonl").write_text('{"question": "secret"}\n')
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train.jsonl").symlink_to(tmp_path / "secret.jsonl")
    with pytest.raises(DatasetError, match="no data file"):
        open_dataset(folder)
