"""Hugging Face Jobs on loopback: each job is a real process of this machine, and its files are in a real repository.

    world.jobs.lose_answers = 1      the next submission is carried out, and answered with 504
    world.jobs.cut_logs_after = [3]  the next log stream ends in the middle, after three lines
    world.jobs.hardware[...]         the price list; without `unitCostUSD` a price is not known
    world.jobs.broke                 namespaces without credit, which get 402
    world.jobs.run                   what was submitted, by id
    world.jobs.scratch               where the jobs' temporary files are

The repository `crew-jobs` of any owner is here too: create, preupload, LFS, commit, tree, resolve.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import AsyncIterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

__all__ = ["HubJobs", "Job"]

SHA = "c" * 40
KILL_AFTER_S = 2.0
_LFS_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".zip", ".parquet", ".db")
_FLAVORS = (("cpu-basic", "2 vCPU", "16 GB", None, 0.01), ("a100-large", "12 vCPU", "142 GB", "80 GB", 2.5))


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


class Job:
    """One job: its process, its output, its view by the API."""

    def __init__(self, owner: str, spec: dict[str, Any], scratch: Path) -> None:
        self.id = uuid.uuid4().hex[:24]
        self.spec = spec
        self.stage, self.message = "SCHEDULING", None
        self.events: list[dict[str, str]] = []
        self.created, self.started, self.finished = _now(), None, None
        self.process: subprocess.Popen[str] | None = None
        self._owner, self._scratch = owner, scratch
        self._began = self._ended = 0.0
        threading.Thread(target=self._run, daemon=True).start()

    @property
    def over(self) -> bool:
        """Nothing more comes."""
        return self.finished is not None

    def view(self) -> dict[str, Any]:
        seconds = int((self._ended or time.monotonic()) - self._began) if self._began else None
        owner = {"id": "0" * 24, "name": self._owner, "type": "user"}
        return {
            "type": "job", "id": self.id, "createdAt": self.created, "startedAt": self.started,
            "finishedAt": self.finished, "dockerImage": self.spec.get("dockerImage"), "spaceId": None,
            "command": self.spec["command"], "arguments": [], "environment": self.spec["environment"],
            "secrets": sorted(self.spec.get("secrets") or {}), "flavor": self.spec["flavor"],
            "labels": self.spec.get("labels"), "volumes": None, "owner": owner, "initiator": owner,
            "status": {"stage": self.stage, "message": self.message},
            "durations": {"schedulingSecs": 0, "runningSecs": seconds, "totalSecs": seconds},
        }  # fmt: skip

    def cancel(self) -> None:
        """SIGTERM to the container's first process, later SIGKILL to all of them."""
        if self.over:
            return
        self.stage = "CANCELED"
        if self.process is not None:
            self.process.terminate()
            threading.Timer(KILL_AFTER_S, self.kill).start()

    def kill(self) -> None:
        if self.process is not None and not self.over:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                return

    def _run(self) -> None:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("CREW_")},
            **{name: str(value) for name, value in self.spec["environment"].items()},
            **(self.spec.get("secrets") or {}),
            "JOB_ID": self.id,
            "TMPDIR": str(self._scratch),
        }
        if self.stage == "CANCELED":
            self.finished = _now()
            return
        try:
            self.process = subprocess.Popen(
                self.spec["command"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            self.stage, self.message, self.finished = "ERROR", str(error), _now()
            return
        if self.stage != "CANCELED":
            self.stage = "RUNNING"
        self.started, self._began = _now(), time.monotonic()
        self._say(f"===== Job started at {self.started} =====")
        limit = threading.Timer(float(self.spec.get("timeoutSeconds", 1800)), self._time_is_up)
        limit.start()
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._say(line.rstrip("\n"))
        code = self.process.wait()
        limit.cancel()
        if self.stage == "RUNNING":
            self.stage = "COMPLETED" if code == 0 else "ERROR"
            self.message = None if code == 0 else f"Job failed with exit code: {code if code >= 0 else 128 - code}"
        self._ended = time.monotonic()
        self.finished = _now()

    def _say(self, text: str) -> None:
        self.events.append({"data": text, "timestamp": _now()})

    def _time_is_up(self) -> None:
        self.stage, self.message = "ERROR", "Job timeout"
        self.kill()


class HubJobs:
    """The service's state; one for a world."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "jobs-hub"
        self.scratch = folder / "jobs-scratch"  # a container's disk goes with it, however it ends
        self.run: dict[str, Job] = {}
        self.reset()

    def reset(self) -> None:
        """End all jobs, forget them, and take back what a test changed."""
        for job in self.run.values():
            job.kill()
        self.run = {}
        self.lose_answers = 0
        self.cut_logs_after: list[int] = []
        self.broke: set[str] = set()
        self.hardware = [
            {
                "name": name, "prettyName": name, "cpu": cpu, "ram": ram, "ephemeralStorage": "50 GB",
                "accelerator": None if vram is None else {"type": "gpu", "model": "A100", "quantity": "1", "vram": vram,
                                                          "manufacturer": "Nvidia"},
                "unitCostMicroUSD": round(price / 60 * 1e6), "unitCostUSD": price / 60, "unitLabel": "minute",
            }
            for name, cpu, ram, vram, price in _FLAVORS
        ]  # fmt: skip

    def routes(self) -> list[Route]:
        one, repo = "/api/jobs/{owner}/{id}", "/api/models/{owner}/crew-jobs"
        return [
            Route("/api/jobs/hardware", self._hardware),
            Route("/api/jobs/{owner}", self._jobs, methods=["GET", "POST"]),
            Route(one, self._job),
            Route(f"{one}/cancel", self._cancel, methods=["POST"]),
            Route(f"{one}/logs", self._logs),
            Route("/api/repos/create", self._create, methods=["POST"]),
            Route(repo, self._info),
            Route(f"{repo}/revision/{{revision:path}}", self._info),
            Route(f"{repo}/tree/{{revision}}", self._tree),
            Route(f"{repo}/preupload/{{revision}}", self._preupload, methods=["POST"]),
            Route(f"{repo}/commit/{{revision}}", self._commit, methods=["POST"]),
            Route("/{owner}/crew-jobs.git/info/lfs/objects/batch", self._lfs, methods=["POST"]),
            Route("/lfs/{oid}", self._put, methods=["PUT"]),
            Route("/{owner}/crew-jobs/resolve/{revision}/{path:path}", self._resolve, methods=["GET", "HEAD"]),
        ]

    def _hardware(self, _request: Request) -> Response:
        return JSONResponse(self.hardware)

    async def _jobs(self, request: Request) -> Response:
        owner = request.path_params["owner"]
        if not request.headers.get("authorization", "").startswith("Bearer hf_"):
            return _refused(401, "Unauthorized")
        if request.method == "POST":
            spec = await request.json()
            if spec["flavor"] not in {item["name"] for item in self.hardware}:
                return _refused(400, f"Invalid flavor {spec['flavor']}")
            if owner in self.broke:
                return _refused(402, "Payment required: pre-paid credit balance is insufficient")
            self.scratch.mkdir(parents=True, exist_ok=True)
            job = Job(owner, spec, self.scratch)
            self.run[job.id] = job
            if self.lose_answers > 0:
                self.lose_answers -= 1
                return Response("<html>504 Gateway Time-out</html>", status_code=504, media_type="text/html")
            return JSONResponse(job.view())
        views = [job.view() for job in self.run.values()]
        for label in request.query_params.getlist("label"):
            key, _, value = label.partition("=")
            views = [view for view in views if (view["labels"] or {}).get(key) == value]
        return JSONResponse([view for view in views if view["owner"]["name"] == owner])

    def _job(self, request: Request) -> Response:
        job = self.run.get(request.path_params["id"])
        return JSONResponse(job.view()) if job else _refused(404, "Job not found")

    def _cancel(self, request: Request) -> Response:
        job = self.run.get(request.path_params["id"])
        if job is None:
            return _refused(404, "Job not found")
        job.cancel()
        return JSONResponse(job.view())

    def _logs(self, request: Request) -> Response:
        job = self.run.get(request.path_params["id"])
        if job is None:
            return _refused(404, "Job not found")
        return _Cut(_stream(job, self.cut_logs_after.pop(0) if self.cut_logs_after else None))

    async def _create(self, request: Request) -> Response:
        asked = await request.json()
        repo = asked["name"] if "/" in asked["name"] else f"{asked.get('organization') or 'loopback'}/{asked['name']}"
        owner = repo.split("/")[0]
        known = self._place(owner).exists()
        self._place(owner).mkdir(parents=True, exist_ok=True)
        told = {"url": f"{request.base_url}{repo}", "name": repo, "id": repo}
        return JSONResponse(
            told | ({"error": "You already created this model repo"} if known else {}), 409 if known else 200
        )

    def _info(self, request: Request) -> Response:
        place = self._place(request.path_params["owner"])
        if not place.is_dir():
            return _refused(404, "Repository not found", "RepoNotFound")
        name = f"{request.path_params['owner']}/crew-jobs"
        siblings = [{"rfilename": path.relative_to(place).as_posix()} for path in _files(place)]
        told = {"_id": "1" * 24, "id": name, "modelId": name, "sha": SHA, "private": True, "gated": False}
        return JSONResponse({**told, "disabled": False, "downloads": 0, "likes": 0, "tags": [], "siblings": siblings})

    def _tree(self, request: Request) -> Response:
        place = self._place(request.path_params["owner"])
        if not place.is_dir():
            return _refused(404, "Repository not found", "RepoNotFound")
        return JSONResponse(
            [
                {
                    "type": "file",
                    "oid": _etag(path),
                    "size": path.stat().st_size,
                    "path": path.relative_to(place).as_posix(),
                }
                for path in _files(place)
            ]
        )

    async def _preupload(self, request: Request) -> Response:
        files = (await request.json())["files"]
        modes = [
            {"path": file["path"], "uploadMode": "lfs" if file["path"].endswith(_LFS_SUFFIXES) else "regular",
             "shouldIgnore": False, "oid": None}
            for file in files
        ]  # fmt: skip
        return JSONResponse({"files": modes})

    async def _lfs(self, request: Request) -> Response:
        objects = []
        for asked in (await request.json())["objects"]:
            entry = {"oid": asked["oid"], "size": asked["size"], "authenticated": True}
            if not (self._folder / "lfs" / asked["oid"]).exists():
                entry["actions"] = {"upload": {"href": f"{request.base_url}lfs/{asked['oid']}", "header": {}}}
            objects.append(entry)
        return JSONResponse({"transfer": "basic", "objects": objects}, media_type="application/vnd.git-lfs+json")

    async def _put(self, request: Request) -> Response:
        body = await request.body()
        oid = request.path_params["oid"]
        if hashlib.sha256(body).hexdigest() != oid:
            return Response("wrong sha256", status_code=422)
        path = self._folder / "lfs" / oid
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
        return Response(status_code=200)

    async def _commit(self, request: Request) -> Response:
        place = self._place(request.path_params["owner"])
        for line in (await request.body()).splitlines():
            change = json.loads(line)
            value = change["value"]
            if change["key"] in ("file", "lfsFile"):
                target = place / value["path"]
                target.parent.mkdir(parents=True, exist_ok=True)
                lfs = change["key"] == "lfsFile"
                content = (
                    (self._folder / "lfs" / value["oid"]).read_bytes() if lfs else base64.b64decode(value["content"])
                )
                target.write_bytes(content)
        url = f"{request.base_url}{request.path_params['owner']}/crew-jobs/commit/{SHA}"
        return JSONResponse(
            {"success": True, "commitUrl": url, "commitOid": SHA, "pullRequestUrl": None, "hookOutput": ""}
        )

    def _resolve(self, request: Request) -> Response:
        path = self._place(request.path_params["owner"]) / request.path_params["path"]
        if not path.is_file():
            return _refused(404, "Entry not found", "EntryNotFound")
        content = path.read_bytes()
        headers = {"ETag": f'"{_etag(path)}"', "X-Repo-Commit": SHA, "Content-Length": str(len(content))}
        return Response(b"" if request.method == "HEAD" else content, headers=headers)

    def _place(self, owner: str) -> Path:
        return self._folder / "repos" / owner / "crew-jobs"


class _Cut(StreamingResponse):
    """A stream that may end without its end, which closes the connection."""

    def __init__(self, events: AsyncIterator[bytes | None]) -> None:
        super().__init__(content=(), media_type="text/event-stream")
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async for event in self._events:
            if event is None:
                return
            await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def _stream(job: Job, cut_after: int | None) -> AsyncIterator[bytes | None]:
    sent = 0
    while True:
        over = job.over
        for event in job.events[sent:]:
            yield f"data: {json.dumps(event)}\n\n".encode()
            sent += 1
            if sent == cut_after:
                yield None
                return
        if over:
            return
        await asyncio.sleep(0.05)


def _files(place: Path) -> list[Path]:
    return sorted(path for path in place.rglob("*") if path.is_file())


def _etag(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _refused(status: int, message: str, code: str | None = None) -> Response:
    headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
    return JSONResponse({"error": message}, status_code=status, headers=headers)
