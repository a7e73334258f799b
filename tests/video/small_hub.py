"""A small server that speaks the few routes of the hub that a download uses, and misbehaves on request."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

PIECE = 1 << 18
LARGE = 1000
"""From this size on a file is one of the large ones, which have a checksum in the list."""
TOKEN = "hf_good"


@dataclass
class Repo:
    files: dict[str, bytes]
    gated: bool = False
    private: bool = False
    version: str = "a" * 40
    before: Repo | None = None
    """The version before this one, if the server still has it."""


@dataclass
class Hub:
    """The server; `served` counts the bytes of files that went out, by name."""

    repos: dict[str, Repo] = field(default_factory=dict)
    cuts: dict[str, list[int]] = field(default_factory=dict)
    """By file: after how many bytes of an answer the connection is closed, one answer after the other."""
    damaged: set[str] = field(default_factory=set)
    piece_seconds: float = 0.0
    busy: int = 0
    """How many of the next answers with a file are a 503."""
    on_piece: object = None
    """Called with a file's name and how much of it has gone out."""
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    served: dict[str, int] = field(default_factory=dict)

    def __enter__(self) -> Hub:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"hub": self}))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"


def repo_of(folder: Path) -> Repo:
    return Repo(
        {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
    )


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def _answer(self, *, body):
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path, self.headers.get("Range", "")))
        words = path.strip("/").split("/")
        api = words[:2] == ["api", "models"]
        id = "/".join(words[2:4] if api else words[:2])
        repo = self.hub.repos.get(id)
        known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if repo is None or (repo.private and not known):
            return self._refuse(404 if known else 401, "RepoNotFound")
        rest = words[4:] if api else words[2:]
        if rest[:1] in (["revision"], ["resolve"]) and rest[1] not in ("main", repo.version):
            repo = repo.before
            if repo is None or rest[1] != repo.version:
                return self._refuse(404, "RevisionNotFound")
        if api:
            return self._list(id, repo)
        if repo.gated and not known:
            return self._refuse(401, "GatedRepo")
        name = path.split("/resolve/")[1].split("/", 1)[1]
        if name not in repo.files:
            return self._refuse(404, "EntryNotFound")
        if body and self.hub.busy:
            self.hub.busy -= 1
            return self._refuse(503, "")
        return self._file(repo, name, body=body)

    def _refuse(self, status, code):
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _list(self, id, repo):
        files = []
        for name, content in repo.files.items():
            item = {"rfilename": name, "size": len(content), "blobId": hashlib.sha1(content).hexdigest()}
            if len(content) >= LARGE:
                sha = hashlib.sha256(content).hexdigest()
                item["lfs"] = {"sha256": sha, "size": len(content), "pointerSize": 130}
            files.append(item)
        answer = json.dumps(
            {
                "id": id,
                "modelId": id,
                "sha": repo.version,
                "gated": "auto" if repo.gated else False,
                "private": repo.private,
                "tags": [],
                "siblings": files,
            }
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def _file(self, repo, name, *, body):
        content = repo.files[name]
        etag = (hashlib.sha256 if len(content) >= LARGE else hashlib.sha1)(content).hexdigest()
        begin = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        if begin > len(content):
            return self._refuse(416, "")
        if name in self.hub.damaged:
            content = bytes(len(content))
        rest = content[begin:]
        self.send_response(206 if "Range" in self.headers else 200)
        self.send_header("ETag", f'"{etag}"')
        self.send_header("X-Repo-Commit", repo.version)
        self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("X-Linked-Etag", f'"{etag}"')
        # As the hub does for large files: whoever has hf_xet would go another way.
        self.send_header("X-Xet-Hash", "0" * 64)
        self.send_header("X-Xet-Refresh-Route", "/xet")
        self.send_header("Content-Length", str(len(rest)))
        if "Range" in self.headers:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if not body:
            return
        cuts = self.hub.cuts.get(name)
        end = min(cuts.pop(0), len(rest)) if cuts else len(rest)
        for at in range(0, end, PIECE):
            piece = rest[at : min(at + PIECE, end)]
            try:
                self.wfile.write(piece)
            except OSError:
                break
            self.hub.served[name] = self.hub.served.get(name, 0) + len(piece)
            if self.hub.on_piece is not None:
                self.hub.on_piece(name, begin + at + len(piece))
            time.sleep(self.hub.piece_seconds)
        if end < len(rest):
            self.close_connection = True
