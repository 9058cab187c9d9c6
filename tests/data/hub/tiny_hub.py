"""A Hub of one repository whose files, names and sizes a test chooses: what the loopback world does not serve."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

REVISION = "c0ffee" + "0" * 34


@dataclass
class TinyHub:
    """What is served."""

    id: str
    files: dict[str, bytes] = field(default_factory=dict)
    card: dict[str, object] = field(default_factory=lambda: {"license": "mit"})
    sizes: dict[str, int | None] = field(default_factory=dict)
    """Stated sizes that differ from the true ones."""
    digests: dict[str, str] = field(default_factory=dict)
    """Stated sha256 that differ from the true ones."""
    copy: dict[str, bytes] = field(default_factory=dict)
    """Files of refs/convert/parquet."""
    down: set[str] = field(default_factory=set)
    """Paths of files that answer 500."""
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def info(self) -> dict[str, object]:
        siblings = []
        for path, content in {"README.md": b"", **self.files}.items():
            digest = self.digests.get(path, hashlib.sha256(content).hexdigest())
            size = self.sizes.get(path, len(content))
            siblings.append({"rfilename": path, "size": size, "lfs": {"sha256": digest, "size": size}})
        return {"id": self.id, "sha": REVISION, "gated": False, "tags": [], "cardData": self.card, "siblings": siblings}

    def answer(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        resolve = f"/datasets/{self.id}/resolve/"
        if path == f"/api/datasets/{self.id}":
            return 200, json.dumps(self.info()).encode(), {}
        if path == "/datasets-server/parquet" and self.copy:
            public = f"https://huggingface.co/datasets/{self.id}/resolve/refs%2Fconvert%2Fparquet/"
            listed = [
                {"dataset": self.id, "config": p.split("/")[0], "split": p.split("/")[1], "url": public + p,
                 "filename": p.split("/")[-1], "size": len(content)}
                for p, content in self.copy.items()
            ]  # fmt: skip
            answer = {"parquet_files": listed, "pending": [], "failed": [], "partial": False}
            return 200, json.dumps(answer).encode(), {"X-Revision": REVISION}
        if path.startswith(resolve):
            name = path.removeprefix(resolve)
            for revision, files in ((REVISION, self.files), ("refs/convert/parquet", self.copy)):
                plain = name.removeprefix(f"{revision}/")
                if plain != name and plain in self.down:
                    return 500, b"", {}
                if plain != name and plain in files:
                    return 200, files[plain], {}
            return 404, b"{}", {"X-Error-Code": "EntryNotFound"}
        return 404, b"{}", {"X-Error-Code": "RepoNotFound"}

    @contextmanager
    def served(self) -> Iterator[TinyHub]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                path = unquote(urlsplit(self.path).path)
                hub.asked.append(path)
                status, body, headers = hub.answer(path)
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_arguments: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        hub.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield hub
        finally:
            server.shutdown()
            server.server_close()
