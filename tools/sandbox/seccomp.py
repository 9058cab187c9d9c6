"""The system call filter of the sandbox, as a BPF program for `bwrap --seccomp`.

Bubblewrap gives name spaces and no filter. What the filter adds: no new process (a limit of processes does not hold for
root, whom crew may run as), no further name space, no socket but those of a process with itself, and none of the ways
to memory that the limit of address space does not see.

Numbers are those of Linux's asm/unistd_64.h (x86_64) and asm-generic/unistd.h (aarch64).
"""

from __future__ import annotations

import platform
import struct

from posttrain_crew.errors import GateError

__all__ = ["program"]

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_CLONE = {"x86_64": 56, "aarch64": 220}
_SOCKET = {"x86_64": 41, "aarch64": 198}
_CLONE3 = 435
_DENIED = {
    # fork, vfork | unshare, setns, mount, umount2, pivot_root | ptrace, process_vm_readv, process_vm_writev
    # bpf, perf_event_open, userfaultfd | add_key, request_key, keyctl | memfd_create, shmget, msgget, semget, mq_open
    # name_to_handle_at, open_by_handle_at
    "x86_64": (
        *(57, 58, 272, 308, 165, 166, 155, 101, 310, 311, 321, 298, 323, 248, 249, 250, 319, 29, 68, 64, 240),
        *(303, 304),
    ),
    "aarch64": (97, 268, 40, 39, 41, 117, 270, 271, 280, 241, 282, 217, 218, 219, 279, 194, 186, 190, 180, 264, 265),
}
_DENIED_ALIKE = (425, 428, 429, 430, 432, 442, 447)
"""io_uring_setup; open_tree, move_mount, fsopen, fsmount, mount_setattr; memfd_secret: the same everywhere."""
_X32 = 0x40000000
_CLONE_THREAD = 0x00010000
_AF_UNIX = 1

_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _EPERM, _ENOSYS = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16


def program(machine: str | None = None) -> bytes:
    """The filter for a kind of machine, this one where None. Raises GateError for one that it is not written for."""
    machine = machine or platform.machine()
    if machine not in _ARCHITECTURES:
        raise GateError(
            f"the sandbox has no system call filter for {machine}, only for {' and '.join(_ARCHITECTURES)}. Code that "
            "a model wrote is never run without one: leave out what runs code."
        )
    lines = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_JUMP_EQUAL, 1, 0, _ARCHITECTURES[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
    ]
    if machine == "x86_64":
        lines += [(_JUMP_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _EPERM)]
    for number in (*_DENIED[machine], *_DENIED_ALIKE):
        lines += [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, _EPERM)]
    # the C library falls back on clone, whose flags a filter can read
    lines += [(_JUMP_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, _ENOSYS)]
    lines += [
        (_JUMP_EQUAL, 0, 3, _CLONE[machine]),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_JUMP_SET, 1, 0, _CLONE_THREAD),
        (_RETURN, 0, 0, _EPERM),
        (_LOAD, 0, 0, _NUMBER),
        (_JUMP_EQUAL, 0, 3, _SOCKET[machine]),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_JUMP_EQUAL, 1, 0, _AF_UNIX),
        (_RETURN, 0, 0, _EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("HBBI", *line) for line in lines)
