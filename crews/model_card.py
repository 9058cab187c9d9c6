"""final_model/: the run's result as a plain Hugging Face folder with a model card that claims what was measured.

The folder appears by a rename, complete. Only what a model needs is copied: no optimizer, no trainer state, no code.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from posttrain_crew import __version__
from posttrain_crew.blackboard import Entry
from posttrain_crew.entries import Comparison, Evaluation, Experiment, Recipe, TestLook, TrainingSet
from posttrain_crew.errors import ModelError
from posttrain_crew.files import atomic_write_json, atomic_write_text
from posttrain_crew.redact import redact
from posttrain_crew.state import RunState
from posttrain_crew.tools.evaluation.run import RESULTS_FILE, model_files
from posttrain_crew.tools.workspace import Workspace

__all__ = ["check_model", "save_final_model"]

ORIGIN_FILE = "crew.json"
"""In final_model/: run, subject, and the hashes of the copied files."""
SHAPE = (
    "architectures",
    "model_type",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
)
PARTS = (
    "config.json",
    "generation_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "*.model",
    "chat_template*",
)


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path} must hold a JSON object.")
    return found


def check_model(model: Path, base: Path) -> None:
    """Check that `model` is a complete folder of the base's architecture that runs without code of its own.

    Raises:
        ModelError: a part is missing, it brings code (`auto_map`), or its shape is not the base's.
    """
    missing = [name for name in ("config.json", "tokenizer_config.json") if not (model / name).is_file()]
    if not list(model.glob("*.safetensors")):
        missing.append("*.safetensors")
    if not any((model / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        missing.append("tokenizer.json")
    if missing:
        raise ModelError(f"{model} cannot be the final model: it lacks {', '.join(missing)}.")
    config, expected = _json(model / "config.json"), _json(base / "config.json")
    for name, found in (("config.json", config), ("tokenizer_config.json", _json(model / "tokenizer_config.json"))):
        if "auto_map" in found:
            raise ModelError(f"{model / name} has `auto_map`: the model would run code of its own when it is loaded.")
    for name in SHAPE:
        if config.get(name) != expected.get(name):
            raise ModelError(
                f"{model} is not the base model's architecture: `{name}` is {config.get(name)!r}, "
                f"the base has {expected.get(name)!r}."
            )


def save_final_model(workspace: Workspace, subject: str) -> Path:
    """Copy the model of `base` or of an experiment to RUN/final_model with its card; done again, only the card is new.

    Raises:
        ModelError: the checkpoint is not fit to be handed out. BlackboardError: the subject has no checkpoint.
    """
    source, final = workspace.checkpoint(subject), workspace.run.final_model
    check_model(source, workspace.base_model)
    if not _is_copy(final, subject):
        parts = sorted({path for pattern in PARTS for path in source.glob(pattern) if path.is_file()})
        with tempfile.TemporaryDirectory(dir=workspace.run.root, prefix=".final-") as workshop:
            made = Path(workshop) / "model"
            made.mkdir()
            for part in parts:
                shutil.copyfile(part, made / part.name)
            origin = {"run": workspace.run.id, "subject": subject, "sha256": model_files(made)}
            atomic_write_json(made / ORIGIN_FILE, origin)
            atomic_write_text(made / "README.md", _card(workspace, subject))
            if final.exists():
                final.rename(Path(workshop) / "replaced")
            made.rename(final)
    else:
        atomic_write_text(final / "README.md", _card(workspace, subject))
    return final


def _is_copy(final: Path, subject: str) -> bool:
    """Whether `final` is an unchanged copy of this subject's model."""
    if not (final / ORIGIN_FILE).is_file():
        return False
    origin = _json(final / ORIGIN_FILE)
    found = {name: digest for name, digest in model_files(final).items() if name != ORIGIN_FILE}
    return origin.get("subject") == subject and origin.get("sha256") == found


def _lineage(state: RunState, subject: str) -> list[Entry[Experiment]]:
    """The experiments from the base to the subject, first trained first."""
    chain: list[Entry[Experiment]] = []
    while subject in state.experiments:
        chain.append(state.experiments[subject].entry)
        subject = state.experiments[subject].entry.body.parent
    return chain[::-1]


def _card(workspace: Workspace, subject: str) -> str:
    state = RunState.of(workspace.board)
    chain = _lineage(state, subject)
    sets = [workspace.board.typed(e.body.training_set, TrainingSet) for e in chain]
    started, target = workspace.started, workspace.target
    front: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "base_model": started.base_model,
        "tags": ["posttrain-crew", target.name, *dict.fromkeys(e.body.method for e in chain)],
    }
    if names := sorted({share.dataset for entry in sets for share in entry.body.sources}):
        front["datasets"] = names
    title = f"{target.title}: {subject if chain else 'the base model, unchanged'}"
    paragraphs = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n# {title}",
        _opening(workspace, state, subject),
        "## Results",
        _results(workspace, state, subject),
    ]
    if chain:
        paragraphs += ["## How it was made", *_steps(workspace, chain, sets)]
    paragraphs += ["## Limits", _limits(workspace, state, subject), "## Versions", _versions(workspace, state)]
    return redact("\n\n".join(paragraphs) + "\n")


