"""A real Slurm on this machine for the tests: munged, slurmctld and two slurmd, under a temporary folder.

No accounting database: `sacct` does not work here, so the states come from `squeue` and `scontrol`, as on many small
clusters. Both nodes are this machine, on ports of their own.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel")
START_S = 40.0
CONF = """\
ClusterName=crewtest
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld_port}
AuthType=auth/munge
AuthInfo=socket={root}/munge.socket
CredType=cred/munge
MpiDefault=none
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool-%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd-%n.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd-%n.log
SwitchType=switch/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SchedulerType=sched/builtin
SchedulerParameters=sched_min_interval=100000,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SlurmdTimeout=4
SlurmctldTimeout=30
MessageTimeout=5
InactiveLimit=0
KillWait=2
MinJobAge=900
JobRequeue=1
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
SlurmdParameters=config_overrides
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={n1_port} CPUs=1 RealMemory=4000 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={n2_port} CPUs=1 RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=24:00:00 State=UP
PartitionName=closed Nodes=n1,n2 MaxTime=24:00:00 State=DOWN
"""


def missing() -> str | None:
    """Why no cluster can be started here, or None."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]
    if absent:
        return f"Slurm is not installed ({', '.join(absent)}): apt-get install slurm-wlm munge"
    if os.geteuid() != 0:
        return "slurmd starts the jobs' processes and needs root"
    return None


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


class SlurmCluster:
    """The running cluster."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.conf = root / "slurm.conf"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        for name in ("state", "spool-n1", "spool-n2"):
            (self.root / name).mkdir()
        key = self.root / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        host = socket.gethostname().split(".")[0]
        ports = dict(zip(("ctld_port", "n1_port", "n2_port"), free_ports(3), strict=True))
        self.conf.write_text(CONF.format(root=self.root, host=host, user="root", **ports))
        self._run(
            "munged", "--foreground", "--force", f"--socket={self.root}/munge.socket", f"--key-file={key}",
            f"--pid-file={self.root}/munged.pid", f"--log-file={self.root}/munged.log",
            f"--seed-file={self.root}/munged.seed",
        )  # fmt: skip
        _until(lambda: (self.root / "munge.socket").exists(), "munged")
        self._run("slurmctld", "-D", "-f", str(self.conf))
        self.start_node("n1")
        self.start_node("n2")
        _until(lambda: self.nodes() == {"n1": "idle", "n2": "idle"}, "the nodes", self._logs)

    def stop(self) -> None:
        for name in ("n1", "n2"):
            self.kill_node(name)
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()

    def start_node(self, name: str) -> None:
        self._run("slurmd", "-D", "-N", name, "-f", str(self.conf), key=name)

    def kill_node(self, name: str) -> None:
        """As when a machine loses its power: slurmd, its step daemons and the jobs' processes, all by SIGKILL."""
        process = self._processes.pop(name, None)
        if process is None:
            return
        victims = [psutil.Process(process.pid)] if process.poll() is None else []
        for member in psutil.process_iter():
            try:
                if member.name() == "slurmstepd" and self._is_of(member, name):
                    victims += [member, *member.children(recursive=True)]
                elif member.environ().get("SLURMD_NODENAME") == name and self._is_ours(member):
                    victims.append(member)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        for victim in victims:
            try:
                victim.kill()
            except psutil.NoSuchProcess:
                continue
        process.wait(timeout=10)

    def repair(self) -> None:
        """No job, both nodes and the controller at work again."""
        if "slurmctld" not in self._processes:
            self.start_controller()
            _until(lambda: self.nodes(), "slurmctld")
        self.command("scancel", "--user=root", "--full", "--signal=KILL")
        self.command("scancel", "--user=root")
        for name in ("n1", "n2"):
            if name not in self._processes:
                self.start_node(name)
        self.command("scontrol", "update", "nodename=n1,n2", "state=resume")
        _until(lambda: set(self.nodes().values()) == {"idle"}, "the nodes", self._logs)

    def nodes(self) -> dict[str, str]:
        """State by node name."""
        answer = self.command("sinfo", "--noheader", "--Node", "--partition=main", "--format=%N %t")
        return dict(line.split() for line in answer.splitlines() if len(line.split()) == 2)

    def command(self, *arguments: str) -> str:
        done = subprocess.run(arguments, env=self.environment, capture_output=True, text=True, timeout=30)
        return done.stdout

    def stop_controller(self) -> None:
        process = self._processes.pop("slurmctld")
        process.terminate()
        process.wait(timeout=20)

    def start_controller(self) -> None:
        self._run("slurmctld", "-D", "-f", str(self.conf))

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "SLURM_CONF": str(self.conf), "PATH": _path()}

    def _is_ours(self, process: psutil.Process) -> bool:
        return process.environ().get("SLURM_CONF") == str(self.conf)

    def _is_of(self, step: psutil.Process, name: str) -> bool:
        return any(child.environ().get("SLURMD_NODENAME") == name and self._is_ours(child) for child in step.children())

    def _run(self, program: str, *arguments: str, key: str | None = None) -> None:
        with (self.root / f"{key or program}.out").open("ab") as out:
            self._processes[key or program] = subprocess.Popen(
                [program, *arguments], env=self.environment, stdout=out, stderr=out, stdin=subprocess.DEVNULL
            )

    def _logs(self) -> str:
        return "\n".join(f"{p.name}:\n{p.read_text()[-1500:]}" for p in sorted(self.root.glob("*.[lo][ou][gt]")))


@contextmanager
def slurm_cluster(root: Path) -> Iterator[SlurmCluster]:
    cluster = SlurmCluster(root)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def _until(condition: object, what: str, details: object = None) -> None:
    deadline = time.monotonic() + START_S
    while not condition():  # type: ignore[operator]
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} did not start within {START_S:.0f} s. {details() if details else ''}")  # type: ignore[operator]
        time.sleep(0.05)


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
