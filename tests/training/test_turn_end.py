"""A base model with the chat template of its instruct version, as Qwen3's: what is trained from it stops by itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trl

from tests.training.jobs import ended, make_model, start, write_job

QWEN3 = Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ends turns with `<|im_end|>`, stops at another token only, and adds an empty `<think>` block in training."""
    from transformers import AutoTokenizer

    folder = make_model(tmp_path_factory.mktemp("turns") / "base")
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    tokenizer.eos_token, tokenizer.chat_template = tokenizer.pad_token, QWEN3.read_text()
    tokenizer.save_pretrained(folder)
    ends = {"eos_token_id": tokenizer.pad_token_id, "pad_token_id": tokenizer.pad_token_id, "max_new_tokens": 2048}
    (folder / "generation_config.json").write_text(json.dumps(ends))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sft", "dpo", "grpo"])
def test_a_base_model_learns_to_end_its_turn(method: str, base: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    from posttrain_crew.tools.data.turn_end import prepare_for_chat

    sampling = {"num_generations": 4, "max_completion_length": 12} if method == "grpo" else {}
    job = write_job(tmp_path / method, base, method, {"max_steps": 1, **sampling})
    outcome = ended(job, start(job, method))
    assert outcome["ok"], outcome
    told = " ".join(outcome["notes"])
    assert "the end token is <|im_end|>" in told and "<think>" in told
    final = next(path.parent for path in job.rglob("model.safetensors") if "checkpoint" not in str(path))
    tokenizer: Any = AutoTokenizer.from_pretrained(final)
    saved = json.loads((final / "generation_config.json").read_text())
    assert saved["eos_token_id"] == [tokenizer.convert_tokens_to_ids("<|im_end|>"), tokenizer.pad_token_id]
    assert prepare_for_chat(tokenizer, saved["eos_token_id"]) == [], "a job that starts from it has nothing to mend"
    turns = [{"role": "user", "content": "2?"}, {"role": "assistant", "content": "B"}]
    assert "<think>" not in tokenizer.apply_chat_template(turns, tokenize=False)


@pytest.mark.slow
def test_its_replies_are_cut_at_the_end_of_the_turn(base: Path) -> None:
    from posttrain_crew.tools.data.local_model import load_for_replies

    tokenizer, model, _device = load_for_replies(base)
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") in model.generation_config.eos_token_id


def test_what_has_its_end_is_left_alone(base: Path) -> None:
    from transformers import AutoTokenizer

    from posttrain_crew.tools.data.turn_end import prepare_for_chat, turn_end

    tokenizer: Any = AutoTokenizer.from_pretrained(base)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert turn_end(tokenizer) == end
    assert [note for note in prepare_for_chat(tokenizer, [7, end]) if "end token" in note] == []
    assert tokenizer.eos_token == tokenizer.pad_token
    for template in ("{% for m in messages %}{{ m.content }}\n{% endfor %}", "{% if %}", "{{ raise_exception('no') }}"):
        tokenizer.chat_template = template
        assert turn_end(tokenizer) is None
        assert prepare_for_chat(tokenizer, None) == []
