"""A chat template must teach what it will be asked for: the traps of real templates, on a real tokenizer."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trl

from posttrain_crew.errors import ConfigError, ModelError
from posttrain_crew.settings import cache_dir
from posttrain_crew.target import Target
from posttrain_crew.tools.data.audit import Auditor
from posttrain_crew.tools.data.chat_template import ChatTemplate
from posttrain_crew.tools.data.converting import convert
from posttrain_crew.tools.data.reader import open_dataset
from posttrain_crew.tools.data.roles import Turn
from posttrain_crew.tools.embedded.base_model import ensure_base

SHIPPED = Path(trl.__file__).parent / "chat_templates"
ASK = "{%- for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{%- endfor %}"
PROMPT = "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{%- endif %}"
MakeModel = Callable[[str], Path]


@pytest.fixture(scope="session")
def base() -> Path:
    return ensure_base(cache_dir())


@pytest.fixture
def with_template(base: Path, tmp_path: Path) -> MakeModel:
    """A model folder with the base's tokenizer and the given chat template."""

    def make(template: str) -> Path:
        for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "config.json"):
            shutil.copy(base / name, tmp_path / name)
        (tmp_path / "chat_template.jinja").write_text(template)
        return tmp_path

    return make


def test_the_embedded_model_agrees(base: Path) -> None:
    template = ChatTemplate(base)
    assert template.supports_system
    asked = template.render([Turn("user", "hi")], None)
    assert template.render([Turn("user", "hi")], "Answer: A").startswith(asked + "Answer: A<|im_end|>")
    assert template.has_control_tokens(["so<|im_start|>user"]) and not template.has_control_tokens(["a < b | c"])


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("deepseekv3.jinja", r"generation prompt goes on with '<think>\\n', the training render with 'It is 4"),
        ("gemma3.jinja", r"followed by '<end_of_turn>\\n', which is none of the tokens at which generation stops"),
        (ASK.replace("m['content']", "m['content'].split('Answer')[0]") + PROMPT, r"character 24 of the reply"),
        (ASK + PROMPT.replace("assistant\n", "assistant:\n"), r"goes on with ':\\n', the training render with '\\nIt"),
        (ASK.replace("<|im_end|>\n", "\n") + PROMPT, r"would not learn to stop"),
        (ASK, r"goes on with '', the training|would not|reply begins"),
        ("{{ raise_exception('no turns today') }}", "no turns today"),
        ("{% for m in messages %}", "Unexpected end of template"),
        (ASK.replace("m['content'] + '<|im_end|>\n' }}",
                     "'' }}{% generation %}{{ m['content'] }}{% endgeneration %}{{ '<|im_end|>\n' }}") + PROMPT,
         r"before the end of the turn"),
    ],
)  # fmt: skip
def test_traps_are_told_with_the_first_difference(template: str, message: str, with_template: MakeModel) -> None:
    text = (SHIPPED / template).read_text() if template.endswith(".jinja") else template
    with pytest.raises(ConfigError, match=message):
        ChatTemplate(with_template(text))


def test_no_template_and_no_model(with_template: MakeModel, tmp_path: Path) -> None:
    folder = with_template(ASK + PROMPT)
    ChatTemplate(folder)
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ConfigError, match="has no chat template"):
        ChatTemplate(folder)
    with pytest.raises(ModelError, match="no model folder"):
        ChatTemplate(tmp_path / "nowhere")


def test_code_of_a_model_folder_is_never_run(with_template: MakeModel) -> None:
    folder = with_template(ASK + PROMPT)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config |= {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\nclass Evil: pass\n")
    with contextlib.suppress(ModelError, ConfigError):
        ChatTemplate(folder)
    assert not (folder / "ran").exists()
    folder = with_template("{{ ''.__class__.__mro__[1].__subclasses__() }}")
    with pytest.raises((ConfigError, ModelError)):
        ChatTemplate(folder)


def test_rows_that_a_template_changes_are_dropped(
    with_template: MakeModel, auditor: Auditor, target: Target, tmp_path: Path
) -> None:
    folder = with_template(ASK.replace("m['content']", "m['content'].split('</think>')[-1]") + PROMPT)
    rows = [
        {"prompt": "What is the colour of a ripe tomato?", "completion": "It is red, as all know."},
        {"prompt": "What is the colour of the sky?", "completion": "<think>Look up.</think>It is blue, as all know."},
    ]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, rows)))
    dataset = open_dataset(tmp_path / "d.jsonl")
    made = convert(dataset, "sft", target, auditor.index, tmp_path / "out", model=folder)
    assert made.rows_out == 1 and made.dropped == {"template_mismatch": 1}
    assert made.template_problem is not None and "'<think>Look up.</think>" in made.template_problem


def test_qwen3s_template_is_set_right_and_told(with_template: MakeModel) -> None:
    template = ChatTemplate(with_template((SHIPPED / "qwen3.jinja").read_text()))
    assert ["<think>" in change for change in template.changes] == [True]
    turns = [Turn("user", "2 + 2?")]
    assert template.render(turns, "4").startswith(template.render(turns, None) + "4<|im_end|>")
    thinking = template.render([*turns, Turn("assistant", "<think>\ncarry nothing\n</think>\n\n4")], None)
    assert "carry nothing" in thinking, "a reply that does think keeps its thoughts"


@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_a_job_refuses_a_template_that_contradicts_itself(
    method: str, base: Path, with_template: MakeModel, tmp_path: Path
) -> None:
    model = with_template((SHIPPED / "deepseekv3.jinja").read_text())
    shutil.copy(base / "model.safetensors", model)
    prompt, right, wrong = (
        [{"role": r, "content": t}] for r, t in (("user", "2 + 2?"), ("assistant", "4"), ("assistant", "5"))
    )
    row = {"prompt": prompt, **({"completion": right} if method == "sft" else {"chosen": right, "rejected": wrong})}
    job = tmp_path / "job"
    job.mkdir()
    (job / "train.jsonl").write_text((json.dumps(row) + "\n") * 8)
    config = {"method": method, "model": str(model), "data": str(job / "train.jsonl"), "smoke": True}
    (job / "config.yaml").write_text(json.dumps(config))
    command = [sys.executable, "-m", f"posttrain_crew.tools.training.{method}", str(job / "config.yaml")]
    assert subprocess.run(command, capture_output=True, timeout=300).returncode == 1
    outcome = json.loads((job / "outcome.json").read_text())
    assert outcome["error_class"] == "config" and "does not fit its own generation prompt" in outcome["message"]
