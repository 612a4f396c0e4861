"""A small model and data hub on loopback, for tests of everything that downloads.

It serves a folder in this layout, with the addresses and headers that huggingface_hub and datasets ask for:

    ROOT/datasets/OWNER/NAME/...    files of a data set repository
    ROOT/models/OWNER/NAME/...      files of a model repository

The libraries read HF_ENDPOINT and HF_HOME when they are imported, so the code under test runs in a process of its own:

    with FakeHub(root) as hub:
        subprocess.run([sys.executable, "-c", code], env=hub.environment(home))
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Collection
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

_RESOLVE = re.compile(r"^/(?P<kind>datasets/)?(?P<repository>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)$")
_API = re.compile(
    r"^/api/(?P<kind>datasets|models)/(?P<repository>[^/]+/[^/]+?)"
    r"(?:/(?P<call>revision|tree|paths-info|xet-read-token)/(?P<revision>[^/]+)(?:/(?P<path>.+))?)?$"
)


class FakeHub:
    """Serves `root` from the moment the `with` block begins to its end.

    Args:
        root: see the module's docstring.
        gated: repositories ("datasets/OWNER/NAME") that answer as gated ones do without a token.
        status: answer every request with this HTTP status instead, for example 503.
        delay_seconds: wait before each answer.
    """

    def __init__(
        self, root: Path, *, gated: Collection[str] = (), status: int | None = None, delay_seconds: float = 0.0
    ) -> None:
        self.root = root
        self.gated = frozenset(gated)
        self.status = status
        self.delay_seconds = delay_seconds
        self.requests: list[str] = []
        """Method and address of each request so far."""
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def endpoint(self) -> str:
        """The address for HF_ENDPOINT."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def environment(self, home: Path, **more: str) -> dict[str, str]:
        """Returns this process's environment with HF_ENDPOINT and HF_HOME set and the hub's other switches removed."""
        return hub_environment(self.endpoint, home, **more)

    def __enter__(self) -> FakeHub:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def folder(self, kind: str, repository: str) -> Path:
        """The folder of one repository; `kind` is "datasets" or "models"."""
        return self.root / kind / repository


def hub_environment(endpoint: str, home: Path, **more: str) -> dict[str, str]:
    """Returns this process's environment for a child that shall use the hub at `endpoint`, with its cache in `home`."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HF_", "HUGGING", "TRANSFORMERS_")) and not name.lower().endswith("_proxy")
    }
    return {**kept, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), **more}


def commit_of(folder: Path) -> str:
    """The commit a repository is at: a hash over names and contents, so that a changed file is a new commit."""
    digest = hashlib.sha1()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _entry(folder: Path, path: Path) -> dict[str, Any]:
    name = path.relative_to(folder).as_posix()
    if path.is_dir():
        return {"type": "directory", "oid": hashlib.sha1(name.encode()).hexdigest(), "size": 0, "path": name}
    contents = path.read_bytes()
    return {"type": "file", "oid": hashlib.sha1(contents).hexdigest(), "size": len(contents), "path": name}


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: Any) -> None:
        """Keeps the server silent; `FakeHub.requests` has the log."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.hub.requests.append(f"{self.command} {self.path}")
        time.sleep(self.hub.delay_seconds)
        if self.hub.status is not None:
            self._send(self.hub.status, b"{}")
            return
        address = urlsplit(self.path)
        path = unquote(address.path)
        if match := _RESOLVE.match(path):
            kind = "datasets" if match["kind"] else "models"
            if folder := self._repository(kind, match["repository"], match["revision"]):
                self._send_file(folder, match["path"])
        elif match := _API.match(path):
            if folder := self._repository(match["kind"], match["repository"], match["revision"] or "main"):
                self._send_api(folder, match, parse_qs(address.query), body)
        else:
            self._send_error(HTTPStatus.NOT_FOUND, None, f"the fake hub has no {path}")

    def _repository(self, kind: str, repository: str, revision: str) -> Path | None:
        """The folder to serve; None after the refusal has been sent."""
        folder = self.hub.folder(kind, repository)
        if not folder.is_dir():
            # The hub does not tell a stranger whether a private repository exists.
            self._send_error(HTTPStatus.UNAUTHORIZED, "RepoNotFound", "Invalid username or password.")
        elif f"{kind}/{repository}" in self.hub.gated:
            self._send_error(HTTPStatus.UNAUTHORIZED, "GatedRepo", f"Access to {repository} is restricted.")
        elif revision not in ("main", commit_of(folder)):
            self._send_error(HTTPStatus.NOT_FOUND, "RevisionNotFound", f"Invalid rev id: {revision}")
        else:
            return folder
        return None

    def _send_file(self, folder: Path, name: str) -> None:
        path = folder / name
        commit = {"X-Repo-Commit": commit_of(folder)}
        if not path.is_file():
            self._send_error(HTTPStatus.NOT_FOUND, "EntryNotFound", "Entry not found", commit)
            return
        contents = path.read_bytes()
        headers = {
            **commit,
            "ETag": f'"{hashlib.sha1(contents).hexdigest()}"',
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
        }
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            self._send(HTTPStatus.OK, contents, headers)
            return
        start, end = int(asked[1]), min(int(asked[2] or len(contents) - 1), len(contents) - 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{len(contents)}"
        self._send(HTTPStatus.PARTIAL_CONTENT, contents[start : end + 1], headers)

    def _send_api(self, folder: Path, match: re.Match[str], query: dict[str, list[str]], body: bytes) -> None:
        match match["call"]:
            case None | "revision":
                answer: Any = self._information(folder, match["repository"])
            case "tree":
                top = folder / (match["path"] or "")
                if not top.is_dir():
                    self._send_error(HTTPStatus.NOT_FOUND, "EntryNotFound", "Entry not found")
                    return
                recursive = query.get("recursive", ["false"])[0].lower() in ("1", "true")
                answer = [_entry(folder, path) for path in sorted(top.rglob("*") if recursive else top.iterdir())]
            case "paths-info":
                names = _asked_paths(body, self.headers.get("Content-Type", ""))
                answer = [_entry(folder, folder / name) for name in names if (folder / name).exists()]
            case call:
                self._send_error(HTTPStatus.NOT_FOUND, None, f"the fake hub has no {call}")
                return
        self._send(HTTPStatus.OK, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _information(self, folder: Path, repository: str) -> dict[str, Any]:
        files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        return {
            "id": repository,
            "modelId": repository,
            "sha": commit_of(folder),
            "private": False,
            "gated": False,
            "disabled": False,
            "tags": [],
            "downloads": 0,
            "likes": 0,
            "siblings": [{"rfilename": name} for name in files],
        }

    def _send_error(
        self, status: HTTPStatus, code: str | None, message: str, headers: dict[str, str] | None = None
    ) -> None:
        named = {"X-Error-Code": code} if code else {}
        body = json.dumps({"error": message}).encode()
        self._send(status, body, {"X-Error-Message": message, **named, **(headers or {})})

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _asked_paths(body: bytes, content_type: str) -> list[str]:
    if "json" in content_type:
        paths = json.loads(body)["paths"]
        return [paths] if isinstance(paths, str) else list(paths)
    return parse_qs(body.decode()).get("paths", [])
