"""Serve the loopback world by hand.

python -m tests.loopback [--port 8765] [--seed 0]
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading

from tests.loopback.world import Loopback

DEFAULT_PORT = 8765
"""Where `crew --sources loopback` looks."""


def main(arguments: list[str] | None = None) -> int:
    """Serve until Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.loopback", description="serve a small copy of the outside world"
    )
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="0 takes any free one (8765)")
    parser.add_argument("--seed", type=int, default=0, help="draws the rows of the datasets")
    options = parser.parse_args(arguments)
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    world = Loopback(options.port, options.seed)
    try:
        world.start()
    except OSError as error:
        sys.stderr.write(f"port {options.port} cannot be used: {error.strerror}; end what uses it, or give --port.\n")
        return 1
    try:
        at = "" if options.port == DEFAULT_PORT else f"CREW_LOOPBACK_URL={world.url} "
        sys.stdout.write(f"{world.services()}\n\n{at}crew run posttrain --target gpqa-mini --sources loopback\n")
        sys.stdout.write("\nGET / tells about faults. Ctrl-C ends it.\n")
        sys.stdout.flush()
        ended.wait()
    finally:
        world.stop()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
