"""Role files: layers, eject, and errors that name the nearest valid key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from posttrain_crew.agents.roles import eject, load_roles
from posttrain_crew.errors import RoleError
from posttrain_crew.tasks.contracts import RESULT_TYPES, LiteratureResult
from posttrain_crew.tasks.prompts import load_template, task_input
from tests.agents.conftest import FakeHooks


def test_packaged_roles_are_complete() -> None:
    roles = load_roles()
    assert {"coordinator", "literature", "data", "trainer", "evaluator"} <= set(roles)
    assert not roles["coordinator"].specialist
    for role in roles.values():
        template = load_template(role.task, role.template_folders)
        text, _ = template.render({"specialist": role.name, "x": "{braces} ```"}, RESULT_TYPES[role.result_type])
        assert task_input([text]) == {"specialist": role.name, "x": "{braces} ```"}
        assert text.count("```json") == 1


def test_later_layers_win_key_by_key(tmp_path: Path) -> None:
    user = tmp_path / "config" / "posttrain-crew" / "roles"
    user.mkdir(parents=True)
    (user / "literature.yaml").write_text("goal: from the user\nmax_iter: 7\nllm: openai/a\n")
    (tmp_path / "crew.yaml").write_text("roles:\n  literature:\n    max_iter: 8\n    llm: openai/b\n")
    prompts = tmp_path / "prompts"
    prompts.mkdir()
    (prompts / "literature.yaml").write_text("llm: openai/c\n")
    role = load_roles(prompts)["literature"]
    assert (role.goal, role.max_iter, role.llm) == ("from the user", 8, "openai/c")
    assert role.tools == load_roles()["literature"].tools


def test_eject_writes_a_file_that_loads_unchanged(tmp_path: Path) -> None:
    path = eject("trainer", tmp_path / "prompts")
    assert path == tmp_path / "prompts" / "trainer.yaml"
    changed = load_roles(tmp_path / "prompts")["trainer"]
    assert changed.model_dump() == load_roles()["trainer"].model_dump()
    with pytest.raises(RoleError, match="exists already"):
        eject("trainer", tmp_path / "prompts")
    with pytest.raises(RoleError, match="did you mean `trainer`"):
        eject("trainr", tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("literature", "backstroy: x", "did you mean `backstory`"),
        ("literature", "goal: raise {titel}", "did you mean `title`"),
        ("literature", "max_iter: many", "max_iter"),
        ("literature", "result_type: literatur", "did you mean `literature`"),
        ("literature", "name: other", "they must be the same"),
        ("literature", "- a\n- b", "mapping"),
        ("literature", "a: [", "not readable YAML"),
        ("literatur", "goal: x", "did you mean `literature`"),
    ],
)
def test_a_bad_file_is_one_clear_paragraph(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / f"{name}.yaml").write_text(text)
    with pytest.raises(RoleError) as caught:
        load_roles(tmp_path)
    assert message in str(caught.value) and f"{name}.yaml" in str(caught.value)


def test_a_template_can_be_replaced_and_is_checked(tmp_path: Path) -> None:
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "data.yaml").write_text("description: mine {input_json}\nexpected_output: x\n")
    role = load_roles(tmp_path)["data"]
    assert load_template(role.task, role.template_folders).description.startswith("mine")
    (folder / "data.yaml").write_text("description: mine {input_jsn}\nexpected_output: x\n")
    with pytest.raises(RoleError, match=r"did you mean `\{input_json\}`"):
        load_template(role.task, role.template_folders)
    with pytest.raises(RoleError, match="did you mean `train`"):
        load_template("trian")


def test_a_plugin_adds_a_specialist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        "role": "Auditor", "goal": "g", "backstory": "b", "description": "d", "result_type": "literature",
        "task": "audit", "stage": "advise",
    }  # fmt: skip
    (tmp_path / "auditor.yaml").write_text(json.dumps(values))
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "audit.yaml").write_text("description: audit {input_json}\nexpected_output: x\n")
    answers = {"auditor": tmp_path / "auditor.yaml"}
    monkeypatch.setattr("posttrain_crew.agents.roles.hooks", lambda: FakeHooks(register_roles=answers))
    role = load_roles()["auditor"]
    assert role.specialist and load_template(role.task, role.template_folders).description.startswith("audit")


def test_the_literature_agents_answer_has_at_most_1500_words() -> None:
    ids = {"recipes": ["rec-1", "rec-2"], "papers": ["pap-1"]}
    assert LiteratureResult(**ids, summary="so " * 1497).recipes == ["rec-1", "rec-2"]
    with pytest.raises(ValidationError, match="1501 words"):
        LiteratureResult(**ids, summary="so " * 1498)
