"""The report tells what is on the blackboard, says no more than that, and is safe to open."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from posttrain_crew.crews.report import collect, write_report
from posttrain_crew.crews.report_time import time_spent

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Balanced(HTMLParser):
    """Complains about tags that do not close in order; collects texts, addresses and ids."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "action") and value:
                self.links.append(value)
            if name == "id" and value:
                self.ids.append(value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parsed(path: Path) -> Balanced:
    parser = Balanced()
    parser.feed(path.read_text())
    parser.close()
    assert parser.open == []
    return parser


def test_report_json_holds_the_result(finished: Any) -> None:
    report = write_report(finished.run, finished.board)
    assert report == json.loads(finished.run.report_json.read_text())
    summary = report["summary"]
    assert summary["verdict"] == "improved"
    assert (summary["base"]["score"], summary["base"]["n"], summary["base"]["split"]) == (0.1317, 600, "test")
    assert summary["base"]["ci_low"] == pytest.approx(0.1017)
    assert summary["final"]["score"] == 0.8117
    assert summary["comparison"]["delta"] == pytest.approx(0.68)
    assert (summary["experiments"], summary["test_evaluations"]) == (4, 2)
    assert "13.2 %" in report["verdict_sentence"]
    assert "+68.0 points" in report["verdict_sentence"]
    marks = {e["id"]: (e["promoted"], e["final"], e["stage"]) for e in report["experiments"]}
    assert marks == {
        "exp-1": (True, False, "decided"),
        "exp-2": (False, False, "decided"),
        "exp-3": (False, False, "decided"),
        "exp-4": (True, True, "decided"),
    }
    assert set(report["curves"]["exp-4"]) == {"reward"}
    assert len(report["curves"]["exp-1"]["loss"]) == 60
    assert report["blackboard"]["verified"]
    assert report["blackboard"]["entries"] == len(finished.board.since())


def test_page_is_well_formed_and_asks_for_nothing(finished: Any) -> None:
    write_report(finished.run, finished.board)
    page = parsed(finished.run.report_html)
    assert [link for link in page.links if not link.startswith(("#", "data:"))] == []
    assert len(page.ids) == len(set(page.ids)), "two elements share an id"
    text = " ".join(page.text)
    for wanted in ("81.2 %", "0.3017", "2402.03300", "DeepSeekMath", "b" * 64, "arXiv is down", "diverged", "1.5e-30"):
        assert wanted in text
    html = finished.run.report_html.read_text()
    assert html.count("<svg ") == 5
    assert html.count('role="img" aria-label="') == 6, "each picture and the bar have a text for screen readers"
    assert "#010203" not in html


def test_markup_in_a_dataset_name_stays_text(finished: Any) -> None:
    write_report(finished.run, finished.board)
    page = parsed(finished.run.report_html)
    assert "script" not in page.tags
    assert "<script>alert('x')</script>" in "".join(page.text)


def test_run_without_experiments_has_a_report(maker: Any) -> None:
    maker.begin()
    report = write_report(maker.run, maker.board)
    assert report["verdict_sentence"].startswith("Not finished")
    assert report["summary"]["base"] is None
    parsed(maker.run.report_html)


def test_a_target_that_was_given_as_a_file_is_titled_by_its_name(maker: Any) -> None:
    maker.begin(target="/home/me/targets/small.yaml")
    report = write_report(maker.run, maker.board)
    html = maker.run.report_html.read_text()
    assert "<h1>small " in html
    assert report["summary"]["target"] == "/home/me/targets/small.yaml", "the command to repeat the run needs the path"


def test_empty_board_has_a_report(maker: Any) -> None:
    report = write_report(maker.run, maker.board)
    assert report["experiments"] == []
    parsed(maker.run.report_html)


def test_unfinished_run_is_not_called_improved(maker: Any) -> None:
    maker.begin()
    maker.baseline()
    maker.research()
    maker.experiment(0.55, action="promote")
    report = collect(maker.run, maker.board)
    assert report["verdict"] is None
    assert report["summary"]["final"]["split"] == "dev"
    assert "flatters" in report["verdict_sentence"]


def test_no_promotion_gives_the_reason(maker: Any) -> None:
    from posttrain_crew.entries import Decision

    maker.begin()
    maker.baseline()
    maker.research()
    maker.experiment(0.12, action="discard")
    reject = Decision(action="reject", subject="base", reason="No experiment beat the base on dev.")
    maker.board.post(reject, author="crew", refs=[maker.ids["base-dev"]], status="decision")
    report = write_report(maker.run, maker.board)
    assert report["verdict"] == "no significant gain"
    assert report["verdict_sentence"] == "No significant gain. No experiment beat the base on dev."


def test_changed_blackboard_is_reported_as_such(finished: Any) -> None:
    finished.board.close()
    with sqlite3.connect(finished.run.blackboard) as database:
        database.execute("DROP TRIGGER entries_no_update")
        database.execute("UPDATE entries SET author = 'someone' WHERE seq = 5")
    report = write_report(finished.run, finished.board)
    assert not report["blackboard"]["verified"]
    assert "chain breaks at entry 5" in " ".join(parsed(finished.run.report_html).text)


def test_every_second_is_counted_once(finished: Any) -> None:
    time = time_spent(finished.board, finished.run.root)
    assert sum(time["seconds"].values()) == pytest.approx(time["wall_s"], abs=0.01)
    assert sum(time["shares"].values()) == pytest.approx(1.0, abs=0.001)
    assert time["seconds"]["train"] >= 0.12
    assert time["seconds"]["evaluate"] >= 0.15
    assert time["seconds"]["agents"] >= 0.02
    outside = 1 - time["shares"]["train"] - time["shares"]["evaluate"]
    assert time["outside_jobs_share"] == pytest.approx(outside, abs=0.001)


def test_time_between_sessions_does_not_count(maker: Any) -> None:
    import time as clock

    from posttrain_crew.entries import SessionStarted

    maker.begin()
    maker.baseline()
    clock.sleep(0.5)  # the run is dead for this long
    maker.board.post(SessionStarted(pid=2, host="here", resumed=True), author="crew")
    maker.research()
    spent = time_spent(maker.board, maker.run.root)
    assert spent["sessions"] == 2
    assert spent["wall_s"] < 0.45


@pytest.mark.slow
def test_opens_in_a_browser_without_complaint(finished: Any, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine (apt-get install chromium)")
    write_report(finished.run, finished.board)
    picture = tmp_path / "report.png"
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--enable-logging=stderr",
        "--window-size=1200,5200",
    ]
    done = subprocess.run(
        [
            browser,
            *flags,
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--screenshot={picture}",
            finished.run.report_html.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.findall(r".*CONSOLE.*", done.stderr) == []
    assert picture.stat().st_size > 50_000
