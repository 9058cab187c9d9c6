"""A real Ray head on this machine for the tests, on ports of its own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

from tests.compute.slurm_cluster import free_ports

START_S = 90.0


def missing() -> str | None:
    """Why no head can be started here, or None."""
    if importlib.util.find_spec("ray") is None:
        return "Ray is not installed: pip install 'ray[default]'"
    return None


@contextmanager
def ray_head(root: Path) -> Iterator[str]:
    """The address of its dashboard. Ray's own sockets want a short path, so `root` must be one."""
    port, dashboard, client, agent, rpc = free_ports(5)
    command = [
        str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--num-cpus=3", "--num-gpus=0",
        f"--port={port}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}",
        f"--dashboard-agent-listen-port={agent}", f"--dashboard-agent-grpc-port={rpc}", "--dashboard-host=127.0.0.1",
        "--node-ip-address=127.0.0.1", f"--temp-dir={root}", "--object-store-memory=80000000",
        "--disable-usage-stats", "--include-dashboard=true",
    ]  # fmt: skip
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CREW_", "HF_", "RAY_"))}
    environment = {
        **kept,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "RAY_DISABLE_IMPORT_WARNING": "1",
    }
    with (root / "out.txt").open("ab") as out:
        head = subprocess.Popen(
            command, env=environment, stdout=out, stderr=out, stdin=subprocess.DEVNULL, start_new_session=True
        )
    address = f"http://127.0.0.1:{dashboard}"
    try:
        _wait(address, head, root)
        yield address
    finally:
        tree = psutil.Process(head.pid).children(recursive=True) if head.poll() is None else []
        head.kill()
        for process in [*tree, *_leftovers(root)]:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        head.wait(timeout=20)


def _leftovers(root: Path) -> list[psutil.Process]:
    """Processes of this head that name its folder on their command line."""
    found = []
    for process in psutil.process_iter():
        try:
            if any(str(root) in part for part in process.cmdline()):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def _wait(address: str, head: subprocess.Popen[bytes], root: Path) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            if httpx.get(f"{address}/nodes?view=summary", timeout=5).json()["data"]["summary"]:
                return
        except (httpx.HTTPError, ValueError, KeyError):
            pass
        if head.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the Ray head did not start: {(root / 'out.txt').read_text()[-2000:]}")
        time.sleep(0.2)
