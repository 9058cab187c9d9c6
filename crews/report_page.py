"""report.html: one file that needs nothing else. Every text from outside is escaped; the page allows no script."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from posttrain_crew.crews import plots
from posttrain_crew.crews import report_html as h
from posttrain_crew.crews import report_tables as tables
from posttrain_crew.crews.report_style import STYLE
from posttrain_crew.crews.status_view import duration, percent

__all__ = ["page"]

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


def _target_name(report: Mapping[str, Any]) -> str:
    given = str(report["summary"]["target"] or "a run")
    return Path(given).stem if given.endswith((".yaml", ".yml")) else given  # a target of the user's is given as a path


def page(report: Mapping[str, Any]) -> str:
    """The whole page."""
    title = f"{report['run']}: {_target_name(report)}"
    sections = [
        _head(report),
        _test(report),
        _scores(report),
        _experiments(report),
        _time(report),
        tables.data(report),
        tables.literature(report),
        tables.decisions(report),
        tables.incidents(report),
        tables.work(report),
        tables.budget(report),
        tables.reproducibility(report),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">\n'
        f"<title>{h.text(title)}</title>\n<style>{STYLE}</style></head>\n<body><main>\n{''.join(sections)}"
        f"<footer>Written by crew {h.text(report['crew'])} at {h.text(report['written_at'])}. The same content for "
        "programs: report.json.</footer></main></body></html>\n"
    )


def _head(report: Mapping[str, Any]) -> h.Html:
    summary, asked = report["summary"], report["asked"]
    verdict = report["verdict"]
    kind = {"improved": "good", "no significant gain": "plain"}.get(verdict or "", "open")
    tiles = [
        ("base", h.score(summary["base"]), summary["base"]),
        ("final" if verdict else "best so far", h.score(summary["final"]), summary["final"]),
    ]
    cards = [
        f'<div class="card"><span class="label">{name}, {part["split"]}, n {part["n"]}</span>'
        f'<span class="value">{shown}</span></div>'
        for name, shown, part in tiles
        if part is not None
    ]
    if summary["comparison"] is not None:
        cards.append(
            '<div class="card"><span class="label">change on test, points</span>'
            f'<span class="value">{h.points(summary["comparison"])}</span></div>'
        )
    cards.append(
        f'<div class="card"><span class="label">looks at test</span><span class="value">'
        f"{len(report['test']['looks'])} <span class='ci'>{summary['test_evaluations']} evaluations</span></span></div>"
    )
    facts = [
        ("base model", asked.get("base_model")),
        ("agents' LLM", asked.get("llm")),
        ("seed", asked.get("seed")),
        ("experiments", summary["experiments"]),
        ("time", duration(summary["wall_s"])),
        ("started", report["started_at"]),
    ]
    listed = "".join(f"<div><dt>{h.text(name)}</dt><dd>{h.text(value)}</dd></div>" for name, value in facts)
    return h.Html(
        f"<header><p class='over'>{h.text(report['run'])}</p><h1>{h.text(_target_name(report))} "
        f"{h.badge(verdict or 'not finished', kind)}</h1>"
        f"<p class='verdict'>{h.text(report['verdict_sentence'])}</p>"
        f"{h.paragraph(report['verdict_reason'], 'reason')}"
        f'<div class="cards">{"".join(cards)}</div><dl class="facts">{listed}</dl></header>\n'
    )


def _test(report: Mapping[str, Any]) -> h.Html:
    test = report["test"]
    evaluations = h.table(
        ("model", "strict score", "lenient score", "format valid", "right if valid", "n", "harness"),
        [
            (
                subject,
                h.score(e),
                h.score(e, "lenient_"),
                percent(e["format_valid_rate"]),
                percent(e["accuracy_given_valid"]),
                e["n"],
                e["harness"],
            )
            for subject, e in test["evaluations"].items()
        ],
    )
    comparisons = h.table(
        ("candidate", "against", "metric", "points", "right only now", "right only before", "n"),
        [
            (c["candidate"], c["reference"], c["metric"], h.points(c), c["gained"], c["lost"], c["n"])
            for c in test["comparisons"]
        ],
        "Paired on the same items: exact two-sided McNemar test, 95 % paired bootstrap interval.",
    )
    looks = "; ".join(
        f"{look['created_at']}: {', '.join(look['subjects'])} ({look['purpose']})" for look in test["looks"]
    )
    note = f"Looks at the test split: {looks}." if looks else "The test split has not been looked at."
    return h.section("Test", evaluations, comparisons, h.paragraph(note))


def _scores(report: Mapping[str, Any]) -> h.Html:
    caption = (
        "Strict dev score with 95 % Wilson intervals. Diamonds were promoted, the dashed line is the baseline. "
        "Dev chooses the model, so the best dev score flatters it."
    )
    rows = [
        (name, h.score(e), h.score(e, "lenient_"), percent(e["format_valid_rate"]), e["few_shot"], e["n"])
        for name, e in (("base, zero-shot", report["baseline"]), ("base, few-shot", report["few_shot"]))
        if e is not None
    ]
    table = h.table(("reference", "strict", "lenient", "format valid", "examples in the prompt", "n"), rows)
    loss = h.figure(plots.curves(report, "loss"), "Training loss by step; thick lines are smoothed.")
    reward = h.figure(plots.curves(report, "reward"), "Mean reward by step; thick lines are smoothed.")
    return h.section(
        "Scores and curves",
        h.figure(plots.scores(report), caption),
        table,
        h.Html(f'<div class="pair">{loss}{reward}</div>') if loss or reward else "",
    )


def _experiments(report: Mapping[str, Any]) -> h.Html:
    rows, details = [], []
    for e in report["experiments"]:
        mark = (
            h.badge("promoted", "good")
            if e["promoted"]
            else h.text(e["decision"]["action"] if e["decision"] else e["stage"])
        )
        outcome = e["outcome"]
        ended = "–" if outcome is None else duration(outcome["wall_s"])
        if outcome is not None and not outcome["ok"]:
            ended += f", {outcome['error_class']}"
        rows.append(
            (
                e["id"],
                e["parent"],
                e["method"],
                e["purpose"] + (f" of {e['ablates']}" if e["ablates"] else ""),
                e["hypothesis"],
                h.score(e["evaluation"]),
                h.points(e["comparison"]),
                ended,
                mark,
            )
        )
        shown = {name: e[name] for name in ("config", "training_set", "recipe", "seed", "attempts", "diagnosis")}
        details.append(h.details(f"{e['id']}: configuration and diagnosis", shown))
    head = ("id", "from", "method", "purpose", "hypothesis", "dev score", "against the best then", "job", "decision")
    return h.section(
        "Experiments",
        h.figure(
            plots.tree(report), "Each experiment starts from its parent's checkpoint. Green: promoted; red: failed."
        ),
        h.table(head, rows),
        *details,
    )


def _time(report: Mapping[str, Any]) -> h.Html:
    time = report["time"]
    if not time["seconds"]:
        return h.section("Where the time went")
    pieces = [
        f'<span style="width:{share * 100:.3f}%;background:{plots.ACTIVITY[name]}"></span>'
        for name, share in time["shares"].items()
    ]
    keys = h.table(
        ("what", "time", "share of the wall clock"),
        [
            (
                h.Html(f'<i class="key" style="background:{plots.ACTIVITY[name]}"></i> {plots.ACTIVITY_NAMES[name]}'),
                duration(seconds),
                percent(time["shares"][name]),
            )
            for name, seconds in time["seconds"].items()
        ],
    )
    note = (
        f"{duration(time['wall_s'])} in {time['sessions']} session(s). "
        f"{percent(time['outside_jobs_share'])} of it passed outside training and evaluation jobs. A moment at which "
        "several were at work counts once, for the first in this list."
    )
    stack = f'<div class="stack" role="img" aria-label="shares of the time, in the table below">{"".join(pieces)}</div>'
    return h.section(
        "Where the time went",
        stack,
        keys,
        h.paragraph(note),
        h.figure(plots.time_line(report), "Who was at work when."),
    )
