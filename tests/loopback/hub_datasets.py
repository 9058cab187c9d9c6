"""Datasets on the Hugging Face Hub: list, info, tree, files; gated and missing repositories; whoami.

As live: `search` looks at names only, lists have pages (here of 10) with a Link header, files of git-lfs are redirected
to another address, information about a gated repository is public while its files answer 401 without a token and 403
with one that has not accepted the terms. The token `hf_granted` has.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from tests.loopback.repos import REPOS, Repo
from tests.loopback.shelf import PARQUET, File, Shelf

__all__ = ["granted", "missing", "refused", "routes", "summary"]

PAGE = 10
_SORTS: dict[str, Callable[[Repo], Any]] = {
    "downloads": lambda repo: repo.downloads,
    "likes": lambda repo: repo.likes,
    "lastModified": lambda repo: repo.modified,
    "createdAt": lambda repo: repo.modified,
    "trendingScore": lambda repo: repo.likes,
}


def granted(request: Request) -> bool:
    """Whether the request may read gated repositories."""
    return request.headers.get("authorization") == "Bearer hf_granted"


def _token(request: Request) -> bool:
    return request.headers.get("authorization", "").startswith("Bearer hf_")


def refused(status: int, message: str, code: str | None = None) -> JSONResponse:
    """An error as the Hub words it."""
    headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
    return JSONResponse({"error": message}, status_code=status, headers=headers)


def missing(request: Request) -> JSONResponse:
    """The refusal of a repository that does not exist."""
    if _token(request):
        return refused(404, "Repository not found", "RepoNotFound")
    # who has no token is not told whether it is private or does not exist
    return refused(401, "Invalid username or password.", "RepoNotFound")


def summary(repo: Repo, shelf: Shelf) -> dict[str, Any]:
    """A repository as lists show it."""
    return {
        "_id": hashlib.md5(repo.id.encode(), usedforsecurity=False).hexdigest()[:24],
        "id": repo.id,
        "author": repo.id.partition("/")[0],
        "sha": shelf.sha(repo),
        "lastModified": repo.modified,
        "createdAt": "2026-06-01T00:00:00.000Z",
        "private": False,
        "gated": repo.gated or False,
        "disabled": False,
        "tags": repo.all_tags,
        "description": repo.text[:200],
        "downloads": repo.downloads,
        "likes": repo.likes,
        "trendingScore": repo.likes // 10,
    }


def _detail(repo: Repo, shelf: Shelf) -> dict[str, Any]:
    siblings = [{"rfilename": path} for path in shelf.paths(repo)]
    return {**summary(repo, shelf), "cardData": repo.card, "siblings": siblings, "usedStorage": 0}


def routes(shelf: Shelf) -> list[Route]:
    """Datasets below the Hub's address."""
    hub = _Hub(shelf)
    one, files = "/api/datasets/{owner}/{name}", "/datasets/{owner}/{name}/resolve/{rest:path}"
    return [
        Route("/api/whoami-v2", hub.whoami),
        Route("/api/datasets", hub.listed),
        Route(one, hub.info),
        Route(f"{one}/revision/{{revision:path}}", hub.info),
        Route(f"{one}/tree/{{rest:path}}", hub.tree),
        Route(f"{one}/paths-info/{{revision:path}}", hub.paths_info, methods=["POST"]),
        Route(files, hub.resolve, methods=["GET", "HEAD"]),
        Route("/cdn/{sha256}/{rest:path}", hub.stored, methods=["GET", "HEAD"]),
    ]


