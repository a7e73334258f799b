"""A scripted OpenAI-compatible endpoint on this machine, and the benchmarks' networks made small."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from vsf_lib.bench.speed.shapes import FAMILIES

GOOD = '{"answer_1": true, "answer_2": false, "quality": 0.9}'


@dataclass(frozen=True)
class Said:
    """What the endpoint does with a request. `wait` holds it until the event, `cut` ends it half way."""

    text: str | None = GOOD
    code: int = 200
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    wait: threading.Event | None = None
    cut: bool = False

    def content(self) -> bytes:
        if self.body is not None:
            return self.body
        return json.dumps({"choices": [{"message": {"role": "assistant", "content": self.text}}]}).encode()


@dataclass
class Endpoint:
    """What was asked, and who answers: `script` gets the number of the request and its JSON."""

    address: str
    script: Callable[[int, dict[str, Any]], Said] = lambda number, asked: Said()
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    lock: Any = field(default_factory=threading.Lock)


@pytest.fixture
def said() -> type[Said]:
    return Said


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with served.lock:
                number = len(served.asked)
                served.asked.append(asked)
                served.headers.append({name.lower(): value for name, value in self.headers.items()})
                served.paths.append(self.path)
            said = served.script(number, asked)
            if said.wait is not None:
                said.wait.wait(20)
            content = said.content()
            try:
                self.send_response(said.code)
                self.send_header("Content-Length", str(len(content)))
                for name, value in said.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content[: len(content) // 2] if said.cut else content)
            except OSError:
                pass  # the other side had no patience left

        def do_GET(self) -> None:
            with served.lock:
                served.paths.append(f"GET {self.path}")
                served.headers.append({name.lower(): value for name, value in self.headers.items()})
            self.send_error(404)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served = Endpoint(f"http://127.0.0.1:{server.server_address[1]}/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield served
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def small_families(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the benchmarks of speed measure, with a few channels and words."""
    for name, family in FAMILIES.items():
        small = replace(family, heads=3, width=16, text=random.randint(9, 14))
        monkeypatch.setitem(FAMILIES, name, small)
