"""The folder a run hands out: complete, of the base's shape, with a card that claims what was measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from posttrain_crew.blackboard import Entry
from posttrain_crew.crews.manifest import write_manifest
from posttrain_crew.crews.model_card import save_final_model
from posttrain_crew.entries import (
    ContaminationVerdict,
    Evaluation,
    Experiment,
    Incident,
    JobOutcome,
    JobStarted,
    SourceShare,
    TrainingSet,
)
from posttrain_crew.errors import BlackboardError, ModelError
from posttrain_crew.tools.evaluation.gates import final_gate, promotion
from posttrain_crew.tools.workspace import Workspace

Evaluated = Callable[..., Entry[Evaluation]]


@pytest.fixture
def trained(workspace: Workspace, make_model: Callable[..., Path]) -> str:
    """An experiment with a real training set behind it."""
    board = workspace.board
    support = board.post(Incident(where="t", what="w", instead="i"), author="test")
    verdict = ContaminationVerdict(
        sha256="ab" * 32, passed=True, rows_checked=90, rows_matched=0, benchmark_items=1200, by_check={}
    )
    data = board.post(
        TrainingSet(
            sha256="ab" * 32,
            path="data/x/train.jsonl",
            rows=90,
            method="sft",
            style="worked",
            sources=[SourceShare(dataset="openlab/science-steps", rows_in=100, rows_out=90, dropped={"dup": 10})],
            contamination=verdict,
            mean_tokens=50,
            max_tokens=90,
            seed=3,
        ),
        author="data",
        refs=(support.id,),
    )
    entry = board.post(
        Experiment(
            parent="base",
            hypothesis="Worked steps teach the format.",
            method="sft",
            training_set=data.id,
            config={"learning_rate": 0.002},
            seed=5,
        ),
        author="trainer",
        refs=(data.id,),
    )
    folder = workspace.run.experiments / entry.id
    model = make_model(folder / "model", entry.id)
    (model / "optimizer.pt").write_bytes(b"x")
    (model / "modeling_evil.py").write_text("raise SystemExit")
    (folder / "config.yaml").write_text("learning_rate: 0.002\n")
    job = board.post(
        JobStarted(
            label=entry.id,
            role="train",
            subject=entry.id,
            backend="local",
            module="m",
            directory=workspace.run.relative(folder),
            estimate_seconds=1,
        ),
        author="crew",
        refs=(entry.id,),
    )
    outcome = JobOutcome(label=entry.id, ok=True, wall_s=1, checkpoint=workspace.run.relative(model))
    board.post(outcome, author="crew", refs=(job.id,))
    return entry.id


def test_the_best_model_is_handed_out_with_its_evidence(
    workspace: Workspace, evaluated: Evaluated, trained: str
) -> None:
    evaluated("base", strict=50)
    evaluated(trained, strict=120)
    promotion(workspace, trained)
    base, best = evaluated("base", strict=52, split="test"), evaluated(trained, strict=110, split="test")
    final_gate(workspace, base, best)
    final = save_final_model(workspace, trained)
    assert final == workspace.run.final_model
    names = {path.name for path in final.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= names
    assert not {"optimizer.pt", "modeling_evil.py"} & names
    assert (final / "model.safetensors").read_bytes() == trained.encode()
    _, front, text = (final / "README.md").read_text().split("---\n", 2)
    meta = yaml.safe_load(front)
    assert meta["base_model"] == "builtin:gpqa-mini"
    assert meta["datasets"] == ["openlab/science-steps"]
    for claim in ("accept", "55.0%", "26.0%", "+29.0%", "n |", "p = ", "ab" * 32, "dropped 10 dup", "learning_rate",
                  "seed 5", "run seed 7", "Looks at the test split in this run: 0"):  # fmt: skip
        assert claim in text, claim
    assert not list(workspace.run.root.glob(".final-*"))


def test_saving_again_changes_nothing_and_repairs_damage(
    workspace: Workspace, evaluated: Evaluated, trained: str
) -> None:
    evaluated("base", strict=50)
    final = save_final_model(workspace, trained)
    inode = final.stat().st_ino
    assert save_final_model(workspace, trained).stat().st_ino == inode
    (final / "model.safetensors").write_bytes(b"damaged")
    save_final_model(workspace, trained)
    assert (final / "model.safetensors").read_bytes() == trained.encode()


def test_a_run_without_gain_hands_out_the_base_and_says_so(workspace: Workspace, evaluated: Evaluated) -> None:
    evaluated("base", strict=50)
    final = save_final_model(workspace, "base")
    assert (final / "model.safetensors").read_bytes() == b"base"
    card = (final / "README.md").read_text()
    assert "without a proven gain" in card
    assert "unchanged" in card


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("config.json", {"architectures": ["LlamaForCausalLM"], "hidden_size": 8, "vocab_size": 17}, "vocab_size"),
        ("config.json", {"architectures": ["Evil"], "hidden_size": 8, "vocab_size": 16}, "architectures"),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": "x.Y"}}, "auto_map"),
        ("model.safetensors", None, "lacks"),
        ("tokenizer.json", None, "lacks"),
    ],
)
def test_an_unfit_checkpoint_is_refused(
    workspace: Workspace, trained: str, name: str, content: object, said: str
) -> None:
    path = workspace.checkpoint(trained) / name
    if content is None:
        path.unlink()
    else:
        path.write_text(json.dumps(content))
    with pytest.raises(ModelError, match=said):
        save_final_model(workspace, trained)
    assert not workspace.run.final_model.exists()
    with pytest.raises(BlackboardError):
        save_final_model(workspace, "exp-99")


def test_the_manifest_has_what_a_repeat_needs(
    workspace: Workspace, evaluated: Evaluated, trained: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_API_KEY", "very-secret-value")
    evaluated("base", strict=50)
    first = json.loads(write_manifest(workspace).read_text())
    save_final_model(workspace, trained)
    text = write_manifest(workspace).read_text()
    manifest = json.loads(text)
    assert manifest["created_at"] == first["created_at"]
    assert "very-secret-value" not in text
    assert manifest["seeds"] == {"run": 7, "experiments": {trained: 5}, "training_sets": {"ts-1": 3}}
    assert manifest["data"]["ts-1"]["sha256"] == "ab" * 32
    assert set(manifest["base_model"]["sha256"]) >= {"config.json", "model.safetensors"}
    assert set(manifest["final_model"]) >= {"config.json", "model.safetensors"}
    assert trained in manifest["configs"]
    assert "gpqa_mini_dev" in manifest["target"]["yaml"]
    assert {"torch", "trl", "lm-eval"} <= manifest["packages"].keys()
    assert manifest["blackboard"]["entries"] == workspace.board.last_seq()
