"""From result files to typed entries: the evaluation of one job, and the paired comparison of two evaluations.

Only results.json and samples.jsonl are read, never a log. A comparison stands on the same items under the same prompts,
shown by the hashes that lm-eval computed of each document and each rendered prompt; anything else is refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from posttrain_crew.blackboard import Entry
from posttrain_crew.entries import Comparison, Evaluation, JobStarted
from posttrain_crew.errors import GateError, JobError
from posttrain_crew.files import sha256_file
from posttrain_crew.tools.evaluation.run import RESULTS_FILE, SAMPLES_FILE
from posttrain_crew.tools.evaluation.statistics import mcnemar_exact, paired_bootstrap, paired_cells, wilson
from posttrain_crew.tools.workspace import Workspace

__all__ = ["collect", "compare", "read_results", "read_samples", "summary"]

Metric = Literal["strict", "lenient"]


def read_results(directory: Path) -> dict[str, Any]:
    """What results.json in `directory` holds, checked against the samples file beside it.

    Raises:
        JobError: a file is missing or malformed, or the samples are not those that were scored.
    """
    path = directory / RESULTS_FILE
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        found = sha256_file(directory / SAMPLES_FILE)
    except (OSError, ValueError) as error:
        raise JobError(f"the evaluation in {directory} left no readable result files: {error}") from error
    if not isinstance(results, dict) or results.get("samples_sha256") != found:
        raise JobError(
            f"{directory / SAMPLES_FILE} is not the file that was scored: its sha256 is {found[:12]}…, and "
            f"{RESULTS_FILE} names another. It was changed afterwards; evaluate again."
        )
    return results


def read_samples(directory: Path) -> list[dict[str, Any]]:
    """The items of samples.jsonl in `directory`, in the order of the benchmark. Raises JobError as `read_results`."""
    path = directory / SAMPLES_FILE
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise JobError(f"the samples file {path} cannot be read: {error}") from error


def summary(directory: Path) -> dict[str, Any]:
    """Aggregates of one evaluation: the fields of `Evaluation` that its files determine.

    Raises:
        JobError: as `read_results`, or the counts of the two files differ.
    """
    results, samples = read_results(directory), read_samples(directory)
    n = len(samples)
    strict = sum(sample["strict_ok"] for sample in samples)
    lenient = sum(sample["lenient_ok"] for sample in samples)
    if not n or (n, strict, lenient) != (results["n"], results["strict"]["correct"], results["lenient"]["correct"]):
        raise JobError(f"{directory}: {RESULTS_FILE} and {SAMPLES_FILE} do not count the same right answers.")
    valid = sum(sample["strict_answer"] != results["invalid_answer"] for sample in samples)
    interval, patient = wilson(strict, n), wilson(lenient, n)
    return {
        "split": results["split"],
        "task": results["task"],
        "few_shot": results["few_shot"],
        "n": n,
        "score": strict / n,
        "ci_low": interval.low,
        "ci_high": interval.high,
        "lenient_score": lenient / n,
        "lenient_ci_low": patient.low,
        "lenient_ci_high": patient.high,
        "format_valid_rate": valid / n,
        "accuracy_given_valid": strict / valid if valid else None,
        "mean_output_chars": sum(len(sample["response"]) for sample in samples) / n,
        "truncated_rate": results["truncated"] / max(1, results["generated"]),
        "harness": results["harness"],
        "samples_sha256": results["samples_sha256"],
    }


def collect(workspace: Workspace, job: Entry[JobStarted]) -> Entry[Evaluation]:
    """Post the evaluation that a finished job left in its files; the same job again returns the first entry.

    Raises:
        JobError: the files are missing, malformed or contradict each other.
    """
    key = f"evaluation:{job.body.label}"
    if (posted := workspace.board.by_key(key)) is not None:
        return workspace.board.typed(posted.id, Evaluation)
    subject = job.body.subject
    refs = (job.id,) if subject == "base" else (job.id, subject)
    found = summary(workspace.run.absolute(job.body.directory))
    entry = workspace.board.post(
        Evaluation(subject=subject, directory=job.body.directory, **found), author="evaluation", refs=refs, key=key
    )
    body = entry.body
    workspace.events.emit(
        "evaluation",
        id=entry.id,
        subject=subject,
        split=body.split,
        few_shot=body.few_shot,
        n=body.n,
        score=round(body.score, 4),
        ci_low=round(body.ci_low, 4),
        ci_high=round(body.ci_high, 4),
    )
    return entry


def compare(
    workspace: Workspace, candidate_eval: Entry[Evaluation], reference_eval: Entry[Evaluation], metric: Metric
) -> Entry[Comparison]:
    """Paired test of two evaluations on the same items; posted once per pair and metric.

    Raises:
        GateError: the two did not answer the same items under the same prompts, naming the difference.
        JobError: a samples file is missing, or is not the one that the evaluation was computed from.
    """
    key = f"comparison:{candidate_eval.id}:{reference_eval.id}:{metric}"
    if (posted := workspace.board.by_key(key)) is not None:
        return workspace.board.typed(posted.id, Comparison)
    ours, theirs = candidate_eval.body, reference_eval.body
    for name in ("split", "task", "few_shot", "n"):
        if getattr(ours, name) != getattr(theirs, name):
            raise _unlike(candidate_eval, reference_eval, f"{name} {getattr(ours, name)} and {getattr(theirs, name)}")
    left, right = _verified(workspace, candidate_eval), _verified(workspace, reference_eval)
    for a, b in zip(left, right, strict=True):
        for name in ("doc_id", "doc_hash", "prompt_hash"):
            if a[name] != b[name]:
                raise _unlike(candidate_eval, reference_eval, f"item {a['id']} and {b['id']} differ in {name}")
    first, second = ([bool(sample[f"{metric}_ok"]) for sample in samples] for samples in (left, right))
    cells = paired_cells(first, second)
    interval = paired_bootstrap(first, second, seed=workspace.started.seed)
    return workspace.board.post(
        Comparison(
            candidate=ours.subject,
            reference=theirs.subject,
            split=ours.split,
            metric=metric,
            n=cells.n,
            delta=cells.delta,
            ci_low=interval.low,
            ci_high=interval.high,
            p_value=mcnemar_exact(cells.gained, cells.lost),
            gained=cells.gained,
            lost=cells.lost,
        ),
        author="evaluation",
        refs=(candidate_eval.id, reference_eval.id),
        key=key,
    )


def _unlike(candidate: Entry[Evaluation], reference: Entry[Evaluation], difference: str) -> GateError:
    return GateError(
        f"{candidate.id} ({candidate.body.subject}) and {reference.id} ({reference.body.subject}) cannot be compared: "
        f"{difference}. A paired test needs the same items under the same prompts; evaluate both the same way."
    )


def _verified(workspace: Workspace, evaluation: Entry[Evaluation]) -> list[dict[str, Any]]:
    directory = workspace.run.absolute(evaluation.body.directory)
    try:
        found = sha256_file(directory / SAMPLES_FILE)
    except OSError as error:
        raise JobError(f"the samples of {evaluation.id} in {directory} cannot be read: {error}") from error
    if found != evaluation.body.samples_sha256:
        raise JobError(f"the samples of {evaluation.id} in {directory} were changed after it was posted.")
    return read_samples(directory)
