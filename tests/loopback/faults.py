"""Faults on request: what goes wrong with a service, put between the server and its handlers.

    faults.add("s2", "429_retry_after", times=2, seconds=1)     the next two requests to Semantic Scholar
    faults.add("hub", "cut", path="/resolve/")                  the next file
    faults.add("arxiv", "502", times=None)                      until faults.clear()

A fault is used up by the requests that it hits, in the order in which faults were added. What each kind does:

    429 500 502 503 504 401 403 404   that status, with the body that the service has for it; the handler is not asked
    429_retry_after   429 with `Retry-After: seconds` (0 unless told otherwise)
    cut               the whole length is announced, half of it is sent, and the TCP connection is closed
    slow              the right answer, in 20 pieces over `seconds` (1 unless told otherwise)
    bad_json          status 200 and the first half of the right body, announced as if that were all
    html              status 200 and a page of HTML, as a captive portal or a proxy sends
    no_body           status 200 and nothing
    bomb              the right answer behind 256 MiB of white space, packed by gzip to 0.3 MB
    empty             a page without rows whose total, `next` and Link stay as they were: what arXiv and search
                      indexes do now and then. Only for answers that are pages (`is_page`); others do not use it up.
                      A list of the Hub on one page has neither: there it cannot be told from no results
    moved_fields      the main keys have other names: `keys`, or those of MOVED; in Atom and HTML, elements and classes

Only the kinds that are a status hit HEAD requests, redirects and refusals: the others wait for an answer with a body.
A file of git-lfs (Parquet) is such a redirect, to /cdn/SHA256/ and the path that was asked for.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.loopback.bombs import packed

__all__ = ["KINDS", "SERVICES", "Fault", "FaultGate", "Faults", "is_page", "service_of"]

STATUS = {
    "401": "Unauthorized",
    "403": "Forbidden",
    "404": "Not Found",
    "429": "Too Many Requests",
    "429_retry_after": "Too Many Requests",
    "500": "Internal Server Error",
    "502": "Bad Gateway",
    "503": "Service Unavailable",
    "504": "Gateway Timeout",
}
KINDS = (*STATUS, "cut", "slow", "bad_json", "html", "no_body", "bomb", "empty", "moved_fields")
SERVICES = ("s2", "arxiv", "arxiv_html", "ar5iv", "hub", "datasets_server")
PIECES = 20
BOMB_MIB = 256

MOVED = frozenset(
    re.findall(
        r"\w+",
        "data title paperId paper citingPaper citedPaper snippet recommendedPapers abstract externalIds id summary "
        "tags siblings sha gated rfilename path size splits rows row features num_examples statistics parquet_files "
        "dataset_info num_rows_total",
    )
)
"""Keys that `moved_fields` renames, at any depth, to `new_<key>`."""

_PAGES = re.compile(
    r"/paper/search(/bulk)?$|/snippet/search$|/(citations|references)$|/papers/forpaper/|/arxiv/api/query$"
    r"|^/api/(papers/search|daily_papers|datasets|models)$|/tree/|/datasets-server/(rows|search|filter|first-rows)$"
)


def service_of(path: str) -> str:
    """The service that a path belongs to."""
    if path.startswith("/s2/"):
        return "s2"
    if path.startswith("/arxiv/api/"):
        return "arxiv"
    if path.startswith("/arxiv/"):
        return "arxiv_html"
    if path.startswith("/ar5iv/"):
        return "ar5iv"
    if path.startswith("/datasets-server/"):
        return "datasets_server"
    return "hub"


def is_page(path: str) -> bool:
    """Whether the answer is a page of a list, which may be empty."""
    return _PAGES.search(path) is not None


@dataclass(eq=False)
class Fault:
    """One planned fault."""

    service: str
    kind: str
    left: int | None
    """Requests that it still hits; None: all."""
    path: str
    seconds: float | None
    keys: frozenset[str]

    def fits(self, service: str, method: str, path: str) -> bool:
        """Whether it hits this request."""
        if service != self.service or self.path not in path:
            return False
        if self.kind == "empty" and not is_page(path):
            return False
        return method != "HEAD" or self.kind in STATUS


class Faults:
    """The faults that are still to come; tests add them from their thread, the server takes them in its own."""

    def __init__(self) -> None:
        self._planned: list[Fault] = []
        self._lock = threading.Lock()

    def add(
        self,
        service: str,
        kind: str,
        times: int | None = 1,
        *,
        path: str = "",
        seconds: float | None = None,
        keys: Iterable[str] = (),
    ) -> None:
        """Plan a fault for the next `times` requests to `service` whose path contains `path`. Raises ValueError."""
        if service not in SERVICES:
            raise ValueError(f"service {service!r} is unknown; use one of {', '.join(SERVICES)}")
        if kind not in KINDS:
            raise ValueError(f"fault {kind!r} is unknown; use one of {', '.join(KINDS)}")
        with self._lock:
            self._planned.append(Fault(service, kind, times, path, seconds, frozenset(keys) or MOVED))

    def take(self, method: str, path: str) -> Fault | None:
        """The fault for this request, counted as used."""
        service = service_of(path)
        with self._lock:
            for fault in self._planned:
                if fault.fits(service, method, path):
                    if fault.left is not None:
                        fault.left -= 1
                    self._planned = [other for other in self._planned if other.left is None or other.left > 0]
                    return fault
        return None

    def give_back(self, fault: Fault) -> None:
        """It found nothing to spoil: the next request that fits gets it."""
        with self._lock:
            if fault.left is not None:
                fault.left += 1
            if fault not in self._planned:
                self._planned.insert(0, fault)

    def clear(self) -> None:
        """No faults any more."""
        with self._lock:
            self._planned = []

    @property
    def pending(self) -> int:
        """Faults that were planned and not used up: 0 at the end of a test that hit all it wanted."""
        with self._lock:
            return len(self._planned)


class FaultGate:
    """ASGI middleware that lets faults happen."""

    def __init__(self, app: ASGIApp, faults: Faults) -> None:
        self._app, self._faults = app, faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault = None
        if scope["type"] == "http" and not scope["path"].startswith("/_"):
            fault = self._faults.take(scope["method"], scope["path"])
        if fault is None:
            await self._app(scope, receive, send)
        elif fault.kind in STATUS:
            await _send(send, *_refusal(fault, scope))
        else:
            status, headers, body = await _answer(self._app, scope, receive)
            if not body or status not in (200, 206):
                self._faults.give_back(fault)
                await _send(send, status, headers, body)
            elif fault.kind == "slow":
                await _slowly(receive, send, status, headers, body, 1.0 if fault.seconds is None else fault.seconds)
            elif fault.kind == "cut":
                await send({"type": "http.response.start", "status": status, "headers": _sized(headers, len(body))})
                # returning before the body is complete makes uvicorn close the connection
                await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
            else:
                await _send(send, *_spoilt(fault, scope["path"], status, headers, body))


Headers = list[tuple[bytes, bytes]]


def _sized(headers: Headers, size: int) -> Headers:
    return [(n, v) for n, v in headers if n.lower() != b"content-length"] + [(b"content-length", b"%d" % size)]


def _typed(headers: Headers, content_type: bytes) -> Headers:
    return [(n, v) for n, v in headers if n.lower() != b"content-type"] + [(b"content-type", content_type)]


async def _send(send: Send, status: int, headers: Headers, body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": _sized(headers, len(body))})
    await send({"type": "http.response.body", "body": body})


async def _answer(app: ASGIApp, scope: Scope, receive: Receive) -> tuple[int, Headers, bytes]:
    """What the handler says."""
    started: dict[str, Message] = {}
    body = bytearray()

    async def keep(message: Message) -> None:
        if message["type"] == "http.response.start":
            started["start"] = message
        elif message["type"] == "http.response.body":
            body.extend(message.get("body", b""))

    await app(scope, receive, keep)
    start = started["start"]
    return start["status"], list(start["headers"]), bytes(body)


async def _slowly(receive: Receive, send: Send, status: int, headers: Headers, body: bytes, seconds: float) -> None:
    """In pieces with pauses, until all is sent or the client has gone."""
    await send({"type": "http.response.start", "status": status, "headers": headers})
    size = max(1, -(-len(body) // PIECES))
    gone = asyncio.ensure_future(_gone(receive))
    for start in range(0, len(body), size):
        await asyncio.wait([gone], timeout=seconds / PIECES)
        if gone.done():
            return
        await send({"type": "http.response.body", "body": body[start : start + size], "more_body": True})
    gone.cancel()
    await send({"type": "http.response.body", "body": b""})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _refusal(fault: Fault, scope: Scope) -> tuple[int, Headers, bytes]:
    """The answer with a status that is not 200, as the service words it."""
    status, phrase = int(fault.kind[:3]), STATUS[fault.kind]
    headers: Headers = [(b"content-type", b"application/json")]
    if fault.kind == "429_retry_after":
        headers.append((b"retry-after", b"%g" % (fault.seconds or 0)))
    if status in (502, 504):  # they come from a proxy in front of the service
        page = f"<html><head><title>{status} {phrase}</title></head><body><h1>{status} {phrase}</h1></body></html>"
        return status, [(b"content-type", b"text/html")], page.encode()
    if fault.service == "s2":
        key = "error" if status == 404 else "message"
        return status, headers, json.dumps({key: phrase, "code": str(status)}).encode()
    if fault.service in ("arxiv", "arxiv_html", "ar5iv"):
        text = "Rate exceeded." if status == 429 else phrase
        return status, _typed(headers, b"text/plain"), text.encode()
    code = {401: "ExternalUnauthenticatedError", 500: "UnexpectedError", 503: "ServiceUnavailable"}
    if fault.service == "datasets_server":
        headers.append((b"x-error-code", code.get(status, phrase.replace(" ", "")).encode()))
    else:
        headers.append((b"x-error-message", phrase.encode()))
        if status == 429:
            headers.append((b"ratelimit", b'"api";r=0;t=1'))
    return status, headers, json.dumps({"error": phrase}).encode()


def _spoilt(fault: Fault, path: str, status: int, headers: Headers, body: bytes) -> tuple[int, Headers, bytes]:
    """The right answer with something wrong in it."""
    if fault.kind == "bad_json":
        return 200, headers, body[: len(body) // 2]
    if fault.kind == "no_body":
        return 200, headers, b""
    if fault.kind == "html":
        page = b"<!DOCTYPE html><html><body><h1>Please sign in to this network</h1></body></html>"
        return 200, _typed(headers, b"text/html"), page
    if fault.kind == "bomb":
        return 200, [*headers, (b"content-encoding", b"gzip")], packed(b"", b" " * 2**20, BOMB_MIB, body)
    try:
        value = json.loads(body)
    except ValueError:
        return status, headers, _markup(fault, body)
    if fault.kind == "empty":
        return status, headers, json.dumps(_emptied(value)).encode()
    return status, headers, json.dumps(_moved(value, fault.keys)).encode()


def _emptied(value: object) -> object:
    if isinstance(value, list):
        return []
    if isinstance(value, dict):
        lists = ("data", "rows", "recommendedPapers")
        return {key: [] if key in lists else inner for key, inner in value.items()}
    return value


def _moved(value: object, keys: frozenset[str]) -> object:
    if isinstance(value, list):
        return [_moved(inner, keys) for inner in value]
    if isinstance(value, dict):
        return {f"new_{key}" if key in keys else key: _moved(inner, keys) for key, inner in value.items()}
    return value


def _markup(fault: Fault, body: bytes) -> bytes:
    """Atom and HTML; other texts and files stay as they are."""
    if b"<feed" in body[:400]:
        if fault.kind == "empty":
            return re.sub(rb"<entry>.*</entry>", b"", body, flags=re.DOTALL)
        return body.replace(b"<entry>", b"<item>").replace(b"</entry>", b"</item>")
    return body.replace(b"ltx_", b"doc_") if b"<html" in body[:400].lower() else body