def _opening(workspace: Workspace, state: RunState, subject: str) -> str:
    run, base = workspace.run.id, workspace.started.base_model
    if subject == "base":
        why = state.verdict.body.reason if state.verdict else "No experiment was promoted."
        return (
            f"These are the weights of `{base}`, unchanged. The run `{run}` of crew {__version__} ended without a "
            f"proven gain: {why}"
        )
    verdict = state.verdict.body if state.verdict else None
    said = f"The final gate said {verdict.action}: {verdict.reason}" if verdict else "The final gate has not decided."
    return f"Trained from `{base}` by the run `{run}` of crew {__version__}. {said}"


def _results(workspace: Workspace, state: RunState, subject: str) -> str:
    evaluations: list[Entry[Evaluation] | None] = [state.baseline]
    if subject != "base":
        evaluations += [state.experiments[subject].evaluation, state.tests.get("base"), state.tests.get(subject)]
    rows = [
        "| model | split | n | strict (95 % CI) | lenient (95 % CI) | format valid |",
        "|---|---|---|---|---|---|",
    ]
    for entry in evaluations:
        if entry is not None:
            b = entry.body
            rows.append(
                f"| {b.subject} | {b.split} | {b.n} | {b.score:.1%} ({b.ci_low:.1%} to {b.ci_high:.1%}) | "
                f"{b.lenient_score:.1%} ({b.lenient_ci_low:.1%} to {b.lenient_ci_high:.1%}) | "
                f"{b.format_valid_rate:.1%} |"
            )
    lines = ["\n".join(rows)]
    comparisons: Iterable[Comparison] = (entry.body for entry in workspace.board.of(Comparison))
    told = [
        f"- {c.split}, {c.metric}: {c.candidate} less {c.reference} is {c.delta:+.1%} (95 % CI {c.ci_low:+.1%} to "
        f"{c.ci_high:+.1%}, exact McNemar p = {c.p_value:.2g}; {c.gained} items gained, {c.lost} lost)"
        for c in comparisons
        if subject != "base" and c.candidate == subject
    ]
    if told:
        lines.append("Paired tests on the same items:\n\n" + "\n".join(told))
    looks = workspace.board.of(TestLook)
    lines.append(f"Looks at the test split in this run: {len(looks)}. Every choice was made on dev.")
    return "\n\n".join(lines)


def _steps(workspace: Workspace, chain: list[Entry[Experiment]], sets: list[Entry[TrainingSet]]) -> list[str]:
    steps = []
    for number, (experiment, data) in enumerate(zip(chain, sets, strict=True), start=1):
        body, training = experiment.body, data.body
        shares = "\n".join(
            f"  - {s.dataset}: {s.rows_out} of {s.rows_in} rows"
            + (f", dropped {', '.join(f'{n} {why}' for why, n in s.dropped.items())}" if s.dropped else "")
            + (f", {s.rewritten} rewritten" if s.rewritten else "")
            for s in training.sources
        )
        verdict = training.contamination
        config = yaml.safe_dump(body.config, sort_keys=True).rstrip()
        recipe = ""
        if body.recipe:
            source = workspace.board.typed(body.recipe, Recipe).body
            recipe = f"\n- recipe: {source.title} ({', '.join(f'arXiv {x}' for x in source.arxiv_ids) or 'no paper'})"
        steps.append(
            f"{number}. **{experiment.id}**: {body.method.upper()} from {body.parent}, seed {body.seed}. "
            f"{body.hypothesis}\n{recipe}\n- data {data.id}: {training.rows} rows ({training.style}), sha256 "
            f"`{training.sha256}`\n{shares}\n- contamination check: {'passed' if verdict.passed else 'FAILED'}, "
            f"{verdict.rows_matched} of {verdict.rows_checked} rows matched {verdict.benchmark_items} benchmark items"
            f"\n\n```yaml\n{config}\n```"
        )
    return steps


def _limits(workspace: Workspace, state: RunState, subject: str) -> str:
    limits = [
        f"Measured on {workspace.target.title} alone; what else the training changed was not measured.",
        "The intervals cover the choice of items. One training seed was run per experiment, so they do not cover the "
        "spread between seeds.",
        f"{len(state.experiments)} experiment(s) were compared on the same dev items, so dev scores of the chosen one "
        "are optimistic; the test scores are not, after a single look.",
    ]
    if subject != "base" and subject not in state.tests:
        limits.insert(0, "There is no test score: the gain on dev is not confirmed.")
    return "\n".join(f"- {limit}" for limit in limits)


def _versions(workspace: Workspace, state: RunState) -> str:
    text = f"crew {__version__}, run seed {workspace.started.seed}"
    if state.baseline is not None:
        path = workspace.run.absolute(state.baseline.body.directory) / RESULTS_FILE
        versions = _json(path).get("versions", {}) if path.is_file() else {}
        text += "".join(f", {name} {version}" for name, version in versions.items())
    return text + ". manifest.json in the run directory has the rest."
