"""Text of `crew status`, `crew log` and of an event: plain strings, so that a stranger can read a log file.

Nothing of Rich here: these lines go to files and pipes as well.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from posttrain_crew.blackboard import Entry
    from posttrain_crew.entries import EntryBody

__all__ = ["bar", "duration", "entry_line", "one_line", "percent", "plain_line", "status_lines", "summary_lines"]


def percent(value: Any, digits: int = 1) -> str:
    """`0.1234` as `12.3 %`; `-` for what is no number."""
    return f"{value * 100:.{digits}f} %" if isinstance(value, int | float) else "-"


def duration(seconds: Any) -> str:
    """Seconds as a person says them: `42 s`, `3 min 05 s`, `2 h 10 min`."""
    if not isinstance(seconds, int | float) or seconds != seconds:
        return "-"
    whole = round(max(0.0, seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def one_line(text: Any, width: int = 160) -> str:
    """Text without line breaks and control characters, cut to a width."""
    clean = "".join(c if c.isprintable() else " " for c in str(text))
    clean = " ".join(clean.split())
    return clean if len(clean) <= width else clean[: width - 1] + "…"


def bar(share: float, width: int = 20) -> str:
    """A text bar of a share between 0 and 1."""
    full = round(min(1.0, max(0.0, share)) * width)
    return "█" * full + "░" * (width - full)


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else "-"


def _interval(low: Any, high: Any) -> str:
    if not isinstance(low, int | float) or not isinstance(high, int | float):
        return ""
    return f" (95 % CI {low * 100:.1f} to {high * 100:.1f})"


def job_text(job: Mapping[str, Any]) -> str:
    """One running job: `training exp-2: step 40/200, loss 1.3, 2 min 10 s left`."""
    parts = [f"{_role_word(job.get('role'))} {job.get('subject') or job.get('label')}"]
    if job.get("step") is not None:
        parts.append(f"step {job['step']}/{job['total_steps']}" if job.get("total_steps") else f"step {job['step']}")
    if job.get("value") is not None:
        parts.append(f"{job.get('metric') or 'value'} {_number(job['value'])}")
    if job.get("eta_s") is not None:
        parts.append(f"{duration(job['eta_s'])} left")
    return ", ".join(parts)


def _role_word(role: Any) -> str:
    words = {"train": "training", "evaluate": "evaluating", "smoke": "smoke run of", "probe": "probing"}
    return words.get(str(role), str(role or "job"))


def status_lines(status: Mapping[str, Any]) -> list[str]:
    """What `crew status` prints."""
    state, run = status.get("state"), status.get("run")
    head = f"run {run} on {status.get('target', '?')}: {state}"
    if state == "running":
        head += f" (pid {status.get('pid')}), phase: {status.get('phase', '?')}"
    lines = [head]
    if (baseline := status.get("baseline_score")) is not None:
        lines.append(f"  baseline (dev)  {percent(baseline)}")
    if (score := status.get("best_score")) is not None:
        low, high = (status.get("best_ci") or [None, None])[:2]
        lines.append(f"  best (dev)      {percent(score)}{_interval(low, high)}: {status.get('best')}")
    if status.get("goal") is not None:
        lines.append(f"  goal (dev)      {percent(status['goal'])}")
    if status.get("experiments") is not None:
        lines.append(f"  experiments     {status['experiments']}")
    if state == "running" and status.get("working"):
        lines.append(f"  working         {status['working']}")
    for job in (status.get("running") or []) if state == "running" else []:
        lines.append(f"  job             {one_line(job_text(job))}")
    if status.get("hours"):
        used, total = float(status.get("elapsed_s") or 0.0), float(status["hours"]) * 3600
        lines.append(f"  time            {bar(used / total)} {duration(used)} of {duration(total)}")
    if status.get("verdict"):
        lines.append(f"  verdict         {status['verdict']}")
    if status.get("directory"):
        lines.append(f"  directory       {status['directory']}")
    if state in ("interrupted", "stopped"):
        lines.append(f"  `crew resume {run}` goes on with it.")
    elif state == "finished":
        lines.append(f"  `crew report {run}` writes the report anew.")
    return lines


def plain_line(event: Mapping[str, Any]) -> str | None:
    """One line of text for an event; None for those that only a live view shows."""
    text = _event_text(event)
    if text is None:
        return None
    clock = time.strftime("%H:%M:%S", time.localtime(float(event.get("time") or time.time())))
    return f"{clock} {one_line(text, 400)}"


def _event_text(event: Mapping[str, Any]) -> str | None:
    get = event.get
    match get("event"):
        case "run_started":
            return f"run {get('run', '')} started on {get('target', '?')}" + (
                f" in {get('directory')}" if get("directory") else ""
            )
        case "setup":
            return str(get("message"))
        case "phase":
            return f"phase: {get('phase')}"
        case "order_started":
            return f"{get('specialist')} starts {get('order') or 'an order'}: {get('objective', '')}"
        case "order_ended":
            how = "is done" if get("ok") else f"failed ({get('error') or 'no usable result'})"
            took = f" after {duration(get('wall_s'))}" if get("wall_s") is not None else ""
            said = f": {get('assessment')}" if get("assessment") else ""
            return f"{get('specialist')} {how}{took}{said}"
        case "job_started":
            return f"job {get('label')} started: {_role_word(get('role'))} {get('subject', '')}"
        case "job_queued":
            return f"job {get('label')} waits: {get('reason') or 'every slot is taken'}"
        case "job_progress":
            metric = "reward" if get("reward") is not None else "loss"
            return job_text({**event, "metric": metric, "value": get(metric), "subject": get("label"), "role": "job"})
        case "job_ended":
            how = "ended" if get("ok") else f"failed ({get('error_class') or 'unknown'})"
            return f"job {get('label')} {how} after {duration(get('wall_s'))}"
        case "evaluation":
            score = f"{percent(get('score'))}{_interval(get('ci_low'), get('ci_high'))}"
            shots = f" with {get('few_shot')} examples" if get("few_shot") else ""
            return f"score of {get('subject')} on {get('split')}{shots}: {score}"
        case "decision":
            return f"decision: {get('action')} {get('subject')}: {get('reason', '')}"
        case "incident":
            return f"incident in {get('where')}: {get('what')}. Instead: {get('instead')}"
        case "run_ended":
            return f"run ended: {get('verdict') or get('state') or 'no verdict'}"
        case "tool_call":
            return None
        case None:
            return None
        case other:
            extra = ", ".join(f"{k}={v}" for k, v in event.items() if k not in ("time", "event"))
            return f"{other}: {extra}"


def summary_lines(summary: Mapping[str, Any]) -> list[str]:
    """The end of a run, for people."""
    lines = ["", f"verdict: {summary.get('verdict') or 'none'}"]
    base, final = summary.get("base"), summary.get("final")
    for name, part in (("base", base), ("final", final)):
        if isinstance(part, Mapping):
            interval = _interval(part.get("ci_low"), part.get("ci_high"))
            lines.append(
                f"  {name:<6} {percent(part.get('score'))}{interval} on {part.get('n')} {part.get('split')} items"
            )
    if isinstance(change := summary.get("comparison"), Mapping) and isinstance(change.get("delta"), int | float):
        lines.append(
            f"  change {change['delta'] * 100:+.1f} points{_interval(change.get('ci_low'), change.get('ci_high'))}, "
            f"p = {_number(change.get('p_value'))} (exact McNemar, same items)"
        )
    lines.append(
        f"  {summary.get('experiments', 0)} experiments, {summary.get('test_evaluations', 0)} evaluations on the test "
        f"split, {duration(summary.get('wall_s'))}"
    )
    for name, key in (("model", "final_model"), ("report", "report")):
        if summary.get(key):
            lines.append(f"  {name:<6} {summary[key]}")
    return lines


def entry_line(entry: Entry[EntryBody]) -> str:
    """One line of `crew log`: position, time, id, author, what it says, what it rests on."""
    refs = f" [{', '.join(entry.refs[:6])}{', …' if len(entry.refs) > 6 else ''}]" if entry.refs else ""
    text = one_line(body_text(entry.body.model_dump(mode="json"), entry.kind), 200)
    return f"{entry.seq:>5} {entry.created_at[11:19]} {entry.id:<8} {one_line(entry.author, 14):<12} {text}{refs}"


def body_text(body: Mapping[str, Any], kind: str) -> str:
    """What an entry says, in one sentence."""
    get = body.get
    match kind:
        case "run":
            return f"run on {get('target')}: base {get('base_model')}, llm {get('llm')}, seed {get('seed')}"
        case "session":
            return f"{'resumed' if get('resumed') else 'started'} by pid {get('pid')} on {get('host')}"
        case "work_order":
            return f"order for {get('specialist')}: {get('objective')}"
        case "work_result":
            summary = (get("result") or {}).get("summary") or (get("result") or {}).get("reason") or ""
            how = "delivered" if get("ok") else f"failed: {get('error')}"
            return f"{get('specialist')} {how} {summary}"
        case "paper":
            return f"paper {get('arxiv_id')}: {get('title')} ({get('year')})"
        case "recipe":
            return f"recipe {get('method')}: {get('title')} (arXiv {', '.join(get('arxiv_ids') or [])})"
        case "dataset_profile":
            return f"dataset {get('dataset')}: {get('verdict')}, {get('rows')} rows: {get('reason')}"
        case "training_set":
            return f"training set for {get('method')}: {get('rows')} rows, sha256 {str(get('sha256'))[:12]}"
        case "experiment":
            return f"{get('purpose')} {get('method')} from {get('parent')}: {get('hypothesis')}"
        case "preflight":
            failed = [c["name"] for c in get("checks") or [] if not c["ok"]]
            return "preflight passed" if get("passed") else f"preflight failed: {', '.join(failed)}"
        case "job":
            return f"job {get('label')}: {_role_word(get('role'))} {get('subject')} on {get('backend')}"
        case "job_outcome":
            how = f"ok, {get('steps')} steps" if get("ok") else f"failed ({get('error_class')}): {get('message')}"
            return f"job {get('label')} {how}, {duration(get('wall_s'))}"
        case "diagnosis":
            return f"diagnosis: {get('cause')}: {get('advice')}"
        case "evaluation":
            shots = f", {get('few_shot')} examples" if get("few_shot") else ""
            return (
                f"{get('subject')} on {get('split')}{shots}: {percent(get('score'))}"
                f"{_interval(get('ci_low'), get('ci_high'))}, lenient {percent(get('lenient_score'))}, n {get('n')}"
            )
        case "comparison":
            return (
                f"{get('candidate')} against {get('reference')} on {get('split')} ({get('metric')}): "
                f"{body['delta'] * 100:+.1f} points{_interval(get('ci_low'), get('ci_high'))}, "
                f"p = {_number(get('p_value'))}"
            )
        case "decision":
            return f"{get('action')} {get('subject')}: {get('reason')}"
        case "incident":
            return f"incident in {get('where')}: {get('what')}. Instead: {get('instead')}"
        case _:
            return f"{kind}: " + ", ".join(f"{k} {v}" for k, v in body.items() if v not in (None, [], {}, 0, 0.0, ""))
