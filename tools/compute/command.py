"""The command line and the variables of a job, the same on every backend."""

from __future__ import annotations

from posttrain_crew.tools.compute.base import DIRECTORY_VARIABLE, LABEL_VARIABLE, THREAD_VARIABLES, JobSpec

__all__ = ["job_command", "job_variables"]


def job_command(spec: JobSpec, python: str | None, config: str, rendezvous: list[str] | None = None) -> list[str]:
    """`python -m MODULE CONFIG`, under torchrun where the job has several processes.

    Args:
        config: path of the config as the job sees it.
        rendezvous: torchrun's options that bring the nodes together; None on a single one.
    """
    from posttrain_crew.tools.training.environment import python_for  # which reads configs, and compute does without

    python = python_for(spec.config, python)
    module = ["-m", spec.module, config]
    # DeepSpeed meets itself by torchrun's variables even where it is one process alone
    if spec.nodes == 1 and spec.processes == 1 and "ACCELERATE_USE_DEEPSPEED" not in spec.environment:
        return [python, *module]
    together = rendezvous if rendezvous is not None else ["--standalone"]
    shape = [f"--nnodes={spec.nodes}", f"--nproc-per-node={spec.processes}"]
    return [python, "-m", "torch.distributed.run", *shape, *together, *module]


def job_variables(spec: JobSpec, directory: str, threads: int) -> dict[str, str]:
    """What every job gets in its environment. Nothing of it is a secret."""
    return {
        **{name: str(threads) for name in THREAD_VARIABLES},
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        LABEL_VARIABLE: spec.label,
        DIRECTORY_VARIABLE: directory,
        **spec.environment,
    }
