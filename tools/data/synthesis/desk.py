"""The synthesis desk: what the data agent can have made. A made dataset is a candidate like any other: it is audited
before it is used."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from posttrain_crew.entries import BudgetSettled, DatasetProfile, JobOutcome, JobStarted
from posttrain_crew.errors import BudgetError, GateError, InputError, JobError
from posttrain_crew.files import canonical_json, sha256_text
from posttrain_crew.settings import Settings, cache_dir
from posttrain_crew.tools.compute.jobs import MAX_ATTEMPTS, JobRequest, launch, relaunch, wait
from posttrain_crew.tools.data.audit import Auditor
from posttrain_crew.tools.data.cleaning import read
from posttrain_crew.tools.data.hub.shelf import HubShelf
from posttrain_crew.tools.data.reader import Dataset, find_dataset, is_denied, list_datasets, open_dataset
from posttrain_crew.tools.data.synthesis.chat import Allowance
from posttrain_crew.tools.data.synthesis.litellm_complete import LiteLLMComplete
from posttrain_crew.tools.data.synthesis.pipeline import CARD
from posttrain_crew.tools.data.synthesis.plan import Card, Difficulty, Plan, VerifierChoice
from posttrain_crew.tools.data.synthesis.registry import catalogue, find_generator, make_parameters, verifier_names
from posttrain_crew.tools.data.synthesis.run import JobConfig, carry_out
from posttrain_crew.tools.data.synthesis.specification import SHIPPED
from posttrain_crew.tools.tool import agent_tool
from posttrain_crew.tools.workspace import Workspace

__all__ = ["SynthesisDesk", "synthetic_datasets", "synthetic_folder"]

PREFIX = "synthetic/"

MAX_ROWS = 5000
SECONDS_PER_TOKEN = 0.0002
"""First guess of the time of sampling: 36,000 tokens took 7 s on one core with the embedded model."""
DEFAULT_NEW_TOKENS = 256
CHECKS = ("answer_match", "format", "arithmetic_check")
"""For rows that a model writes; computed rows need none."""
OPEN_CHECKS = ("format", "length")
LLM_TOKENS = 200_000
"""Tokens of the run's LLM that one call may use, unless the run's own limit leaves less."""
LLM_SECONDS = 60.0
"""Set aside for them; requests go side by side."""


def synthetic_folder(workspace: Workspace) -> Path:
    """Where a run's made datasets lie, one folder each."""
    return workspace.run.data / "synthetic"


def synthetic_datasets(workspace: Workspace) -> list[Dataset]:
    """The finished ones, as candidates named `synthetic/...`; one that was interrupted is left out until it is done."""
    folder = synthetic_folder(workspace)
    if not folder.is_dir():
        return []
    done = [path for path in sorted(folder.iterdir()) if (path / CARD).is_file()]
    return [open_dataset(path, f"{PREFIX}{path.name}") for path in done]


@dataclass(frozen=True)
class _Source:
    """An audited candidate."""

    dataset: Dataset
    rows: list[int]
    """Numbers of its clean rows."""
    profile: str
    """Id of the audit's entry."""


