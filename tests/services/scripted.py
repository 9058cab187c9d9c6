"""A server on 127.0.0.1 that answers as a test says, one answer after the other, and keeps what it was asked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import urlsplit

__all__ = ["Asked", "Reply", "Scripted"]


class Asked(NamedTuple):
    """One request."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes


@dataclass(frozen=True)
class Reply:
    """One answer."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    sent: int | None = None
    """Bytes after which the connection is closed, though Content-Length says more; None sends all."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is what some tests are about."""


class Scripted:
    """The server. Replies are used up in order, the last one again and again; a callable makes one from the request."""

    def __init__(self, *replies: Reply | Callable[[Asked], Reply]) -> None:
        self.asked: list[Asked] = []
        self._replies, self._lock = list(replies), threading.Lock()
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self.port = int(self._server.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Scripted:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def _next(self, asked: Asked) -> Reply:
        with self._lock:
            self.asked.append(asked)
            reply = self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]
        return reply(asked) if callable(reply) else reply

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # head and body in one packet: two of them wait for each other for 40 ms

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                parts = urlsplit(self.path)
                headers = {name.lower(): value for name, value in self.headers.items()}
                reply = server._next(Asked(self.command, parts.path, parts.query, headers, body))
                self.send_response(reply.status)
                for name, value in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(reply.body if reply.sent is None else reply.body[: reply.sent])
                self.close_connection = reply.sent is not None or self.close_connection

            do_GET = do_POST = _answer  # noqa: N815 - the names that http.server calls

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler
