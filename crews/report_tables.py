"""The report's later sections: what was found, decided, spent, and what is needed to do it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from posttrain_crew.crews import report_html as h
from posttrain_crew.crews.status_view import body_text, duration, percent

__all__ = ["budget", "data", "decisions", "incidents", "literature", "reproducibility", "work"]


def data(report: Mapping[str, Any]) -> h.Html:
    """What the audits found, and the files that were built."""
    profiles = []
    for p in report["data"]["profiles"]:
        defects = h.join(
            f'<li><b class="{h.text(d["severity"])}">{h.text(d["name"])}</b> {h.text(d["value"])} '
            f"<span class='ci'>limit {h.text(d['threshold'])}</span> {h.text(d['detail'])}</li>"
            for d in p["defects"]
        )
        listed = h.Html(f"<ul>{defects}</ul>") if p["defects"] else h.text("none found")
        kind = {"usable": "good", "rejected": "bad"}.get(p["verdict"], "plain")
        verdict = h.badge(p["verdict"].replace("_", " "), kind)
        profiles.append(
            (p["dataset"], p["rows"], p["format"], p["answer_style"], p["licence"], listed, verdict, p["reason"])
        )
    sets = []
    for s in report["data"]["training_sets"]:
        sources = "; ".join(
            f"{x['dataset']}: {x['rows_out']} of {x['rows_in']}"
            + (f" (dropped {', '.join(f'{k} {v}' for k, v in x['dropped'].items())})" if x["dropped"] else "")
            for x in s["sources"]
        )
        c = s["contamination"]
        passed = h.badge("passed", "good") if c["passed"] else h.badge("failed", "bad")
        verdict = h.Html(
            f"{passed} {c['rows_matched']} of {c['rows_checked']} rows matched {c['benchmark_items']} benchmark items"
            + (f", {c['rows_unchecked']} could not be checked" if c.get("rows_unchecked") else "")
        )
        sha = h.Html(f"<code>{h.text(s['sha256'])}</code>")
        sets.append((s["id"], s["method"], s["style"], s["rows"], sources, verdict, sha))
    return h.section(
        "Data",
        h.table(
            ("dataset", "rows", "format", "answers", "licence", "defects, with numbers", "verdict", "reason"),
            profiles,
            "Audits of the candidates.",
        ),
        h.table(
            ("id", "for", "style", "rows", "sources", "contamination", "sha256"), sets, "Training sets that were built."
        ),
    )


def literature(report: Mapping[str, Any]) -> h.Html:
    """Recipes and papers with their arXiv ids."""
    found = report["literature"]
    recipes = h.table(
        ("id", "method", "recipe", "hypothesis", "arXiv", "answers", "prior", "data named"),
        [
            (
                r["id"],
                r["method"],
                r["title"],
                r["hypothesis"],
                ", ".join(r["arxiv_ids"]),
                ", ".join(r["addresses"]),
                r["prior"],
                ", ".join(r["datasets"]),
            )
            for r in found["recipes"]
        ],
        "Recipes with their sources.",
    )
    papers = h.table(
        ("id", "paper", "title", "year", "read in", "reached over", "data"),
        [
            (
                p["id"],
                p["arxiv_id"],
                p["title"],
                p["year"] or "unknown",
                p["source"],
                " > ".join(p["via"]),
                ", ".join(p["datasets"]),
            )
            for p in found["papers"]
        ],
        "Papers read.",
    )
    quoted = [
        (r["id"], e["field"], e["value"], e["arxiv_id"], e["where"], e["text"])
        for r in found["recipes"]
        for e in r["evidence"]
    ]
    evidence = h.table(
        ("recipe", "field", "value", "paper", "place", "text"), quoted, "Where the recipes' values are written."
    )
    return h.section("Literature", recipes, papers, evidence)


def decisions(report: Mapping[str, Any]) -> h.Html:
    """All decisions, what did not work, ablations, diagnoses."""
    head = ("id", "action", "subject", "reason", "rests on")

    def row(d: Mapping[str, Any]) -> tuple[Any, ...]:
        return d["id"], d["action"], d["subject"], d["reason"], ", ".join(d["refs"])

    negative = [
        (e["id"], e["hypothesis"], h.points(e["comparison"]), e["decision"]["reason"])
        for e in report["experiments"]
        if e["decision"] is not None and e["decision"]["action"] in ("discard", "abandon")
    ]
    ablations = [
        (e["id"], e["ablates"], e["hypothesis"], h.score(e["evaluation"]), h.points(e["comparison"]))
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
    return h.section(
        "Decisions and negative results",
        h.paragraph(f"Why the search ended: {report['stop_reason']}" if report["stop_reason"] else ""),
        h.table(head, [row(d) for d in report["decisions"]], "All decisions."),
        h.table(("id", "hypothesis", "points", "why it was dropped"), negative, "Negative results."),
        h.table(("id", "of", "what was left out", "dev score", "points"), ablations, "Ablations."),
        h.table(("id", "cause", "numbers", "advice", "of"), diagnoses, "Diagnoses."),
    )


def incidents(report: Mapping[str, Any]) -> h.Html:
    """What had to be done in another way than planned."""
    rows = [(i["created_at"], i["where"], i["what"], i["instead"]) for i in report["incidents"]]
    if not rows:
        return h.section("Incidents", h.paragraph("None: nothing had to be done in another way than planned."))
    return h.section("Incidents", h.table(("when", "where", "what", "done instead"), rows))


def work(report: Mapping[str, Any]) -> h.Html:
    """What the coordinator asked of whom."""
    rows = []
    for order in report["work"]:
        done = order["outcome"]
        how = "no result (interrupted)" if done is None else body_text(done, "work_result")
        rows.append(
            (order["id"], order["specialist"], order["objective"], how, duration(done["wall_s"]) if done else None)
        )
    return h.section("Work orders", h.table(("id", "to", "objective", "result", "time"), rows))


def budget(report: Mapping[str, Any]) -> h.Html:
    """What was reserved and used."""
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
    return h.section("Budget", h.table(("what", "used"), rows))


def reproducibility(report: Mapping[str, Any]) -> h.Html:
    """The log's own check, the manifest, the command."""
    board = report["blackboard"]
    if board["verified"]:
        state = f"Blackboard: {board['entries']} entries, hash chain verified, head {board['head'] or '-'}."
        check = h.paragraph(state, "ok")
    else:
        check = h.paragraph(f"The blackboard does not verify: {board['problem']}", "problem")
    manifest = report["manifest"]
    shown = (
        h.details("manifest.json: versions, seeds, commands, hashes", manifest)
        if manifest
        else h.paragraph("No manifest yet.")
    )
    sets = [s["sha256"] for s in report["data"]["training_sets"]]
    again = (
        f"crew run posttrain --target {report['summary']['target']} --model {report['asked'].get('base_model')} "
        f"--llm {report['asked'].get('llm')} --hours {report['asked'].get('hours')} "
        f"--seed {report['asked'].get('seed')}"
    )
    command = h.Html(f"<pre>{h.text(again)}</pre>") if report["asked"] else h.Html("")
    return h.section(
        "Reproducibility", check, command, shown, h.details("hashes of the training sets", sets) if sets else ""
    )
