"""The report's pictures as inline SVG, drawn with matplotlib.

Text and axes are drawn in a marker colour that becomes `currentColor`, so that a picture follows the page's light or
dark scheme. Labels are ids and numbers that crew made; text that came from outside never enters a picture.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from posttrain_crew.crews.status_view import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["curves", "scores", "time_line", "tree"]

INK = "#010203"
"""Becomes currentColor."""
PROMOTED, PLAIN, BASE, FAILED = "#1a9c6b", "#5b7fd1", "#c07a1e", "#c8504b"
ACTIVITY = {"train": "#5b7fd1", "evaluate": "#1a9c6b", "check": "#b08fd8", "agents": "#e0a03c", "other": "#9aa0a6"}
ACTIVITY_NAMES = {
    "train": "training jobs",
    "evaluate": "evaluation jobs",
    "check": "smoke runs and probes",
    "agents": "agents at work",
    "other": "everything else",
}


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _bare(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(INK)
        axes.spines[side].set_alpha(0.4)
    axes.tick_params(colors=INK, labelsize=9)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    axes.grid(axis="y", color=INK, alpha=0.12, linewidth=0.8)
    axes.set_axisbelow(True)


def _svg(figure: Figure, name: str, alt: str) -> str:
    """The figure as an `<svg>` element that a screen reader can name."""
    import matplotlib

    out = io.StringIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    # the salt keeps the ids of several pictures on one page apart, and the same run gives the same bytes
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif"}):
        figure.savefig(out, format="svg", transparent=True, metadata=nothing)
    text = out.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    text = re.sub(r'xlink:href="#([^"]+)"', rf'xlink:href="#{name}-\1"', text)
    text = re.sub(r"font: ([^;\"]*?)'[^;\"]*sans-serif", r"font: \1system-ui, sans-serif", text)
    label = escape(alt, quote=True)
    return text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1).strip()


def scores(report: Mapping[str, Any]) -> str | None:
    """Dev score of the baseline and of each experiment with its 95 % interval; None without any."""
    baseline = report["baseline"]
    rows: list[tuple[str, Mapping[str, Any], str]] = []
    if baseline is not None:
        rows.append(("base", baseline, BASE))
    for experiment in report["experiments"]:
        if experiment["evaluation"] is not None:
            rows.append((experiment["id"], experiment["evaluation"], PROMOTED if experiment["promoted"] else PLAIN))
    if not rows:
        return None
    figure, axes = _figure(max(6.0, min(12.0, 1.6 + 0.75 * len(rows))), 3.4)
    for position, (_name, score, colour) in enumerate(rows):
        value = score["score"] * 100
        error = [[value - score["ci_low"] * 100], [score["ci_high"] * 100 - value]]
        marker = "D" if colour == PROMOTED else "s" if colour == BASE else "o"
        axes.errorbar(
            position, value, yerr=[[max(0.0, e[0])] for e in error], fmt=marker, color=colour, capsize=4, markersize=7
        )
        axes.annotate(
            f"{value:.1f}", (position, value), xytext=(9, 3), textcoords="offset points", color=INK, fontsize=9
        )
    if baseline is not None:
        axes.axhline(baseline["score"] * 100, color=BASE, linestyle="--", linewidth=1, alpha=0.7)
    axes.set_xticks(range(len(rows)), [name for name, _score, _colour in rows])
    if len(rows) > 10:
        axes.tick_params(axis="x", labelrotation=45)
    axes.set_xlim(-0.5, len(rows) - 0.2)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("strict dev score, %")
    _bare(axes)
    alt = "Dev score by experiment with 95 % intervals: " + "; ".join(
        f"{name} {percent(score['score'])}{' (promoted)' if colour == PROMOTED else ''}" for name, score, colour in rows
    )
    return _svg(figure, "scores", alt)


def curves(report: Mapping[str, Any], metric: str) -> str | None:
    """`loss` or `reward` by step of every experiment that has it; None without any."""
    from matplotlib import colormaps

    drawn = {name: found[metric] for name, found in report["curves"].items() if found.get(metric)}
    if not drawn:
        return None
    figure, axes = _figure(6.4, 3.2)
    palette = colormaps["tab10"]
    for number, (name, points) in enumerate(drawn.items()):
        steps, values = [p[0] for p in points], [p[1] for p in points]
        colour = palette(number % 10)
        if len(values) > 30:
            axes.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8)
            values = _smoothed(values)
        style = "-" if number < 10 else "--"
        axes.plot(steps, values, color=colour, label=name, linewidth=1.7, linestyle=style)
    axes.set_xlabel("step")
    axes.set_ylabel(metric)
    axes.legend(frameon=False, fontsize=8, labelcolor=INK, ncols=2 if len(drawn) > 6 else 1)
    _bare(axes)
    ends = "; ".join(f"{name} from {points[0][1]:.3g} to {points[-1][1]:.3g}" for name, points in drawn.items())
    return _svg(figure, metric, f"{metric} by training step: {ends}")


def _smoothed(values: Sequence[float]) -> list[float]:
    """Exponential mean without the bias of its start."""
    weight = 1 - 2 / (max(3, len(values) // 20) + 1)
    mean, norm, found = 0.0, 0.0, []
    for value in values:
        mean = weight * mean + (1 - weight) * value
        norm = weight * norm + (1 - weight)
        found.append(mean / norm)
    return found


def tree(report: Mapping[str, Any]) -> str | None:
    """The experiments as a tree from the base model, left to right; None without any."""
    experiments = {e["id"]: e for e in report["experiments"]}
    if not experiments:
        return None
    children: dict[str, list[str]] = {}
    for name, experiment in experiments.items():
        parent = experiment["parent"] if experiment["parent"] in experiments else "base"
        children.setdefault(parent, []).append(name)
    places: dict[str, tuple[float, float]] = {}
    next_row = 0.0

    def place(name: str, depth: int) -> float:
        nonlocal next_row
        rows = [place(child, depth + 1) for child in children.get(name, [])]
        if rows:
            row = (rows[0] + rows[-1]) / 2
        else:
            row, next_row = next_row, next_row + 1
        places[name] = (float(depth), row)
        return row

    place("base", 0)
    depth = max(x for x, _y in places.values())
    figure, axes = _figure(max(6.0, min(14.0, 2.6 * (depth + 1))), max(1.6, 0.62 * next_row + 0.4))
    for parent, names in children.items():
        for name in names:
            (x0, y0), (x1, y1) = places[parent], places[name]
            mid = (x0 + x1) / 2
            axes.plot([x0, mid, mid, x1], [y0, y0, y1, y1], color=INK, alpha=0.35, linewidth=1.1, zorder=1)
    for name, (x, y) in places.items():
        label, colour = _node(name, experiments, report["baseline"])
        axes.text(
            x,
            y,
            label,
            ha="center",
            va="center",
            fontsize=8.5,
            color="white",
            zorder=2,
            parse_math=False,
            bbox={"boxstyle": "round,pad=0.4", "facecolor": colour, "edgecolor": "none"},
        )
    axes.set_xlim(-0.55, depth + 0.55)
    axes.set_ylim(next_row - 0.4, -0.6)
    axes.axis("off")
    alt = "Experiment tree: " + "; ".join(
        f"{name} ({experiments[name]['method']}) from {experiments[name]['parent']}" for name in experiments
    )
    return _svg(figure, "tree", alt)


def _node(
    name: str, experiments: Mapping[str, Mapping[str, Any]], baseline: Mapping[str, Any] | None
) -> tuple[str, str]:
    if name == "base":
        return ("base" if baseline is None else f"base  {percent(baseline['score'])}"), "#8a5a12"
    experiment = experiments[name]
    score = experiment["evaluation"]
    outcome = experiment["outcome"]
    failed = outcome is not None and not outcome["ok"]
    value = percent(score["score"]) if score is not None else "failed" if failed else experiment["stage"]
    kind = " ablation" if experiment["purpose"] == "ablation" else ""
    colour = "#12724e" if experiment["promoted"] else "#a83a36" if failed else "#44609f"
    return f"{name}  {experiment['method'].upper()}{kind}\n{value}", colour


def time_line(report: Mapping[str, Any]) -> str | None:
    """One lane per activity over the run's clock; None for a run without any."""
    time = report["time"]
    if not time["spans"] or time["wall_s"] <= 0:
        return None
    unit, name = (60.0, "minutes") if time["wall_s"] >= 180 else (1.0, "seconds")
    lanes = [a for a in ("train", "evaluate", "check", "agents") if any(s["activity"] == a for s in time["spans"])]
    figure, axes = _figure(9.0, 0.7 + 0.45 * len(lanes))
    for span in time["spans"]:
        axes.barh(
            lanes.index(span["activity"]),
            max((span["end_s"] - span["start_s"]) / unit, time["wall_s"] / unit / 800),
            left=span["start_s"] / unit,
            height=0.6,
            color=ACTIVITY[span["activity"]],
            edgecolor="none",
            alpha=0.85,
        )
    axes.set_yticks(range(len(lanes)), [ACTIVITY_NAMES[lane] for lane in lanes])
    axes.set_xlim(0, time["wall_s"] / unit)
    axes.invert_yaxis()
    axes.set_xlabel(name)
    _bare(axes)
    axes.grid(visible=False)
    parts = "; ".join(f"{ACTIVITY_NAMES[k]} {v:.0%}" for k, v in time["shares"].items())
    return _svg(figure, "time", f"Who was at work when. Shares of the wall-clock time: {parts}")
