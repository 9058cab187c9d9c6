"""The planner's table: known models x methods x machines, as rows and as the Markdown of docs/planner.md.

python -m posttrain_crew.tools.training.plan_table docs/planner.md      writes it between the file's two marks
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from posttrain_crew.entries import Method
from posttrain_crew.errors import InputError
from posttrain_crew.files import atomic_write_text
from posttrain_crew.tools.training.hardware import find_cluster
from posttrain_crew.tools.training.memory import GIB
from posttrain_crew.tools.training.planner import BATCHES, LENGTHS, Plan, plan, usual_request
from posttrain_crew.tools.training.shape import known_shapes

__all__ = ["CLUSTERS", "METHODS", "Row", "markdown", "table", "with_table"]

METHODS: Mapping[str, tuple[Method, str]] = {
    "SFT full": ("sft", "full"),
    "SFT LoRA": ("sft", "lora"),
    "DPO": ("dpo", "full"),
    "GRPO colocate": ("grpo", "full"),
}
CLUSTERS = ("a100-40", "a100-80", "h100", "8xh100")
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"


@dataclass(frozen=True)
class Row:
    """One cell of the table."""

    model: str
    method: str
    cluster: str
    plan: Plan

    def as_dict(self) -> dict[str, object]:
        best = self.plan.best
        return {
            "model": self.model,
            "method": self.method,
            "cluster": self.cluster,
            "fits": best is not None,
            "gib": None if best is None else round(best.memory.gib, 1),
            "host_gib": None if best is None else round(best.host_gib, 1),
            "step_s": None if best is None else round(best.time.total, 2),
            "settings": None if best is None else best.told(),
            "why": self.plan.why,
            "nearest": self.plan.nearest,
        }


def table() -> list[Row]:
    """All rows: 80 plans, about two seconds."""
    return [
        Row(model, name, cluster, plan(usual_request(shape, method, find_cluster(cluster), adapter)))
        for name, (method, adapter) in METHODS.items()
        for model, shape in known_shapes().items()
        for cluster in CLUSTERS
    ]


def markdown() -> str:
    """A Markdown table for each method, and one more with the parts of one example."""
    rows = table()
    blocks = []
    for name, (method, _) in METHODS.items():
        tokens, completion = LENGTHS[method]
        unit = {"sft": "rows", "dpo": "pairs", "grpo": "completions"}[method]
        length = f"{tokens} tokens" if not completion else f"prompts of {tokens} and completions of {completion} tokens"
        lines = [f"### {name}", "", f"Effective batch {BATCHES[method]} {unit}, {length}.", ""]
        titles = [find_cluster(cluster).title for cluster in CLUSTERS]
        lines += ["| model | " + " | ".join(titles) + " |", "|---" * (1 + len(CLUSTERS)) + "|"]
        for model in known_shapes():
            cells = [_cell(row) for row in rows if row.model == model and row.method == name]
            lines.append(f"| {model} | " + " | ".join(cells) + " |")
        blocks.append("\n".join(lines))
    return "\n\n".join([*blocks, _example()])


def with_table(text: str) -> str:
    """`text` with what stands between its marks replaced by the present table. Raises InputError without marks."""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise InputError(f"the file needs one line `{BEGIN}` and one line `{END}`.")
    head, rest = text.split(BEGIN)
    return f"{head}{BEGIN}\n{markdown()}\n{END}{rest.split(END)[1]}"


def _cell(row: Row) -> str:
    best = row.plan.best
    if best is None:
        return f"no; nearest: {row.plan.nearest}"
    hosted = f" + {best.host_gib:.0f} in main memory" if best.host_gib >= 1 else ""
    return f"**{best.memory.gib:.1f} GiB**{hosted}, {best.time.total:.1f} s<br>{best.told()}"


def _example() -> str:
    request = usual_request(known_shapes()["qwen3-1.7b"], "sft", find_cluster("h100"))
    best = plan(request).best
    lines = ["### An example: SFT of all weights of qwen3-1.7b on one H100", ""]
    if best is None:
        return "\n".join([*lines, "It does not fit."])
    lines += [f"Settings: {best.told()}. Most is needed at: {best.memory.moment}.", ""]
    lines += ["| part | GiB | formula | source |", "|---|---|---|---|"]
    lines += [
        f"| {part.name} | {part.bytes / GIB:.2f} | {part.formula} | {part.source} |" for part in best.memory.parts
    ]
    return "\n".join([*lines, f"| **sum** | **{best.memory.bytes / GIB:.2f}** | | |"])


def main(arguments: list[str]) -> int:
    """Write the table into the file that is named."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m posttrain_crew.tools.training.plan_table docs/planner.md\n")
        return 2
    path = Path(arguments[0])
    atomic_write_text(path, with_table(path.read_text(encoding="utf-8")))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
