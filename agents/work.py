"""One agent at one task: a fresh crewai Agent, Task and sequential Crew, whose typed answer comes back.

The only module besides adapter.py and llm/ that imports crewai; `Team` imports it when the first work is done.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

from crewai import Agent, BaseLLM, Crew, CrewOutput, Process, Task
from crewai.events.utils.console_formatter import set_suppress_console_output
from pydantic import BaseModel, ValidationError

from posttrain_crew.agents.adapter import CrewaiTool, Faults
from posttrain_crew.agents.llm.litellm_chat import LiteLLMChat
from posttrain_crew.agents.roles import Role
from posttrain_crew.errors import AgentError, CrewError
from posttrain_crew.events import Events
from posttrain_crew.redact import redact
from posttrain_crew.target import Target
from posttrain_crew.tools.tool import AgentTool

__all__ = ["Job", "work"]


@dataclass(frozen=True)
class Job:
    """What one agent is asked to do."""

    role: Role
    llm: BaseLLM
    """Made for this job alone."""
    tools: Sequence[AgentTool]
    description: str
    expected_output: str
    result: type[BaseModel]
    target: Target
    events: Events
    faults: Faults = field(default_factory=list)


def work(job: Job) -> BaseModel:
    """The validated result.

    Raises:
        CrewError: as a tool's or the LLM's own typed error.
        AgentError: the agent ended without a result of the asked type, or a tool broke.
    """
    set_suppress_console_output(True)
    for logger in ("crewai", "LiteLLM"):  # what they would log comes back as a typed error
        logging.getLogger(logger).setLevel(logging.CRITICAL)
    role, target = job.role, job.target
    if isinstance(job.llm, LiteLLMChat):
        job.llm.knowing({tool.name: tool.arguments.model_json_schema() for tool in job.tools})
    agent = Agent(
        role=role.speak(role.role, target).strip(),
        goal=role.speak(role.goal, target).strip(),
        backstory=role.speak(role.backstory, target).strip(),
        llm=job.llm,
        tools=[CrewaiTool.make(tool, role.name, job.events, job.faults) for tool in job.tools],
        max_iter=role.max_iter,
        max_retry_limit=0,  # a second try of crewai's own would repeat side effects
        use_better_compaction=False,
        allow_delegation=False,
        verbose=False,
    )
    task = Task(
        name=role.name,
        description=job.description,
        expected_output=job.expected_output,
        agent=agent,
        output_pydantic=job.result,
    )
    crew = Crew(agents=[agent], tasks=[task], process=Process.sequential, verbose=False, cache=False, memory=False)
    try:
        output = cast("CrewOutput", crew.kickoff())  # the other type is for stream=True
    except Exception as error:
        _raise_fault(job)
        raise _typed(error, role) from error
    _raise_fault(job)
    if isinstance(output.pydantic, job.result):
        return output.pydantic
    try:
        return job.result.model_validate_json(output.raw)
    except ValidationError as error:
        problems = "; ".join(f"`{'.'.join(map(str, e['loc']))}`: {e['msg']}" for e in error.errors()[:5])
        raise AgentError(
            f"the role `{role.name}` answered with something that is no {job.result.__name__}: {problems}. "
            f"It began: {redact(output.raw[:200])!r}."
        ) from error


def _raise_fault(job: Job) -> None:
    if job.faults:
        fault = job.faults[0]
        raise AgentError(
            f"a tool of the role `{job.role.name}` broke with {type(fault).__name__}: {redact(str(fault))[:500]}. This "
            "is a defect of the tool and not of the agent; the events file of the run shows which call it was."
        ) from fault


def _typed(error: Exception, role: Role) -> CrewError:
    """The CrewError inside a crewai exception, or an AgentError that quotes it."""
    cause: BaseException | None = error
    for _ in range(10):
        if cause is None:
            break
        if isinstance(cause, CrewError):
            return cause
        cause = cause.__cause__ or cause.__context__
    text = " ".join(redact(str(error)).split())[:600]
    return AgentError(
        f"the role `{role.name}` did not finish its work: {type(error).__name__}: {text} Try another model, or raise "
        "`max_iter` in the role's YAML file."
    )