class SynthesisDesk:
    """Tools of the data agent, bound to a run."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._sources: dict[str, _Source] = {}

    @agent_tool
    def list_generators(self) -> list[dict[str, Any]]:
        """List what synthesize_rows can use: generators with their parameters and needs, and verifiers."""
        found = catalogue()
        return [{"kind": kind, **each} for kind in ("generators", "verifiers") for each in found[kind]]

    @agent_tool
    def synthesize_rows(
        self,
        generator: Annotated[str, "name from list_generators, for example rejection_sampling or procedural"],
        dataset: Annotated[str | None, "audited candidate whose questions are used; null where none is needed"] = None,
        rows: Annotated[int, "rows to make, at most 5000; the checks leave fewer"] = 500,
        parameters: Annotated[
            dict[str, str | int | float | bool] | None, "of the generator; null is its defaults"
        ] = None,
        model: Annotated[str, "`base`, an experiment id, or `llm`: who writes"] = "base",
        difficulty: Annotated[
            bool, "keep only questions that this model gets right sometimes, not never or always"
        ] = False,
        verifiers: Annotated[list[str] | None, "checks; null is the usual ones for this generator"] = None,
    ) -> dict[str, Any]:
        """Make a dataset of synthetic rows: sampled or computed, verified, without repeats or benchmark items.

        `rejection_sampling` lets the model answer a dataset's questions and keeps right answers: it needs `dataset`.
        `specification` writes items from a file of edge cases with `model="llm"`. Others compute their answers. The
        result is a new candidate, `synthetic/...`: audit it before you build a training set from it. Counts say what
        became of the rows at each stage. The same call again returns the same dataset.
        """
        if not 1 <= rows <= MAX_ROWS:
            raise InputError(f"rows must be 1 to {MAX_ROWS}; {rows} was given.")
        made = find_generator(generator)
        needs = made.needs
        params = dict(parameters or {})
        if "spec" in params:
            params["spec"] = self._specification(str(params["spec"]))
        make_parameters(made.parameters, params, f"the generator `{generator}`")
        source = self._permitted(dataset) if dataset is not None else None
        if "questions" in needs and source is None:
            raise InputError(f"`{generator}` needs `dataset`: an audited candidate with questions and answers.")
        if "specification" in needs and model != "llm":
            raise InputError(f"`{generator}` is for a language model: set `model` to `llm`.")
        checks = self._checks(needs, verifiers)
        started = self._workspace.started
        asked = [generator, dataset, rows, params, model, difficulty, checks, started.seed]
        mark = sha256_text(canonical_json(asked))[:12]
        name = f"{generator.replace('_', '-')}-{mark}"
        plan = Plan(
            name=name,
            generator=generator,
            params=params,
            verifiers=[VerifierChoice(name=check) for check in checks],
            rows=rows,
            seed=started.seed,
            difficulty=Difficulty(max_tokens=self._new_tokens(generator, params)) if difficulty else None,
        )
        folder = synthetic_folder(self._workspace) / name
        config = self._config(plan, folder, source, model, with_writer="model" in needs)
        refs = () if source is None else (source.profile,)
        card = self._by_llm(config, mark, refs) if model == "llm" else self._by_job(config, mark, model, refs)
        self._workspace.events.emit("rows_synthesised", dataset=f"{PREFIX}{name}", rows=card.rows, sha256=card.sha256)
        return {
            "dataset": f"{PREFIX}{name}",
            "rows": card.rows,
            "distinct": card.distinct,
            "sha256": card.sha256,
            "counts": card.counts,
            "left_out": card.left_out,
        }

    def _config(self, plan: Plan, folder: Path, source: _Source | None, model: str, *, with_writer: bool) -> JobConfig:
        workspace = self._workspace
        more: dict[str, Any] = {"batch_size": workspace.target.evaluation.batch_size}
        subject = "base" if model == "llm" else model
        if source is not None:
            dataset = source.dataset
            more |= {"data": dataset.folder, "data_name": dataset.name, "data_rows": source.rows}
        if with_writer and model != "llm":
            more |= {"model": workspace.checkpoint(subject), "model_name": subject}
        if plan.difficulty is not None:
            more |= {"student": workspace.checkpoint(subject), "student_name": subject}
        return JobConfig.of(plan, workspace.target, folder, **more)

    def _by_job(self, config: JobConfig, mark: str, model: str, refs: tuple[str, ...]) -> Card:
        """Sampling runs as a job, so that it has a slot, a time limit and an outcome like a training."""
        workspace = self._workspace
        label = f"synthesis-{mark}"
        sampled = config.model is not None or config.student is not None
        attempts = [e for e in workspace.board.of(JobStarted) if e.body.label.partition(".")[0] == label]
        job = max(attempts, key=lambda entry: entry.body.attempt, default=None)
        if job is None:
            request = JobRequest(
                label=label,
                role="probe",
                subject=model,
                module="posttrain_crew.tools.data.synthesis.run",
                directory=workspace.run.data / label,
                config=config.model_dump(mode="json"),
                estimate_seconds=workspace.target.training.startup_seconds
                + (self._tokens(config.plan) * SECONDS_PER_TOKEN if sampled else 5.0),
                refs=refs,
            )
            job = launch(workspace, request)
        elif job.body.attempt < MAX_ATTEMPTS:
            ended = {entry.body.label: entry.body for entry in workspace.board.of(JobOutcome)}
            known = ended.get(job.body.label)
            if known is not None and known.error_class in ("killed", "cancelled", "timeout"):
                job = relaunch(workspace, job)  # its samples are kept: nothing is sampled twice
        outcome = wait(workspace, job).body
        if not outcome.ok:
            raise JobError(
                f"the synthesis failed ({outcome.error_class}): {outcome.message[:1000]} If it was killed, the same "
                "call goes on with the samples that it has."
            )
        return _card_of(config.out)

    def _by_llm(self, config: JobConfig, mark: str, refs: tuple[str, ...]) -> Card:
        """Asked from here and not from a job: a job is given no key."""
        workspace = self._workspace
        settings = Settings()
        llm = LiteLLMComplete(workspace.started.llm, settings)
        used, limits = workspace.budget.usage(), workspace.budget.limits
        tokens = LLM_TOKENS if limits.tokens is None else min(LLM_TOKENS, limits.tokens - used.tokens)
        usd = llm.price(tokens // 2, tokens // 2)
        if limits.usd is not None and usd is not None:
            usd = min(usd, limits.usd - used.usd)
        if tokens < 1 or (usd is not None and usd < 0):
            raise BudgetError("nothing is left in the run's budget for a language model.")
        earlier = sum(entry.body.label.startswith(f"synthesis-{mark}") for entry in workspace.board.of(BudgetSettled))
        label = f"synthesis-{mark}-{earlier}"
        workspace.budget.reserve(label, wall_s=LLM_SECONDS, tokens=tokens, usd=usd, refs=refs)
        # a price that is not known passes only where the run has no limit in USD (reserve)
        allowance = Allowance(tokens=tokens, usd=usd if limits.usd is not None else None, per_call=True)
        started = time.monotonic()
        try:
            return carry_out(config, llm=llm, allowance=allowance)
        finally:
            workspace.budget.settle(
                label,
                wall_s=time.monotonic() - started,
                tokens=allowance.spent.tokens,
                usd=allowance.spent.usd or 0.0,
            )

    def _specification(self, name: str) -> str:
        """A specification by its name: shipped, or in the folder `specs` beside the target's file. A path would let an
        agent have any file of this machine read."""
        origin = self._workspace.target.origin
        folders = [*([origin.parent / "specs"] if origin is not None else []), SHIPPED]
        known = {path.stem: path for folder in reversed(folders) for path in sorted(folder.glob("*.yaml"))}
        if name not in known:
            raise InputError(f"there is no specification {name[:100]!r}. Known: {', '.join(sorted(known))}.")
        return str(known[name])

    def _checks(self, needs: tuple[str, ...], wanted: list[str] | None) -> list[str]:
        if wanted is not None:
            if unknown := set(wanted) - set(verifier_names()):
                names = ", ".join(sorted(unknown))
                raise InputError(f"there is no verifier {names}. Known: {', '.join(verifier_names())}.")
            return list(dict.fromkeys(wanted))
        return list(OPEN_CHECKS if "specification" in needs else CHECKS)

    def _new_tokens(self, generator: str, params: dict[str, Any]) -> int:
        made = make_parameters(find_generator(generator).parameters, params, f"the generator `{generator}`")
        return int(getattr(made, "max_tokens", DEFAULT_NEW_TOKENS))

    def _tokens(self, plan: Plan) -> int:
        """New tokens of a synthesis at most, for the estimate of its time."""
        made = make_parameters(
            find_generator(plan.generator).parameters, plan.params, f"the generator `{plan.generator}`"
        )
        each = int(getattr(made, "max_tokens", 0)) * int(getattr(made, "samples", 1))
        student = plan.difficulty.samples * plan.difficulty.max_tokens if plan.difficulty is not None else 0
        return plan.rows * (each + student)

    def _permitted(self, name: str) -> _Source:
        workspace = self._workspace
        services = workspace.services
        shelf = list_datasets(workspace.target, cache_dir(), workspace.started.seed, services.shipped)
        shelf += [dataset for _, dataset in HubShelf(workspace).datasets()]
        dataset = find_dataset(shelf, name)
        if pattern := is_denied(dataset, workspace.target.deny_datasets):
            raise GateError(f"`{name}` meets `{pattern}` of the target's deny list: nothing may be made from it.")
        profile = next((e for e in reversed(workspace.board.of(DatasetProfile)) if e.body.dataset == name), None)
        if profile is None:
            raise GateError(f"`{name}` was not audited. Call audit_dataset first.")
        if profile.body.verdict == "rejected":
            raise GateError(f"`{name}` was rejected by {profile.id}: {profile.body.reason[:500]} Choose another one.")
        if name not in self._sources or self._sources[name].profile != profile.id:
            auditor = Auditor(workspace.target, workspace.base_model)
            examination = auditor.examine(read(dataset, auditor.thresholds.audit_rows))
            clean = [i for i in examination.readable if i not in examination.drops]
            self._sources[name] = _Source(dataset, clean, profile.id)
        return self._sources[name]


def _card_of(folder: Path) -> Card:
    try:
        return Card.model_validate_json((folder / CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise JobError(f"the card of the made dataset in {folder} cannot be read: {error}") from error
