"""A small fake of the Hugging Face Hub over loopback: datasets, commits, uploads by LFS, files behind a redirect."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.helpers.servers import in_thread

TOKEN = "hf_PlantedPlantedPlantedPlanted"


class Hub(ThreadingHTTPServer):
    """The server: one dataset, its files and its commits."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, repository: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repository = repository
        self.files: dict[str, bytes] = {}
        self.objects: dict[str, bytes] = {}
        self.commits = [hashlib.sha1(b"first").hexdigest()]
        self.seen: list[tuple[str, str | None]] = []
        """(path, token) of each request."""
        self.between: list[tuple[str, bytes]] = []
        """Files that others commit just before the next commit arrives."""
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def commit(self, files: dict[str, bytes | None]) -> str:
        for path, content in files.items():
            if content is None:
                self.files.pop(path, None)
            else:
                self.files[path] = content
        self.commits.append(hashlib.sha1(f"{len(self.commits)}".encode()).hexdigest())
        return self.commits[-1]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, format: str, *args: object) -> None: ...

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "") == "chunked":
            parts = []
            while count := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(count))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _say(self, status: int, document: Any = None, content: bytes | None = None, **headers: str) -> None:
        body = json.dumps(document).encode() if content is None else content
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _path(self) -> str:
        self.server.seen.append((self.path, self.headers.get("Authorization")))
        return self.path.partition("?")[0]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path, hub = self._path(), self.server
        api = f"/api/datasets/{hub.repository}"
        if path.startswith("/cdn/"):
            return self._send(hub.objects[path.removeprefix("/cdn/")])
        if found := re.fullmatch(rf"/datasets/{hub.repository}/resolve/main/(.+)", path):
            if found[1] not in hub.files:
                return self._say(404, {}, X_Error_Code="EntryNotFound")
            content = hub.files[found[1]]
            digest = hashlib.sha256(content).hexdigest()
            hub.objects[digest] = content
            where = f"http://localhost:{hub.server_port}/cdn/{digest}"
            return self._say(302, {}, Location=where, X_Repo_Commit=hub.commits[-1])
        if found := re.fullmatch(rf"{api}/tree/main(?:/(.+))?", path):
            inner = f"{found[1]}/" if found[1] else ""
            names = [name for name in hub.files if name.startswith(inner) and "/" not in name[len(inner) :]]
            if inner and not names:
                return self._say(404, {}, X_Error_Code="EntryNotFound")
            return self._say(
                200,
                [{"type": "file", "path": n, "size": len(hub.files[n]), "oid": "0" * 40} for n in names],
            )
        if path in (api, f"{api}/revision/main"):
            return self._say(200, {"id": hub.repository, "sha": hub.commits[-1], "siblings": []})
        self._say(404, {}, X_Error_Code="RepoNotFound")

    def _send(self, content: bytes) -> None:
        """A file, or a range of it."""
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        tag = f'"{hashlib.sha256(content).hexdigest()}"'
        if found is None:
            return self._say(200, content=content, ETag=tag)
        first, end = int(found[1]), min(len(content), int(found[2]) + 1)
        return self._say(
            206, content=content[first:end], ETag=tag, Content_Range=f"bytes {first}-{end - 1}/{len(content)}"
        )

    def do_PUT(self) -> None:
        path, body = self._path(), self._body()
        self.server.objects[path.removeprefix("/upload/")] = body
        self._say(200, {})

    def do_POST(self) -> None:
        path, body, hub = self._path(), self._body(), self.server
        api = f"/api/datasets/{hub.repository}"
        if path == "/api/validate-yaml":
            return self._say(200, {"errors": [], "warnings": []})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._say(403, {"error": "no right to write"})
        if path == f"{api}/preupload/main":
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["size"] > 10_000 else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            return self._say(200, {"files": files})
        if path == f"/datasets/{hub.repository}.git/info/lfs/objects/batch":
            objects = [
                {**each, "actions": {"upload": {"href": f"{hub.url}/upload/{each['oid']}", "header": {}}}}
                for each in json.loads(body)["objects"]
            ]
            return self._say(200, {"transfer": "basic", "objects": objects})
        if path == f"{api}/commit/main":
            return self._commit(body)
        self._say(404, {}, X_Error_Code="RepoNotFound")

    def _commit(self, body: bytes) -> None:
        hub = self.server
        with hub.lock:
            while hub.between:
                hub.commit(dict([hub.between.pop()]))
            lines = [json.loads(line) for line in body.splitlines() if line.strip()]
            if lines[0]["value"].get("parentCommit", hub.commits[-1]) != hub.commits[-1]:
                return self._say(412, {"error": "another commit came first"})
            files: dict[str, bytes | None] = {}
            for line in lines[1:]:
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    files[value["path"]] = hub.objects[value["oid"]]
                else:
                    files[value["path"]] = None
            sha = hub.commit(files)
        self._say(
            200,
            {
                "commitUrl": f"{hub.url}/datasets/{hub.repository}/commit/{sha}",
                "commitOid": sha,
                "success": True,
            },
        )


@contextmanager
def serving_hub(repository: str = "me/labels") -> Iterator[Hub]:
    """The fake, until the end."""
    with in_thread(Hub(repository)) as server:
        yield server
