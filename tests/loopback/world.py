"""The outside world on 127.0.0.1: Semantic Scholar, arXiv, ar5iv, the Hugging Face Hub and its datasets-server.

    with Loopback() as world:
        world.url                             hub; /s2, /arxiv, /ar5iv and /datasets-server below it are the others
        world.faults.add("s2", "500")         see faults.py
        world.requests                        what was asked since the last reset()
        world.unknown_parameters              query parameters that the real service does not know
    world.unknown_paths                   paths that it does not have

Real HTTP on a real socket, for unmodified clients. What is served is in content.py (papers) and shelf.py (datasets).
"""

from __future__ import annotations

import contextlib
import socket
import tempfile
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.loopback import arxiv, datasets_server, hub_datasets, hub_papers, s2
from tests.loopback.content import Content
from tests.loopback.faults import KINDS, SERVICES, FaultGate, Faults
from tests.loopback.hub_jobs import HubJobs
from tests.loopback.hub_upload import HubUpload
from tests.loopback.parameters import unknown
from tests.loopback.shelf import Shelf

__all__ = ["Loopback", "Request"]

HOST = "127.0.0.1"
START_SECONDS = 20.0


class Request(NamedTuple):
    """One request as it came in."""

    method: str
    path: str
    """Decoded."""
    query: str
    """As it was sent, percent-encoding and all."""
    headers: dict[str, str]
    """Names in lower case."""

    @property
    def parameters(self) -> list[tuple[str, str]]:
        """The decoded query parameters in their order."""
        return parse_qsl(self.query, keep_blank_values=True)


