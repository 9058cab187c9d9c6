"""report.html: one file that needs nothing else. Every text from outside is escaped; the page allows no script."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from posttrain_crew.crews import plots
from posttrain_crew.crews.report_style import STYLE
from posttrain_crew.crews.status_view import body_text, duration, percent

__all__ = ["page"]

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


class _Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def _text(value: Any) -> _Html:
    if isinstance(value, _Html):
        return value
    if value is None or value == "":
        return _Html("–")
    if isinstance(value, float):
        return _Html(f"{value:.4g}")
    return _Html(escape(str(value), quote=True))


def _join(parts: Iterable[str]) -> _Html:
    return _Html("".join(parts))


def _table(head: Iterable[str], rows: Iterable[Iterable[Any]], caption: str = "") -> _Html:
    body = [_join(["<tr>", *(f"<td>{_text(cell)}</td>" for cell in row), "</tr>\n"]) for row in rows]
    if not body:
        return _Html("")
    top = "".join(f'<th scope="col">{_text(name)}</th>' for name in head)
    named = f"<caption>{_text(caption)}</caption>" if caption else ""
    return _Html(
        f'<div class="scroll"><table>{named}<thead><tr>{top}</tr></thead><tbody>\n{"".join(body)}</tbody></table></div>'
    )


def _section(title: str, *parts: str) -> _Html:
    filled = [part for part in parts if part]
    anchor = title.lower().replace(" ", "-").replace(",", "")
    content = "\n".join(filled) or '<p class="none">Nothing on record.</p>'
    return _Html(f'<section id="{anchor}"><h2>{_text(title)}</h2>\n{content}</section>\n')


def _figure(svg: str | None, caption: str) -> _Html:
    if svg is None:
        return _Html("")
    return _Html(f"<figure>{svg}<figcaption>{_text(caption)}</figcaption></figure>")


def _p(value: Any, kind: str = "") -> _Html:
    css = f' class="{kind}"' if kind else ""
    return _Html(f"<p{css}>{_text(value)}</p>") if value else _Html("")


def _badge(text: str, kind: str) -> _Html:
    return _Html(f'<span class="badge {kind}">{_text(text)}</span>')


def _details(title: str, value: Any) -> _Html:
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return _Html(f"<details><summary>{_text(title)}</summary><pre>{_text(text)}</pre></details>")


def _score(part: Mapping[str, Any] | None, prefix: str = "") -> _Html:
    if part is None:
        return _text(None)
    low, high = percent(part[f"{prefix}ci_low"]), percent(part[f"{prefix}ci_high"])
    return _Html(f'{percent(part[f"{prefix}score"])} <span class="ci">{low} to {high}</span>')


def _points(comparison: Mapping[str, Any] | None) -> _Html:
    if comparison is None:
        return _text(None)
    low, high = comparison["ci_low"] * 100, comparison["ci_high"] * 100
    return _Html(
        f'{comparison["delta"] * 100:+.1f} <span class="ci">{low:+.1f} to {high:+.1f}, p = '
        f"{comparison['p_value']:.2g}</span>"
    )


def page(report: Mapping[str, Any]) -> str:
    """The whole page."""
    title = f"{report['run']}: {report['summary']['target'] or 'a run'}"
    sections = [
        _head(report),
        _test(report),
        _scores(report),
        _experiments(report),
        _time(report),
        _data(report),
        _literature(report),
        _decisions(report),
        _incidents(report),
        _work(report),
        _budget(report),
        _reproducibility(report),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">\n'
        f"<title>{_text(title)}</title>\n<style>{STYLE}</style></head>\n<body><main>\n{''.join(sections)}"
        f"<footer>Written by crew {_text(report['crew'])} at {_text(report['written_at'])}. The same content for "
        "programs: report.json.</footer></main></body></html>\n"
    )


def _head(report: Mapping[str, Any]) -> _Html:
    summary, asked = report["summary"], report["asked"]
    verdict = report["verdict"]
    kind = {"improved": "good", "no significant gain": "plain"}.get(verdict or "", "open")
    tiles = [
        ("base", _score(summary["base"]), summary["base"]),
        ("final" if verdict else "best so far", _score(summary["final"]), summary["final"]),
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
            f'<span class="value">{_points(summary["comparison"])}</span></div>'
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
    listed = "".join(f"<div><dt>{_text(name)}</dt><dd>{_text(value)}</dd></div>" for name, value in facts)
    return _Html(
        f"<header><p class='over'>{_text(report['run'])}</p><h1>{_text(summary['target'] or 'run')} "
        f"{_badge(verdict or 'not finished', kind)}</h1>"
        f"<p class='verdict'>{_text(report['verdict_sentence'])}</p>"
        f"{_p(report['verdict_reason'], 'reason')}"
        f'<div class="cards">{"".join(cards)}</div><dl class="facts">{listed}</dl></header>\n'
    )


def _test(report: Mapping[str, Any]) -> _Html:
    test = report["test"]
    evaluations = _table(
        ("model", "strict score", "lenient score", "format valid", "right if valid", "n", "harness"),
        [
            (
                subject,
                _score(e),
                _score(e, "lenient_"),
                percent(e["format_valid_rate"]),
                percent(e["accuracy_given_valid"]),
                e["n"],
                e["harness"],
            )
            for subject, e in test["evaluations"].items()
        ],
    )
    comparisons = _table(
        ("candidate", "against", "metric", "points", "right only now", "right only before", "n"),
        [
            (c["candidate"], c["reference"], c["metric"], _points(c), c["gained"], c["lost"], c["n"])
            for c in test["comparisons"]
        ],
        "Paired on the same items: exact two-sided McNemar test, 95 % paired bootstrap interval.",
    )
    looks = "; ".join(f"{look['created_at']}: {', '.join(look['subjects'])} ({look['purpose']})" for look in test["looks"])
    note = f"Looks at the test split: {looks}." if looks else "The test split has not been looked at."
    return _section("Test", evaluations, comparisons, _p(note))


def _scores(report: Mapping[str, Any]) -> _Html:
    caption = (
        "Strict dev score with 95 % Wilson intervals. Diamonds were promoted, the dashed line is the baseline. "
        "Dev chooses the model, so the best dev score flatters it."
    )
    rows = [
        (name, _score(e), _score(e, "lenient_"), percent(e["format_valid_rate"]), e["few_shot"], e["n"])
        for name, e in (("base, zero-shot", report["baseline"]), ("base, few-shot", report["few_shot"]))
        if e is not None
    ]
    table = _table(("reference", "strict", "lenient", "format valid", "examples in the prompt", "n"), rows)
    return _section(
        "Scores and curves",
        _figure(plots.scores(report), caption),
        table,
        _figure(plots.curves(report, "loss"), "Training loss by step."),
        _figure(plots.curves(report, "reward"), "Mean reward by step (GRPO)."),
    )


def _experiments(report: Mapping[str, Any]) -> _Html:
    rows, details = [], []
    for e in report["experiments"]:
        mark = _badge("promoted", "good") if e["promoted"] else _text(e["decision"]["action"] if e["decision"] else e["stage"])
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
                _score(e["evaluation"]),
                _points(e["comparison"]),
                ended,
                mark,
            )
        )
        shown = {name: e[name] for name in ("config", "training_set", "recipe", "seed", "attempts", "diagnosis")}
        details.append(_details(f"{e['id']}: configuration and diagnosis", shown))
    head = ("id", "from", "method", "purpose", "hypothesis", "dev score", "against the best then", "job", "decision")
    return _section(
        "Experiments",
        _figure(plots.tree(report), "Each experiment starts from its parent's checkpoint. Green: promoted; red: failed."),
        _table(head, rows),
        *details,
    )


def _time(report: Mapping[str, Any]) -> _Html:
    time = report["time"]
    if not time["seconds"]:
        return _section("Where the time went")
    pieces = [
        f'<span style="width:{share * 100:.3f}%;background:{plots.ACTIVITY[name]}"></span>'
        for name, share in time["shares"].items()
    ]
    keys = _table(
        ("", "time", "share of the wall clock"),
        [
            (
                _Html(f'<i class="key" style="background:{plots.ACTIVITY[name]}"></i> {plots.ACTIVITY_NAMES[name]}'),
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
    return _section(
        "Where the time went", stack, keys, _p(note), _figure(plots.time_line(report), "Who was at work when.")
    )


def _data(report: Mapping[str, Any]) -> _Html:
    profiles = []
    for p in report["data"]["profiles"]:
        defects = _join(
            f'<li><b class="{_text(d["severity"])}">{_text(d["name"])}</b> {_text(d["value"])} '
            f"<span class='ci'>limit {_text(d['threshold'])}</span> {_text(d['detail'])}</li>"
            for d in p["defects"]
        )
        listed = _Html(f"<ul>{defects}</ul>") if p["defects"] else _text("none found")
        kind = {"usable": "good", "rejected": "bad"}.get(p["verdict"], "plain")
        verdict = _badge(p["verdict"].replace("_", " "), kind)
        profiles.append((p["dataset"], p["rows"], p["format"], p["answer_style"], p["licence"], listed, verdict, p["reason"]))
    sets = []
    for s in report["data"]["training_sets"]:
        sources = "; ".join(
            f"{x['dataset']}: {x['rows_out']} of {x['rows_in']}"
            + (f" (dropped {', '.join(f'{k} {v}' for k, v in x['dropped'].items())})" if x["dropped"] else "")
            for x in s["sources"]
        )
        c = s["contamination"]
        passed = _badge("passed", "good") if c["passed"] else _badge("failed", "bad")
        verdict = _Html(
            f"{passed} {c['rows_matched']} of {c['rows_checked']} rows matched {c['benchmark_items']} benchmark items"
        )
        sha = _Html(f"<code>{_text(s['sha256'])}</code>")
        sets.append((s["id"], s["method"], s["style"], s["rows"], sources, verdict, sha))
    return _section(
        "Data",
        _table(
            ("dataset", "rows", "format", "answers", "licence", "defects, with numbers", "verdict", "reason"),
            profiles,
            "Audits of the candidates.",
        ),
        _table(
            ("id", "for", "style", "rows", "sources", "contamination", "sha256"), sets, "Training sets that were built."
        ),
    )


def _literature(report: Mapping[str, Any]) -> _Html:
    found = report["literature"]
    recipes = _table(
        ("id", "method", "recipe", "hypothesis", "arXiv", "answers", "prior"),
        [
            (r["id"], r["method"], r["title"], r["hypothesis"], ", ".join(r["arxiv_ids"]), ", ".join(r["addresses"]), r["prior"])
            for r in found["recipes"]
        ],
        "Recipes with their sources.",
    )
    papers = _table(
        ("id", "arXiv", "title", "year", "read in"),
        [(p["id"], p["arxiv_id"], p["title"], p["year"], p["source"]) for p in found["papers"]],
        "Papers read.",
    )
    return _section("Literature", recipes, papers)


def _decisions(report: Mapping[str, Any]) -> _Html:
    head = ("id", "action", "subject", "reason", "rests on")

    def row(d: Mapping[str, Any]) -> tuple[Any, ...]:
        return d["id"], d["action"], d["subject"], d["reason"], ", ".join(d["refs"])

    negative = [
        (e["id"], e["hypothesis"], _points(e["comparison"]), e["decision"]["reason"])
        for e in report["experiments"]
        if e["decision"] is not None and e["decision"]["action"] in ("discard", "abandon")
    ]
    ablations = [
        (e["id"], e["ablates"], e["hypothesis"], _score(e["evaluation"]), _points(e["comparison"]))
        for e in report["experiments"]
        if e["purpose"] == "ablation"
    ]
    diagnoses = [
        (
            d["id"],
            d["cause"],
            "; ".join(f"{x['metric']} {x['value']:.4g} at step {x['step']}" for x in d["evidence"]),
            d["advice"],
            ", ".join(d["refs"]),
        )
        for d in report["diagnoses"]
    ]
    return _section(
        "Decisions and negative results",
        _p(f"Why the search ended: {report['stop_reason']}" if report["stop_reason"] else ""),
        _table(head, [row(d) for d in report["decisions"]], "All decisions."),
        _table(("id", "hypothesis", "points", "why it was dropped"), negative, "Negative results."),
        _table(("id", "of", "what was left out", "dev score", "points"), ablations, "Ablations."),
        _table(("id", "cause", "numbers", "advice", "of"), diagnoses, "Diagnoses."),
    )


def _incidents(report: Mapping[str, Any]) -> _Html:
    rows = [(i["created_at"], i["where"], i["what"], i["instead"]) for i in report["incidents"]]
    if not rows:
        return _section("Incidents", _p("None: nothing had to be done in another way than planned."))
    return _section("Incidents", _table(("when", "where", "what", "done instead"), rows))


def _work(report: Mapping[str, Any]) -> _Html:
    rows = []
    for order in report["work"]:
        done = order["outcome"]
        how = "no result (interrupted)" if done is None else body_text(done, "work_result")
        rows.append((order["id"], order["specialist"], order["objective"], how, duration(done["wall_s"]) if done else None))
    return _section("Work orders", _table(("id", "to", "objective", "result", "time"), rows))


def _budget(report: Mapping[str, Any]) -> _Html:
    b = report["budget"]
    hours = "no limit on record" if b["hours"] is None else f"{b['used_hours']:.3f} of {b['hours']:g}"
    rows = [
        ("wall-clock hours", hours),
        ("kept for the final evaluation", percent(b["kept_for_the_end"], 0)),
        ("seconds of jobs, summed", f"{b['job_seconds']:.0f}"),
        ("US dollars", f"{b['usd']:.4f}"),
        ("LLM tokens", b["tokens"]),
        ("reservations", b["reserved"]),
        ("not settled", ", ".join(b["not_settled"]) or "none"),
    ]
    return _section("Budget", _table(("what", "used"), rows))


def _reproducibility(report: Mapping[str, Any]) -> _Html:
    board = report["blackboard"]
    if board["verified"]:
        state = f"Blackboard: {board['entries']} entries, hash chain verified, head {board['head'] or '-'}."
        check = _p(state, "ok")
    else:
        check = _p(f"The blackboard does not verify: {board['problem']}", "problem")
    manifest = report["manifest"]
    shown = _details("manifest.json: versions, seeds, commands, hashes", manifest) if manifest else _p("No manifest yet.")
    sets = [s["sha256"] for s in report["data"]["training_sets"]]
    again = (
        f"crew run posttrain --target {report['summary']['target']} --model {report['asked'].get('base_model')} "
        f"--llm {report['asked'].get('llm')} --hours {report['asked'].get('hours')} --seed {report['asked'].get('seed')}"
    )
    command = _Html(f"<pre>{_text(again)}</pre>") if report["asked"] else _Html("")
    return _section("Reproducibility", check, command, shown, _details("hashes of the training sets", sets) if sets else "")
