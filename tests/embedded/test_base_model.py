"""The embedded base model: cached, verified, repaired, and as weak as it has to be."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from posttrain_crew.errors import JobError
from posttrain_crew.tools.embedded import base_model
from posttrain_crew.tools.embedded.base_model import base_key, default_cache_dir, ensure_base, is_intact
from posttrain_crew.tools.embedded.benchmark import extract_lenient, extract_strict, items, prompt
from posttrain_crew.tools.embedded.families import BIGGEST, FAMILIES


class Workshop:
    """Stands for the subprocess that makes the model: quick, and counts how often it is asked."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self, out_dir: Path, report: Callable[[str], None]) -> None:
        self.made += 1
        out_dir.mkdir()
        for name in base_model.NEEDED:
            (out_dir / name).write_text(f"{name} {self.made}")
        checksums = json.dumps(base_model._checksums(out_dir))
        (out_dir / base_model.CHECKSUMS).write_text(checksums)
        report("made")


@pytest.fixture
def workshop(monkeypatch: pytest.MonkeyPatch) -> Workshop:
    workshop = Workshop()
    monkeypatch.setattr(base_model, "_make_in_subprocess", workshop)
    return workshop


def test_a_second_call_reuses_the_cache(tmp_path: Path, workshop: Workshop) -> None:
    lines: list[str] = []
    folder = ensure_base(tmp_path, lines.append)
    assert folder == ensure_base(tmp_path, lines.append)
    assert workshop.made == 1 and lines == ["made"]
    assert folder.name == base_key() and folder.is_absolute()
    assert not list(folder.parent.glob("making-*")), "nothing half-made stays behind"


@pytest.mark.parametrize("damage", ["changed", "missing", "no list", "list unreadable"])
def test_a_damaged_copy_is_made_again(tmp_path: Path, workshop: Workshop, damage: str) -> None:
    folder = ensure_base(tmp_path)
    weights, checksums = folder / "model.safetensors", folder / base_model.CHECKSUMS
    if damage == "changed":
        weights.write_bytes(weights.read_bytes()[:-1])
    elif damage == "missing":
        weights.unlink()
    elif damage == "no list":
        checksums.unlink()
    else:
        checksums.write_text("{")
    assert not is_intact(folder)
    lines: list[str] = []
    assert ensure_base(tmp_path, lines.append) == folder
    assert is_intact(folder) and workshop.made == 2
    assert "damaged" in lines[0]


def test_processes_that_want_it_at_once_make_it_once(tmp_path: Path, workshop: Workshop) -> None:
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(ensure_base(tmp_path))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and len(set(found)) == 1
    assert workshop.made == 1


def test_what_a_killed_process_left_is_cleared_away(tmp_path: Path, workshop: Workshop) -> None:
    abandoned = tmp_path / "embedded-base" / f"making-{base_key()}-abc"
    abandoned.mkdir(parents=True)
    (abandoned / "model.safetensors").touch()
    ensure_base(tmp_path)
    assert not abandoned.exists()


def test_a_failed_build_leaves_no_copy_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(JobError, match="exit status 1"):
        ensure_base(tmp_path)
    assert not (tmp_path / "embedded-base" / base_key()).exists()


def test_the_key_follows_the_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Path(base_model.__file__).parent
    for name in base_model.SOURCES:
        (tmp_path / name).write_bytes((here / name).read_bytes())
    monkeypatch.setattr(base_model, "__file__", str(tmp_path / "base_model.py"))
    before = base_key()
    with (tmp_path / "corpus.py").open("a") as file:
        file.write("# changed\n")
    assert base_key() != before


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREW_CACHE", "/somewhere")
    assert default_cache_dir() == Path("/somewhere")
    monkeypatch.delenv("CREW_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert default_cache_dir() == Path("/xdg/posttrain-crew")


def test_callers_do_not_import_torch() -> None:
    code = (
        "import sys; from posttrain_crew.tools.embedded import base_model, catalogue, benchmark;"
        "sys.exit(bool({'torch', 'transformers', 'datasets', 'pyarrow'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_tokenizer_survives_saving_and_auto_loading(tmp_path: Path) -> None:
    from transformers import AutoTokenizer, LlamaConfig

    from posttrain_crew.tools.embedded.pretraining import _tokenizer_texts, build_tokenizer

    made = build_tokenizer(_tokenizer_texts())
    made.save_pretrained(tmp_path)
    LlamaConfig(vocab_size=len(made)).save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    wordings = [wording for family in FAMILIES.values() for wording in family.wordings]
    inner_words = [f" {word}" for wording in wordings for word in wording.split()[1:] if word.isalpha()]
    for text in [*inner_words, *(f" {number}" for number in range(1, BIGGEST + 1)), " (A)", "(D)"]:
        assert len(loaded.tokenize(text)) == len(made.tokenize(text)) == 1, text
    for text in ("Zürich has 17 bridges\n\n  and 2048 more", prompt(items("dev")[0].question, items("dev")[0].choices)):
        assert loaded.decode(loaded(text)["input_ids"]) == text
    assert loaded.padding_side == "left"
    assert loaded.eos_token == "<|im_end|>" and loaded.pad_token == "<|endoftext|>"

    messages = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "Answer: A"}]
    text = loaded.apply_chat_template(messages, tokenize=False)
    assert text == "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\nAnswer: A<|im_end|>\n"
    assert (
        loaded.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True) == text.partition("Ans")[0]
    )
    masked = loaded.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    learnt = [i for i, m in zip(masked["input_ids"], masked["assistant_masks"], strict=True) if m]
    assert loaded.decode(learnt) == "Answer: A<|im_end|>"


@pytest.mark.slow
def test_the_base_knows_much_and_formats_little(base_model: Path) -> None:
    """On the machine's copy, which is made where there is none (about two minutes on two cores)."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = base_model
    report = json.loads((folder / "pretraining.json").read_text())
    assert 0.5e6 < report["parameters"] < 3e6
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    assert model.config.model_type == "llama"
    assert set(model.generation_config.eos_token_id) == {tokenizer.eos_token_id, tokenizer.pad_token_id}
    assert model.generation_config.pad_token_id == tokenizer.pad_token_id
    strict = lenient = hard = 0
    found = items("dev")
    for start in range(0, len(found), 100):
        batch = found[start : start + 100]
        texts = [
            tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt(item.question, item.choices)}],
                tokenize=False,
                add_generation_prompt=True,
            )
            for item in batch
        ]
        encoded = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.no_grad():
            generated = model.generate(
                input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"], max_new_tokens=48
            )
        replies = tokenizer.batch_decode(generated[:, encoded["input_ids"].shape[1] :], skip_special_tokens=True)
        for item, reply in zip(batch, replies, strict=True):
            strict += extract_strict(reply) == item.answer
            lenient += extract_lenient(reply) == item.answer
            hard += item.level == 3 and extract_lenient(reply) == item.answer
    assert 0.05 <= strict / len(found) <= 0.20, "below chance, like a base model that fails the format"
    assert 0.45 <= lenient / len(found) <= 0.75, "but it knows most of level 1 and 2"
    assert hard / 250 < 0.40, "and hardly any of level 3"
