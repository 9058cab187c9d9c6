"""The driver of a Ray job on several nodes: one torchrun on each of them, which meet at the first.

    python -m posttrain_crew.tools.compute.ray_nodes NODES PROCESSES CPUS GPUS MODULE CONFIG

It runs inside the cluster, where ray is. The nodes are asked for as one placement group, so that either all of them
are had or none; CPUS and GPUS are those of one process. Where one torchrun fails, the others are ended with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
from typing import Any

__all__ = ["main", "node_command"]

_PARENT_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of prctl(2)."""


def node_command(nodes: int, processes: int, rank: int, address: str, port: int, module: list[str]) -> list[str]:
    """torchrun on the node of this rank."""
    shape = [f"--nnodes={nodes}", f"--nproc-per-node={processes}", f"--node-rank={rank}"]
    meeting = [f"--master-addr={address}", f"--master-port={port}"]
    return [sys.executable, "-m", "torch.distributed.run", *shape, *meeting, "-m", *module]


def main(arguments: list[str]) -> int:
    """The exit code is 0 when all nodes ended well, else that of the first that did not."""
    nodes, processes = int(arguments[0]), int(arguments[1])
    cpus, gpus = float(arguments[2]), float(arguments[3])
    module, directory = arguments[4:], os.getcwd()  # noqa: PTH109 - a string for another machine
    import ray
    from ray.util.placement_group import placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    ray.init(log_to_driver=True)
    needed = {"CPU": max(cpus, 0.01) * processes, **({"GPU": gpus * processes} if gpus else {})}
    group = placement_group([needed] * nodes, strategy="SPREAD")
    ray.get(group.ready())

    def on_node(index: int, function: Any) -> Any:
        where = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index)
        return ray.remote(function).options(
            num_cpus=needed["CPU"], num_gpus=needed.get("GPU", 0), scheduling_strategy=where, max_retries=0
        )

    address, port = ray.get(on_node(0, _meeting_place).remote())
    waiting = [
        on_node(rank, _run).remote(node_command(nodes, processes, rank, address, port, module), directory)
        for rank in range(nodes)
    ]
    code = 0
    while waiting and code == 0:
        (done,), waiting = ray.wait(waiting, num_returns=1)
        code = int(ray.get(done))
    for running in waiting:
        with contextlib.suppress(ray.exceptions.RayError):
            ray.cancel(running, force=True)
    return code


def _meeting_place() -> tuple[str, int]:
    """Address of this node and a free port on it."""
    import ray

    with socket.socket() as free:
        free.bind(("", 0))
        return ray.util.get_node_ip_address(), int(free.getsockname()[1])


def _run(command: list[str], directory: str) -> int:
    """Run torchrun to its end; it dies with the Ray worker that started it, so that a stopped job leaves nothing."""

    def die_with_me() -> None:
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGTERM)

    return subprocess.call(command, cwd=directory, preexec_fn=die_with_me)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
