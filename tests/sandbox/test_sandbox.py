"""What a program can see and do in the sandbox, and what becomes of it at a limit."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

import psutil
import pytest

from posttrain_crew.crews.doctor import check_sandbox
from posttrain_crew.errors import GateError
from posttrain_crew.tools.sandbox.bwrap import Limits, require_sandbox, running
from posttrain_crew.tools.sandbox.program import run_program
from posttrain_crew.tools.sandbox.seccomp import program

PROBE = """
import ctypes, glob, json, os, resource, socket, subprocess, threading
def tried(action):
    try:
        return repr(action())
    except BaseException as error:
        return "no: " + type(error).__name__
def threads():
    event, count = threading.Event(), 0
    try:
        while True:
            threading.Thread(target=event.wait, daemon=True).start()
            count += 1
    except RuntimeError:
        return count
def fill():
    for number in range(64):
        with open(f"/tmp/{number}", "wb") as stream:
            stream.write(bytes(2**20))
libc = ctypes.CDLL(None, use_errno=True)
print(json.dumps({name: tried(action) for name, action in {
    "secret file": lambda: open(SECRET).read(),
    "home": lambda: os.listdir(HOME),
    "environment": lambda: sorted(os.environ),
    "environment of the first process": lambda: "TOKEN" in open("/proc/1/environ").read(),
    "processes": lambda: [name for name in os.listdir("/proc") if name.isdigit()],
    "shadow": lambda: open("/etc/shadow").read(),
    "connect": lambda: socket.create_connection(("127.0.0.1", PORT), 2),
    "raw socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
    "vm socket": lambda: socket.socket(socket.AF_VSOCK),
    "fork": os.fork,
    "fork bomb": lambda: [os.fork() for _ in range(10**6)],
    "program": lambda: subprocess.run(["/usr/bin/true"]),
    "shell": lambda: os.system("true") == 0,
    "name space": lambda: libc.unshare(0x10000000),
    "trace": lambda: libc.ptrace(0, 0, 0, 0),
    "memory": lambda: len(bytearray(2**31)),
    "memory file": lambda: os.memfd_create("x"),
    "shared memory": lambda: libc.shmget(0, 2**30, 0o1600),
    "raise limit": lambda: resource.setrlimit(resource.RLIMIT_AS, (-1, -1)),
    "write system": lambda: open("/usr/x", "w"),
    "write root": lambda: open("/x", "w"),
    "write devices": lambda: open("/dev/shm/x", "w"),
    "write harness": lambda: open("/crew/inside/judge.py", "a"),
    "write": lambda: open("/tmp/x", "w").write("fine"),
    "threads": threads,
    "fill": fill,
}.items()}))
"""


def test_nothing_of_the_machine_is_within_reach(sandbox: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "token"
    secret.write_text("hf_secret")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with socket.create_server(("127.0.0.1", 0)) as server:
        here = f"SECRET, HOME, PORT = {str(secret)!r}, {str(Path.home())!r}, {server.getsockname()[1]}\n"
        ran = run_program(here + PROBE)
    assert ran.ended == "ok", ran.output
    assert "hf_secret" not in ran.output
    found = json.loads(ran.output)
    allowed = {
        "environment": "['HOME', 'LANG', 'PATH', 'PWD']",
        "environment of the first process": "False",
        "processes": "['1']",
        "write": "4",
        "shell": "False",
        "name space": "-1",
        "trace": "-1",
        "shared memory": "-1",
    }
    assert {name: found.pop(name) for name in allowed} == allowed
    assert int(found.pop("threads")) < 200
    hidden = found.pop("home")  # a folder above the interpreter's shows, and that in it alone
    assert hidden.startswith("no: ") or set(json.loads(hidden.replace("'", '"'))) <= {".pyenv", ".local", "miniconda3"}
    assert {name: value for name, value in found.items() if not value.startswith("no: ")} == {}


def test_limits_end_a_program(sandbox: str) -> None:
    begin = time.monotonic()
    assert run_program("while True: pass", Limits(seconds=0.5)).ended == "timeout"
    flood = run_program("while True: print('x' * 1000)", Limits(seconds=60, output_bytes=5000))
    assert flood.ended == "too much output" and len(flood.output) == 5000
    assert time.monotonic() - begin < 40
    assert run_program("raise ValueError('told')").output.endswith("ValueError: told\n")
    assert run_program("import os; os.abort()").ended == "failed"


def test_nothing_outlives_it(sandbox: str) -> None:
    order = {"code": "import time; print('up', flush=True); time.sleep(600)"}
    with running("program", order, Limits(seconds=60), output=-1) as process:
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
        tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        assert len(tree) > 1
    _, alive = psutil.wait_procs(tree, timeout=20)
    assert alive == []


def test_without_bubblewrap_nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GateError, match="apt-get install bubblewrap"):
        run_program(f"open({str(tmp_path / 'ran')!r}, 'w')")
    told = check_sandbox()
    assert told.level == "note" and "install bubblewrap" in told.detail
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'No permissions to create new namespace'\n")
    broken.chmod(0o755)
    with pytest.raises(GateError, match="No permissions to create new namespace"):
        require_sandbox()
    assert not (tmp_path / "ran").exists()


def test_the_filter_is_refused_for_a_machine_that_it_is_not_written_for() -> None:
    assert program("x86_64") != program("aarch64")
    with pytest.raises(GateError, match="riscv64"):
        program("riscv64")
