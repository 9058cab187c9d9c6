"""The limits that a process of the sandbox sets for itself before it runs anything that is not ours.

Hard limits cannot be raised again without a capability, and the sandbox has none.
"""

from __future__ import annotations

import resource

__all__ = ["limit"]


def limit(memory: int, seconds: float) -> None:
    """Bound this process.

    Args:
        memory: bytes of address space; it bounds threads too, each of which takes a stack.
        seconds: of processor time, over all threads.
    """
    cpu = int(seconds) + 2
    for name, value in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, cpu),
        (resource.RLIMIT_FSIZE, 2**24),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(name)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(name, (value, value))