class Loopback:
    """The server; a thread serves it between `with`.

    Args:
        port: 0 takes any free one.
        seed: draws the rows of the datasets.
        folder: where datasets are made, when they are first asked for; a temporary one without it.
    """

    def __init__(self, port: int = 0, seed: int = 0, folder: Path | None = None) -> None:
        self.faults = Faults()
        self.requests: list[Request] = []
        self.unknown_parameters: list[tuple[str, str]] = []
        """(path, name)"""
        self.unknown_paths: list[str] = []
        """Paths that none of the services has."""
        self.errors: list[str] = []
        """Mistakes of this server itself, which a client sees as status 500; the fixture fails the test."""
        self._port, self._seed, self._folder = port, seed, folder
        self._exit = contextlib.ExitStack()
        self.url = ""
        """While it serves."""
        self.shelf: Shelf
        """While it serves: the files and rows of the datasets, to compare with."""
        self.jobs: HubJobs
        """While it serves: Hugging Face Jobs, whose jobs are processes of this machine."""
        self.uploads = HubUpload()
        """Model repositories that were made and written to."""
        self.content = Content.load()

    def __enter__(self) -> Loopback:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def start(self) -> None:
        """Serve, in a thread. Raises OSError when the port cannot be had."""
        with contextlib.ExitStack() as stack:
            folder = self._folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="loopback-")))
            listening = stack.enter_context(_listening(self._port))
            self.url = f"http://{HOST}:{listening.getsockname()[1]}"
            self.shelf = Shelf(folder, self._seed)
            self.jobs = HubJobs(folder)
            stack.callback(self.jobs.reset)
            server = _Server(
                uvicorn.Config(
                    self._app(self.shelf),
                    log_level="critical",  # a cut stream is meant
                    date_header=False,
                    server_header=False,
                    lifespan="off",
                    loop="asyncio",
                    http="h11",
                    timeout_keep_alive=60,
                )
            )
            thread = threading.Thread(target=server.run, args=([listening],), name="loopback", daemon=True)
            thread.start()
            stack.callback(thread.join, START_SECONDS)
            stack.callback(server.end)
            if not server.ready.wait(START_SECONDS):
                raise RuntimeError(f"the loopback world did not start within {START_SECONDS:.0f} s")
            self._exit = stack.pop_all()

    def stop(self) -> None:
        """Serve no more; datasets in a temporary folder are deleted."""
        self._exit.close()

    def reset(self) -> None:
        """No faults, no log: a world as it was at first."""
        self.faults.clear()
        self.jobs.reset()
        self.uploads.reset()
        self.requests.clear()
        self.unknown_parameters.clear()
        self.unknown_paths.clear()
        self.errors.clear()

    def _app(self, shelf: Shelf) -> ASGIApp:
        routes = [
            Route("/", self._index),
            Route("/_faults", self._plan, methods=["POST"]),
            *s2.routes(self.content),
            *arxiv.routes(self.content),
            self.uploads.creation(self.jobs._create),
            *self.jobs.routes(),
            *self.uploads.routes(),
            *hub_papers.routes(self.content, shelf),
            *hub_datasets.routes(shelf),
            *datasets_server.routes(shelf),
            Route("/{rest:path}", self._nowhere, methods=["GET", "HEAD", "POST", "PUT", "DELETE"]),
        ]
        return _Recorder(FaultGate(Starlette(routes=routes), self.faults), self)

    def _index(self, _request: HttpRequest) -> Response:
        return PlainTextResponse(
            f"{self.services()}\n\nPOST /_faults injects faults, for example "
            '{"service": "s2", "kind": "429_retry_after", "times": 2, "seconds": 1}; {"clear": true} ends them.\n'
            f"services: {', '.join(SERVICES)}\nkinds: {', '.join(KINDS)}\n"
        )

    def services(self) -> str:
        """Name, address and an example of each service."""
        listed = (
            ("Hugging Face Hub", "", "/api/datasets?search=science"),
            ("Hugging Face papers", "", "/api/papers/search?q=worked+solutions"),
            ("datasets-server", "/datasets-server", "/splits?dataset=quizdump/science-mcq-worked"),
            ("Semantic Scholar", "/s2", "/graph/v1/paper/search?query=worked+solutions&fields=title,year"),
            ("arXiv", "/arxiv", "/api/query?search_query=all:solutions"),
            ("arXiv full texts", "/arxiv", "/html/2609.90001"),
            ("ar5iv", "/ar5iv", "/html/2609.90001"),
        )
        return "\n".join(f"{name:20} {self.url}{path}{example}" for name, path, example in listed)

    def _nowhere(self, request: HttpRequest) -> Response:
        self.unknown_paths.append(request.url.path)
        if request.url.path.startswith(("/arxiv/", "/ar5iv/")):
            return PlainTextResponse("Not found", status_code=404)
        return JSONResponse({"error": "Sorry, we can't find the page you are looking for."}, status_code=404)

    async def _plan(self, request: HttpRequest) -> Response:
        try:
            wanted = dict(await request.json())
            if wanted.pop("clear", False):
                self.faults.clear()
            if wanted:
                self.faults.add(wanted.pop("service"), wanted.pop("kind"), wanted.pop("times", 1), **wanted)
        except (ValueError, TypeError, KeyError) as error:
            return JSONResponse({"error": f"{type(error).__name__}: {error}"}, status_code=400)
        return JSONResponse({"pending": self.faults.pending})


class _Recorder:
    """ASGI middleware that logs each request before anything else happens to it."""

    def __init__(self, app: ASGIApp, world: Loopback) -> None:
        self._app, self._world = app, world

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not scope["path"].startswith("/_"):
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
            request = Request(scope["method"], scope["path"], scope["query_string"].decode("latin-1"), headers)
            self._world.requests.append(request)
            names = [name for name, _ in request.parameters]
            self._world.unknown_parameters += [(request.path, name) for name in unknown(request.path, names)]
        try:
            await self._app(scope, receive, send)
        except ClientDisconnect:
            raise
        except Exception:
            self._world.errors.append(traceback.format_exc())
            raise


class _Server(uvicorn.Server):
    """uvicorn that says when it serves, and that leaves open streams behind when it is told to stop."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    def end(self) -> None:
        self.should_exit = True
        self.force_exit = True


@contextlib.contextmanager
def _listening(port: int) -> Iterator[socket.socket]:
    # asyncio turns Nagle off only where the protocol is told: without it each answer waits 40 ms
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((HOST, port))
        listening.listen(128)
        yield listening