class _Hub:
    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._stored: dict[str, File] = {}

    def whoami(self, request: Request) -> Response:
        if not _token(request):
            return refused(401, "Invalid username or password.")
        token = {"displayName": "loopback", "role": "read", "createdAt": "2026-01-01T00:00:00.000Z"}
        auth = {"type": "access_token", "accessToken": token}
        return JSONResponse({"type": "user", "id": "0" * 24, "name": "loopback", "fullname": "Loopback", "auth": auth})

    def listed(self, request: Request) -> Response:
        asked = request.query_params
        found = list(REPOS.values())
        for word in " ".join(asked.getlist("search")).lower().split():
            found = [repo for repo in found if word in repo.id.lower()]
        for tag in asked.getlist("filter"):
            found = [repo for repo in found if tag in repo.all_tags]
        if author := asked.get("author"):
            found = [repo for repo in found if repo.id.startswith(f"{author}/")]
        if gated := asked.get("gated"):
            found = [repo for repo in found if bool(repo.gated) is (gated.lower() == "true")]
        by = asked.get("sort", "trendingScore")
        limit, cursor = asked.get("limit", str(PAGE)), asked.get("cursor", "0")
        if by not in _SORTS or not limit.isdecimal() or not cursor.isdecimal():
            return refused(400, f"invalid sort, limit or cursor: {by[:40]}, {limit[:40]}, {cursor[:40]}")
        found.sort(key=_SORTS[by], reverse=asked.get("direction") != "1")
        start, count = int(cursor), min(int(limit), PAGE)
        shown = _detail if asked.get("full", "").lower() in ("true", "1") else summary
        items = [_expanded(shown(repo, self._shelf), repo, asked.getlist("expand"))
                 for repo in found[start : start + count]]  # fmt: skip
        headers = {}
        if start + count < len(found):
            headers["Link"] = f'<{request.url.include_query_params(cursor=start + count)}>; rel="next"'
        return JSONResponse(items, headers=headers)

    def info(self, request: Request) -> Response:
        repo = self._repo(request)
        if repo is None:
            return missing(request)
        if not self._known(repo, request.path_params.get("revision", "main")):
            return refused(404, f"Invalid rev id: {request.path_params['revision'][:80]}", "RevisionNotFound")
        detail = _detail(repo, self._shelf)
        if request.query_params.get("blobs", "").lower() in ("true", "1"):
            detail["siblings"] = [_sibling(found) for found in self._shelf.files(repo)]
        return JSONResponse(_expanded(detail, repo, request.query_params.getlist("expand")))

    def tree(self, request: Request) -> Response:
        repo = self._repo(request)
        if repo is None:
            return missing(request)
        if (refusal := self._closed(repo, request)) is not None:
            return refusal
        revision, folder = self._split(repo, request.path_params["rest"])
        if revision is None:
            return refused(404, "Invalid rev id", "RevisionNotFound")
        recursive = request.query_params.get("recursive", "").lower() in ("true", "1")
        entries = [entry for entry in self._entries(repo, revision) if _below(entry["path"], folder, recursive)]
        if folder and not entries:
            return refused(404, f"{folder} does not exist on {revision}", "EntryNotFound")
        return JSONResponse(entries)

    async def paths_info(self, request: Request) -> Response:
        repo = self._repo(request)
        if repo is None:
            return missing(request)
        if (refusal := self._closed(repo, request)) is not None:
            return refusal
        wanted = await _wanted(request)
        revision = request.path_params["revision"]
        if not self._known(repo, revision):
            return refused(404, "Invalid rev id", "RevisionNotFound")
        entries = await run_in_threadpool(lambda: list(self._entries(repo, revision)))
        return JSONResponse([entry for entry in entries if entry["path"] in wanted])

    def resolve(self, request: Request) -> Response:
        repo = self._repo(request)
        if repo is None:
            return missing(request)
        if (refusal := self._closed(repo, request)) is not None:
            return refusal
        revision, path = self._split(repo, request.path_params["rest"])
        if revision is None:
            return refused(404, "Invalid rev id", "RevisionNotFound")
        found = self._shelf.file(repo, path, revision)
        if found is None:
            return refused(404, f"{path[:200]} does not exist on {revision}", "EntryNotFound")
        headers = {"X-Repo-Commit": self._shelf.sha(repo), "Accept-Ranges": "bytes"}
        if found.sha256 is None:
            return FileResponse(found.place, headers={**headers, "ETag": f'"{found.etag}"'}, media_type=_media(path))
        self._stored[found.sha256] = found
        headers |= {"X-Linked-Size": str(found.size), "X-Linked-ETag": f'"{found.etag}"'}
        # another host, as live: clients must not send their token there
        headers["Location"] = f"http://localhost:{request.url.port}/cdn/{found.sha256}{quote(request.url.path)}"
        return Response(status_code=302, headers=headers)

    def stored(self, request: Request) -> Response:
        found = self._stored.get(request.path_params["sha256"])
        if found is None:
            return Response("AccessDenied", status_code=403)
        headers = {"Accept-Ranges": "bytes", "ETag": f'"{found.etag}"'}
        return FileResponse(found.place, headers=headers, media_type="application/octet-stream")

    def _repo(self, request: Request) -> Repo | None:
        return self._shelf.repo(f"{request.path_params['owner']}/{request.path_params['name']}")

    def _known(self, repo: Repo, revision: str) -> bool:
        return revision in ("main", self._shelf.sha(repo), PARQUET)

    def _split(self, repo: Repo, rest: str) -> tuple[str | None, str]:
        """`main/data/train.parquet` in revision and path; the revision may hold slashes."""
        for revision in ("main", self._shelf.sha(repo), PARQUET):
            if rest == revision or rest.startswith(f"{revision}/"):
                return revision if revision == PARQUET else "main", rest[len(revision) + 1 :]
        return None, rest

    def _closed(self, repo: Repo, request: Request) -> Response | None:
        if repo.gated is None or granted(request):
            return None
        about = f"Access to dataset {repo.id} is restricted."
        if _token(request):
            return refused(403, f"{about} You are not in the authorized list.", "GatedRepo")
        return refused(401, f"{about} You must have access to it and be authenticated to access it.", "GatedRepo")

    def _entries(self, repo: Repo, revision: str) -> Iterator[dict[str, Any]]:
        if revision == PARQUET:
            made = [self._shelf.file(repo, f"default/{split}/0000.parquet", PARQUET) for split in repo.splits]
            files = [found for found in made if found is not None]
        else:
            files = list(self._shelf.files(repo))
        folders = {parent.as_posix() for found in files for parent in _parents(found.path)}
        for folder in sorted(folders):
            yield {"type": "directory", "oid": hashlib.sha1(folder.encode(), usedforsecurity=False).hexdigest(),
                   "size": 0, "path": folder}  # fmt: skip
        for found in files:
            entry: dict[str, Any] = {"type": "file", "oid": found.oid, "size": found.size, "path": found.path}
            if found.sha256 is not None:
                entry["lfs"] = {"oid": found.sha256, "size": found.size, "pointerSize": 132}
            yield entry


