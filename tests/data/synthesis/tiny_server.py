"""An OpenAI-compatible server on 127.0.0.1 that gives one answer, fails on request, and can be held."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

__all__ = ["TinyServer", "server"]


class TinyServer(ThreadingHTTPServer):
    """An OpenAI-compatible server that answers `Answer: A`, or with the next status of `statuses`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.statuses: list[int] = []
        self.answered: list[tuple[str, int]] = []
        self.hold_after: int | None = None
        self.held = threading.Event()
        self.release = threading.Event()
        self.lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is what a test wants."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: TinyServer

    def log_message(self, *_arguments: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        with server.lock:
            status = server.statuses.pop(0) if server.statuses else 200
            hold = server.hold_after is not None and len(server.answered) >= server.hold_after
        if hold:
            server.held.set()
            server.release.wait(60)
        if status != 200:
            return self._send(status, {"error": {"message": "no", "type": "error", "code": str(status)}})
        message = {"role": "assistant", "content": "6 * 7 = 42\nAnswer: A"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 30, "completion_tokens": 12, "total_tokens": 42}
        self._send(200, {"id": "c", "object": "chat.completion", "created": 0, "model": "tiny", "choices": [choice],
                         "usage": usage})  # fmt: skip
        with server.lock:
            server.answered.append((body["messages"][-1]["content"], body["seed"]))

    def _send(self, status: int, value: Any) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if status == 429:
            self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def server() -> Iterator[TinyServer]:
    running = TinyServer()
    threading.Thread(target=running.serve_forever, args=(0.05,), daemon=True).start()
    yield running
    running.release.set()
    running.shutdown()
    running.server_close()
