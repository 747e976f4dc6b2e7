"""A hub on this machine: the few addresses that the real client asks, serving what a test puts there.

Files of 1000 bytes and more are kept as on the hub: behind a redirect to another host, named by their SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

LARGE = 1000
COMMIT = "c0ffee" + "0" * 34

GATED_LOG_IN = (401, "GatedRepo", "Access to model owner/name is restricted. You must be authenticated to access it.")
GATED_TERMS = (403, "GatedRepo", "Access to model owner/name is restricted and you are not in the authorized list.")
GATED_WAITS = (403, "GatedRepo", "Your request to access model owner/name is awaiting a review from the repo authors.")
GATED_REFUSED = (403, "GatedRepo", "Your request to access model owner/name has been rejected by the repo's authors.")
GATED_TOKEN = (
    403,
    "GatedRepo",
    "Please enable access to public gated repositories in your fine-grained token settings.",
)
NO_REPO = (404, "RepoNotFound", "Repository not found")
NO_REPO_LOG_IN = (401, "RepoNotFound", "Invalid username or password.")
BAD_TOKEN = (401, "", "Invalid credentials in Authorization header")
DISABLED = (403, "", "Access to this resource is disabled.")


@dataclass
class Served:
    """One repository: its files by commit, and what each branch means."""

    files: dict[str, dict[str, bytes]]
    branches: dict[str, str]


@dataclass(frozen=True)
class Asked:
    """One request."""

    method: str
    path: str
    range: str | None
    token: str | None


@dataclass
class Hub:
    """The files that are served, the requests received, and the planned faults."""

    repos: dict[str, Served] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    refusals: dict[str | None, tuple[int, str, str]] = field(default_factory=dict)
    """By token (none: without one), for files and, where the code is no GatedRepo, for everything."""
    failures: list[int] = field(default_factory=list)
    """Statuses of the next answers."""
    cuts: list[int] = field(default_factory=list)
    """After how many bytes the connection ends, in the next contents of large files."""
    honours_ranges: bool = True
    damage: bool = False
    port: int = 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def add(self, place: str, files: Mapping[str, bytes], commit: str = COMMIT, branch: str = "main") -> None:
        """Serve files under ``models/OWNER/NAME`` or ``datasets/OWNER/NAME``."""
        served = self.repos.setdefault(place, Served({}, {}))
        served.files[commit] = dict(files)
        served.branches[branch] = commit

    def contents(self) -> list[Asked]:
        """The requests for content, of whatever size."""
        return [asked for asked in self.asked if asked.method == "GET" and not asked.path.startswith("/api/")]


def folder_files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self) -> None:
        path = self.path.partition("?")[0]
        token = self.headers.get("Authorization", "").removeprefix("Bearer ") or None
        self.hub.asked.append(Asked(self.command, path, self.headers.get("Range"), token))
        if self.hub.failures:
            return self._send(self.hub.failures.pop(0), b"")
        if match := re.fullmatch(r"/cdn/(\w+)", path):
            return self._cdn(match[1])
        refusal = self.hub.refusals.get(token)
        if match := re.fullmatch(r"/api/((?:models|datasets)/.+?)(?:/(revision|tree)/([^/]+))?", path):
            if refusal and refusal[1] != "GatedRepo":
                return self._refuse(*refusal)
            return self._api(match[1], match[2], match[3] or "main")
        if match := re.fullmatch(r"/(datasets/)?(.+?)/resolve/([^/]+)/(.+)", path):
            return self._refuse(*refusal) if refusal else self._file(match)
        return self._send(404, b"")

    def _commit(self, place: str, revision: str) -> str | None:
        """The commit meant; where there is none, the refusal has been sent."""
        served = self.hub.repos.get(place)
        if served is None:
            self._refuse(*NO_REPO)
            return None
        commit = served.branches.get(revision, revision)
        if commit not in served.files:
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return None
        return commit

    def _api(self, place: str, kind: str | None, revision: str) -> None:
        commit = self._commit(place, revision)
        if commit is None:
            return
        document: object = {"id": place.partition("/")[2], "sha": commit, "siblings": []}
        if kind == "tree":
            document = [_entry(name, body) for name, body in self.hub.repos[place].files[commit].items()]
        self._send(200, json.dumps(document).encode(), {"Content-Type": "application/json"})

    def _file(self, match: re.Match[str]) -> None:
        place = f"{match[1] or 'models/'}{match[2]}"
        commit = self._commit(place, match[3])
        if commit is None:
            return
        body = self.hub.repos[place].files[commit].get(match[4])
        headers = {"X-Repo-Commit": commit}
        if body is None:
            self._send(404, b"", headers | {"X-Error-Code": "EntryNotFound"})
        elif len(body) < LARGE:
            self._send(200, body, headers | {"ETag": f'"{_git_oid(body)}"'})
        else:
            content = hashlib.sha256(body).hexdigest()
            headers |= {"X-Linked-Etag": f'"{content}"', "X-Linked-Size": str(len(body))}
            self._send(302, b"", headers | {"Location": f"http://localhost:{self.hub.port}/cdn/{content}"})

    def _cdn(self, content: str) -> None:
        bodies = (
            body for served in self.hub.repos.values() for files in served.files.values() for body in files.values()
        )
        body = next(body for body in bodies if hashlib.sha256(body).hexdigest() == content)
        if self.hub.damage:
            body = body[:-1] + b"?"
        start = int((self.headers.get("Range") or "bytes=0-")[6:].rstrip("-"))
        cut = self.hub.cuts.pop(0) if self.hub.cuts else None
        if start and self.hub.honours_ranges:
            self._send(206, body[start:], {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"}, cut)
        else:
            self._send(200, body, cut=cut)

    def _refuse(self, status: int, code: str, message: str) -> None:
        headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self._send(status, json.dumps({"error": message}).encode(), headers)

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None, cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:cut])


def _git_oid(body: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()


def _entry(name: str, body: bytes) -> dict[str, object]:
    entry: dict[str, object] = {"type": "file", "path": name, "size": len(body), "oid": _git_oid(body)}
    if len(body) >= LARGE:
        entry["lfs"] = {"oid": hashlib.sha256(body).hexdigest(), "size": len(body), "pointerSize": 134}
    return entry


@contextmanager
def serving(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that this process and those it starts ask, with an empty cache in ``home`` and no token."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Served", (Handler,), {"hub": hub}))
    hub.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    monkeypatch.setenv("HF_HOME", str(home))
    # The library reads the environment when it is imported, which in this process may have been long ago.
    constants = "huggingface_hub.constants"
    monkeypatch.setattr(f"{constants}.ENDPOINT", hub.endpoint)
    monkeypatch.setattr(
        f"{constants}.HUGGINGFACE_CO_URL_TEMPLATE", hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(f"{constants}.HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(f"{constants}.HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.setattr(f"{constants}.HF_HUB_DISABLE_PROGRESS_BARS", True)
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def go_offline_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Apply what --offline does to a process that imports the library afterwards."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