def _parents(path: str) -> list[PurePosixPath]:
    return [parent for parent in PurePosixPath(path).parents if parent.as_posix() != "."]


def _below(path: str, folder: str, recursive: bool) -> bool:
    if folder and not path.startswith(f"{folder}/"):
        return False
    return recursive or "/" not in path[len(folder) + 1 if folder else 0 :]


def _expanded(item: dict[str, Any], repo: Repo, names: list[str]) -> dict[str, Any]:
    """`expand` leaves id and the named properties only."""
    if not names:
        return item
    every = {**item, "cardData": repo.card, "downloadsAllTime": 3 * repo.downloads}
    return {"_id": item["_id"], "id": item["id"], **{name: every[name] for name in names if name in every}}


def _sibling(found: File) -> dict[str, Any]:
    item: dict[str, Any] = {"rfilename": found.path, "size": found.size, "blobId": found.oid}
    if found.sha256 is not None:
        item["lfs"] = {"sha256": found.sha256, "size": found.size, "pointerSize": 132}
    return item


async def _wanted(request: Request) -> list[str]:
    body = await request.body()
    if re.match(rb"\s*\{", body):
        paths = json.loads(body).get("paths", [])
        return [paths] if isinstance(paths, str) else list(paths)
    return [str(value) for value in (await request.form()).getlist("paths")]


def _media(path: str) -> str:
    return (
        "text/plain; charset=utf-8" if path.endswith((".md", ".py", ".gitattributes")) else "application/octet-stream"
    )
