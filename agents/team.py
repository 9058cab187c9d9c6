"""The team: runs work orders and plans with one fresh agent each, and puts typed results on the blackboard.

What an agent says is checked here and not believed: the result's type, and that every id in it exists. A failure of an
agent, its LLM or a tool is a WorkResult with `ok` false, so the loop can go on; only the user's interrupt passes.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pydantic import BaseModel

from posttrain_crew.agents.ledger import Ledger
from posttrain_crew.agents.roles import Role
from posttrain_crew.agents.verify import mentioned_ids, plan_problems, result_problems
from posttrain_crew.blackboard import Entry
from posttrain_crew.entries import EntryBody, SessionStarted, WorkOrder, WorkResult
from posttrain_crew.errors import AgentError, CrewError, RoleError, RunError
from posttrain_crew.plugins import hooks, merged
from posttrain_crew.redact import redact
from posttrain_crew.settings import Settings
from posttrain_crew.tasks.contracts import RESULT_TYPES, Plan
from posttrain_crew.tasks.prompts import load_template
from posttrain_crew.tools.tool import AgentTool, tools_of
from posttrain_crew.tools.workspace import Workspace

if TYPE_CHECKING:
    from crewai import BaseLLM

__all__ = ["Team"]

_COORDINATOR = "coordinator"
_MOST_ENTRY_CHARS = 6_000
_TRIES = 2


class Team:
    """The agents of one run. Orders may be run from several threads at once.

    Args:
        llm_spec: the LLM of roles that name none: `playbook` or a litellm model.

    Raises:
        RoleError: a role asks for a tool or template that does not exist.
        PluginError: two plugins offer the same desk.
    """

    def __init__(self, workspace: Workspace, roles: Mapping[str, Role], llm_spec: str, settings: Settings) -> None:
        self.roles = dict(roles)
        self._workspace = workspace
        self._llm_spec = llm_spec
        self._settings = settings
        self._desks = {
            desk: list(tools_of(made)) for desk, made in merged(hooks().register_tools(workspace=workspace)).items()
        }
        self._tools = {role.name: self._tools_of_role(role) for role in self.roles.values()}
        self._templates = {r.name: load_template(r.task, r.template_folders) for r in self.roles.values()}
        self._importing = threading.Lock()

    def roster(self) -> list[dict[str, Any]]:
        """The specialists that can be sent work, as the coordinator sees them."""
        return [role.roster() for role in self.roles.values() if role.specialist]

    def plan(self, brief: dict[str, Any]) -> Plan:
        """Ask the coordinator what is done next.

        Raises:
            AgentError: its plan was not usable twice, or its LLM failed.
            BudgetError: the LLM's tokens or price no longer fit.
        """
        role = self._role(_COORDINATOR)
        task_input = {"specialist": role.name, "brief": {"roster": self.roster(), **brief}}
        label = f"llm:plan:{self._workspace.board.last_seq()}"
        ledger = Ledger(self._workspace.budget, label, free=self._is_free(role))
        names = {name for name, other in self.roles.items() if other.specialist}
        with ledger.open(self._llm(role, ledger)):
            result = self._ask(
                role, task_input, ledger, lambda plan: plan_problems(self._workspace.board, cast("Plan", plan), names)
            )
        return cast("Plan", result)

    def run(self, order: Entry[WorkOrder]) -> Entry[WorkResult]:
        """Have an order done. An order that has a result already is not done again."""
        board, body = self._workspace.board, order.body
        if (found := board.by_key(f"result:{order.id}")) is not None:
            return board.typed(found.id, WorkResult)
        started = time.monotonic()
        self._workspace.events.emit(
            "order_started", order=order.id, specialist=body.specialist, objective=body.objective
        )
        label = f"llm:{order.id}:{len(self._workspace.board.of(SessionStarted))}"  # each session pays for its own calls
        ledger = Ledger(self._workspace.budget, label, free=self._llm_spec == "playbook")
        refs, values = [order.id], dict[str, Any]()
        try:
            role = self._role(body.specialist)
            ledger.free = self._is_free(role)
            with ledger.open(self._llm(role, ledger), refs=(order.id,)):
                result = self._ask(role, self._input(role, order), ledger, lambda done: result_problems(board, done))
            values = {"ok": True, "result": result.model_dump(mode="json")}
            refs += [name for name in mentioned_ids(result) if name != order.id]
        except CrewError as error:
            values = {"ok": False, "error": f"{type(error).__name__}: {redact(str(error))}"}
        except Exception as error:  # noqa: BLE001 - whatever crewai or a plugin raises is this order's failure, not the run's
            values = {"ok": False, "error": f"{type(error).__name__}: {redact(str(error))[:800]} (order {order.id})"}
        wall = time.monotonic() - started
        self._workspace.events.emit(
            "order_ended", order=order.id, specialist=body.specialist, ok=values["ok"], wall_s=round(wall, 3),
            error=values.get("error"),
        )  # fmt: skip
        return board.post(
            WorkResult(
                specialist=body.specialist,
                wall_s=round(wall, 3),
                llm_calls=ledger.calls,
                tokens=ledger.tokens,
                usd=ledger.usd,
                **values,
            ),
            author=body.specialist,
            refs=tuple(refs),
            key=f"result:{order.id}",
        )

    def _ask(self, role: Role, task_input: dict[str, Any], ledger: Ledger, check: Any) -> BaseModel:
        """The role's result after `check` found nothing wrong; one more try with what it found.

        Raises:
            AgentError: the second result is no better.
        """
        self._import_crewai()
        from posttrain_crew.agents.work import Job, work

        result_type = RESULT_TYPES[role.result_type]
        text, expected = self._templates[role.name].render(task_input, result_type)
        feedback = ""
        for _ in range(_TRIES):
            job = Job(
                role=role,
                llm=self._llm(role, ledger),
                tools=self._tools[role.name],
                description=text + feedback,
                expected_output=expected,
                result=result_type,
                target=self._workspace.target,
                events=self._workspace.events,
            )
            result = work(job)
            problems: list[str] = check(result)
            if not problems:
                return result
            feedback = "\n\nYour earlier result was refused:\n" + "\n".join(f"- {problem}" for problem in problems)
        raise AgentError(f"the result of the role `{role.name}` was refused twice: {'; '.join(problems)}")

    def _input(self, role: Role, order: Entry[WorkOrder]) -> dict[str, Any]:
        body, target = order.body, self._workspace.target
        return {
            "specialist": role.name,
            "order": {
                "id": order.id,
                "objective": body.objective,
                "inputs": body.inputs,
                "parameters": body.parameters,
                "budget_seconds": body.budget_seconds,
            },
            "target": {
                "name": target.name,
                "title": target.title,
                "description": target.description,
                "domains": target.domains,
                "answer": target.answer.model_dump(mode="json"),
                "goal": target.goal,
            },
            "entries": self._entries([*body.inputs, *mentioned_ids(body.parameters)]),
            "seed": self._workspace.started.seed,
        }

    def _entries(self, ids: Iterable[str]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name in dict.fromkeys(ids):
            entry: Entry[EntryBody] = self._workspace.board.get(name)
            value = {"kind": entry.kind, "status": entry.status, **entry.body.model_dump(mode="json")}
            text = json.dumps(value, ensure_ascii=False)
            found[name] = (
                value if len(text) <= _MOST_ENTRY_CHARS else {"kind": entry.kind, "cut": text[:_MOST_ENTRY_CHARS]}
            )
        return found

    def _role(self, name: str) -> Role:
        if name not in self.roles:
            raise RoleError(f"there is no role `{name}` on this team (there are {', '.join(sorted(self.roles))}).")
        return self.roles[name]

    def _is_free(self, role: Role) -> bool:
        return (role.llm or self._llm_spec) == "playbook"

    def _llm(self, role: Role, ledger: Ledger) -> BaseLLM:
        self._import_crewai()
        from posttrain_crew.agents.llm.factory import make_llm

        return make_llm(role.llm or self._llm_spec, self._settings, ledger.record)

    def _tools_of_role(self, role: Role) -> list[AgentTool]:
        by_name: dict[str, AgentTool] = {}
        for tools in self._desks.values():
            by_name.update({tool.name: tool for tool in tools})
        chosen: dict[str, AgentTool] = {}
        for wanted in role.tools:
            if wanted in by_name:
                chosen[wanted] = by_name[wanted]
            elif wanted in self._desks:
                chosen.update({tool.name: tool for tool in self._desks[wanted]})
            else:
                raise RoleError(
                    f"the role `{role.name}` asks for the tool `{wanted}`, which no desk offers. Tools: "
                    f"{', '.join(sorted(by_name))}; desks: {', '.join(sorted(self._desks))}."
                )
        online = self._workspace.services.online
        return [tool for tool in chosen.values() if online or not tool.online]

    def _import_crewai(self) -> None:
        """Import crewai once, with its files in the run directory.

        Raises:
            RunError: crewai cannot make its folder in the home directory.
        """
        with self._importing:
            os.environ["CREWAI_STORAGE_DIR"] = str(self._workspace.run.root / "crewai")
            try:
                import crewai  # noqa: F401 - the import itself writes to HOME
            except OSError as error:
                raise RunError(
                    f"crewai could not be imported because it makes a folder in the home directory {Path.home()}, "
                    f"which is not writable ({error.strerror or error}). Set HOME to a directory that you can write to."
                ) from error
