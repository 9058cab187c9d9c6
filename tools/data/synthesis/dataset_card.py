"""The README of a made dataset: what it is, what it comes from, what became of the rows."""

from __future__ import annotations

from dataclasses import dataclass

import yaml

from posttrain_crew.tools.data.synthesis.plan import Card

__all__ = ["Origin", "dataset_card"]


@dataclass(frozen=True)
class Origin:
    """Where the questions come from: what the card has to say about it."""

    datasets: tuple[str, ...] = ()
    licence: str | None = None


def dataset_card(card: Card, origin: Origin) -> str:
    """Markdown with the front matter that the Hub and crew's reader understand."""
    front: dict[str, object] = {
        "license": origin.licence or "other",
        "pretty_name": card.plan.name,
        "tags": ["synthetic", card.plan.generator],
        "source_datasets": list(origin.datasets),
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": card.path}]}],
    }
    stages = {stage: [f"{name} {count}" for name, count in counts.items()] for stage, counts in card.counts.items()}
    told = "\n".join(f"- {stage}: {', '.join(parts)}" for stage, parts in stages.items())
    models = ", ".join(f"{role} {line.model}" for role, line in card.usage.items()) or "none: everything is computed"
    made = f" from questions of {', '.join(origin.datasets)}" if origin.datasets else ""
    return (
        f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n\n# {card.plan.name}\n\n"
        f"Synthetic rows for the target {card.target}, made by the generator `{card.plan.generator}`{made}. "
        f"Models: {models}. Seed {card.plan.seed}. {card.rows} rows, {card.distinct} of them different; "
        f"sha256 {card.sha256}.\n\nWhat became of the rows, stage by stage:\n\n{told}\n\nEach row names its "
        "generator, seed, parent, model, checks and pass rate. No row matches an item of the benchmark.\n"
    )
