"""Model repositories on the loopback Hub that can be made and written to: create, preupload, LFS, commit, tree, files.

    world.uploads.repos["me/model"]       files (name -> bytes) and whether it is private
    world.uploads.corrupt = {"a.json"}    files that a commit stores with another content than was sent

As live: a private repository is seen with a token only, a card's head with ids that are none of the Hub's is refused,
and a commit is there as a whole or not at all. `crew-jobs` of any owner is hub_jobs.py's.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import yaml
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Route
from starlette.types import Scope

from tests.loopback.hub_datasets import missing, refused

__all__ = ["HubUpload", "UploadRepo"]

JOBS_REPO = "crew-jobs"
_LFS_SUFFIXES = (".safetensors", ".bin", ".model")
_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass
class UploadRepo:
    """One repository at its newest commit."""

    private: bool
    files: dict[str, bytes] = field(default_factory=lambda: {".gitattributes": b"*.safetensors filter=lfs\n"})
    commits: list[str] = field(default_factory=list)
    """Their messages."""

    @property
    def sha(self) -> str:
        return hashlib.sha1(str(len(self.commits)).encode(), usedforsecurity=False).hexdigest()


class HubUpload:
    """The service's state; one for a world."""

    def __init__(self) -> None:
        self.repos: dict[str, UploadRepo] = {}
        self.corrupt: set[str] = set()
        self._lfs: dict[str, bytes] = {}

    def reset(self) -> None:
        """No repositories."""
        self.repos.clear()
        self.corrupt.clear()
        self._lfs.clear()

    def creation(self, jobs_create: Callable[[Request], Awaitable[Response]]) -> Route:
        """The one address that makes repositories; `crew-jobs` is made by `jobs_create`."""

        async def create(request: Request) -> Response:
            asked = await request.json()
            if str(asked["name"]).split("/")[-1] == JOBS_REPO:
                return await jobs_create(request)
            return self._create(request, asked)

        return Route("/api/repos/create", create, methods=["POST"])

    def routes(self) -> list[Route]:
        """The routes of the repositories that were made; all others are somebody else's."""
        api = "/api/models/{owner}/{name}"
        return [
            Route("/api/validate-yaml", self._validate, methods=["POST"]),
            Route("/lfs-upload/{oid}", self._put, methods=["PUT"]),
            _Made(self, api, self._info),
            _Made(self, f"{api}/revision/{{revision}}", self._info),
            _Made(self, f"{api}/tree/{{revision}}", self._tree),
            _Made(self, f"{api}/preupload/{{revision}}", self._preupload, methods=["POST"]),
            _Made(self, f"{api}/commit/{{revision}}", self._commit, methods=["POST"]),
            _Made(self, "/{owner}/{name}.git/info/lfs/objects/batch", self._batch, methods=["POST"]),
            _Made(self, "/{owner}/{name}/resolve/{revision}/{path:path}", self._resolve, methods=["GET", "HEAD"]),
        ]

    def _create(self, request: Request, asked: dict[str, Any]) -> Response:
        if not _token(request):
            return refused(401, "Invalid username or password.")
        name = f"{asked.get('organization') or 'loopback'}/{asked['name'].split('/')[-1]}"
        if name.startswith("somebody-else/"):
            return refused(403, 'You don\'t have the rights to create a model under the namespace "somebody-else".')
        told = {"url": f"{request.base_url}{name}", "name": name, "id": name}
        if name in self.repos:
            return JSONResponse(told | {"error": "You already created this model repo"}, 409)
        self.repos[name] = UploadRepo(private=asked.get("visibility") == "private")
        return JSONResponse(told)

    async def _validate(self, request: Request) -> Response:
        head = re.match(r"---\n(.*?)\n---", (await request.json())["content"], re.DOTALL)
        front = yaml.safe_load(head[1]) if head else {}
        named = [("base_model", value) for value in _listed(front.get("base_model"))]
        named += [("datasets", value) for value in _listed(front.get("datasets"))]
        errors = [
            {"message": f'"{key}" with value "{value}" is not valid.'}
            for key, value in named
            if not _ID.fullmatch(value)
        ]
        warnings = [] if head else [{"message": "empty or missing yaml metadata in repo card"}]
        return JSONResponse({"errors": errors, "warnings": warnings}, status_code=400 if errors else 200)

    def _info(self, request: Request) -> Response:
        repo = self._repo(request)
        if repo.private and not _token(request):
            return missing(request)
        name = "/".join((request.path_params["owner"], request.path_params["name"]))
        siblings = [{"rfilename": path} for path in sorted(repo.files)]
        told: dict[str, Any] = {
            "_id": "2" * 24,
            "id": name,
            "modelId": name,
            "sha": repo.sha,
            "private": repo.private,
            "gated": False,
        }
        if parameters := sum(
            _weights(content) for path, content in repo.files.items() if path.endswith(".safetensors")
        ):
            told["safetensors"] = {"parameters": {"F32": parameters}, "total": parameters}
        return JSONResponse({**told, "disabled": False, "downloads": 0, "likes": 0, "tags": [], "siblings": siblings})

    def _tree(self, request: Request) -> Response:
        entries = []
        for path, content in sorted(self._repo(request).files.items()):
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
            entry: dict[str, Any] = {"type": "file", "oid": blob, "size": len(content), "path": path}
            if path.endswith(_LFS_SUFFIXES):
                entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 132}
            entries.append(entry)
        return JSONResponse(entries)

    async def _preupload(self, request: Request) -> Response:
        modes = [
            {"path": file["path"], "uploadMode": "lfs" if file["path"].endswith(_LFS_SUFFIXES) else "regular",
             "shouldIgnore": False, "oid": None}
            for file in (await request.json())["files"]
        ]  # fmt: skip
        return JSONResponse({"files": modes})

    async def _batch(self, request: Request) -> Response:
        objects = []
        for asked in (await request.json())["objects"]:
            entry = {"oid": asked["oid"], "size": asked["size"], "authenticated": True}
            if asked["oid"] not in self._lfs:
                href = f"{request.base_url}lfs-upload/{asked['oid']}"
                entry["actions"] = {"upload": {"href": href, "header": {}}}
            objects.append(entry)
        return JSONResponse({"transfer": "basic", "objects": objects}, media_type="application/vnd.git-lfs+json")

    async def _put(self, request: Request) -> Response:
        body, oid = await request.body(), request.path_params["oid"]
        if hashlib.sha256(body).hexdigest() != oid:
            return Response("wrong sha256", status_code=422)
        self._lfs[oid] = body
        return Response(status_code=200)

    async def _commit(self, request: Request) -> Response:
        repo = self._repo(request)
        if not _token(request):
            return refused(401, "Invalid username or password.")
        files, message = {}, ""
        for line in (await request.body()).splitlines():
            change = json.loads(line)
            value = change["value"]
            if change["key"] == "header":
                message = value["summary"]
            else:
                lfs = change["key"] == "lfsFile"
                content = self._lfs[value["oid"]] if lfs else base64.b64decode(value["content"])
                files[value["path"]] = content + b" " if value["path"] in self.corrupt else content
        repo.files |= files
        repo.commits.append(message)
        url = f"{request.base_url}{request.path_params['owner']}/{request.path_params['name']}/commit/{repo.sha}"
        return JSONResponse(
            {"success": True, "commitUrl": url, "commitOid": repo.sha, "pullRequestUrl": None, "hookOutput": ""}
        )

    def _resolve(self, request: Request) -> Response:
        repo = self._repo(request)
        content = repo.files.get(request.path_params["path"])
        if content is None:
            return refused(404, "Entry not found", "EntryNotFound")
        etag = hashlib.sha256(content).hexdigest()
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": repo.sha, "Content-Length": str(len(content))}
        return Response(b"" if request.method == "HEAD" else content, headers=headers)

    def _repo(self, request: Request) -> UploadRepo:
        return self.repos["/".join((request.path_params["owner"], request.path_params["name"]))]


class _Made(Route):
    """A route of repositories that were made here; it does not match others."""

    def __init__(
        self, hub: HubUpload, path: str, endpoint: Callable[..., Any], methods: list[str] | None = None
    ) -> None:
        super().__init__(path, endpoint, methods=methods)
        self._hub = hub

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child = super().matches(scope)
        found = child.get("path_params", {})
        if match is not Match.NONE and f"{found['owner']}/{found['name']}" not in self._hub.repos:
            return Match.NONE, {}
        return match, child


def _weights(content: bytes) -> int:
    """Parameters, as the Hub counts them: from the header of a safetensors file; a broken one has none."""
    try:
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    except ValueError:
        return 0
    return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")


def _token(request: Request) -> bool:
    return request.headers.get("authorization", "").startswith("Bearer hf_")


def _listed(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else [] if value is None else [str(value)]
