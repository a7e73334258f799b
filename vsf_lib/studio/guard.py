"""Who the page answers, and what it gives away: a layer of its server, below gradio's own.

Another site's page can send a visitor's browser here, also under a name of its own that it has turned to
this machine (DNS rebinding). Gradio keeps such a page from reading answers, not from sending; and it serves
whatever lies in a folder. Owns what is refused, and that the page asks nothing of another server. Knows no
gradio.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_SERVED = frozenset({".png", ".mp4", ".webm", ".gif"})
"""What is drawn, and what it is shown by."""
_FILE = re.compile(r"/file[=/](.+)", re.DOTALL)
_FOREIGN = re.compile(rb'<(?:script|link)\b[^>]*\b(?:src|href)="https?://[^"]*"[^>]*>(?:\s*</script>)?')
_NAME = "open it as localhost or 127.0.0.1, or start it with --listen, which lets other machines in"

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Guard:
    """Around the page's own application."""

    def __init__(self, app: Any, *, private: bool, outputs: Sequence[Path]) -> None:
        """`private`: the page is for this machine alone. Of `outputs` only what is drawn is served."""
        self._app = app
        self._private = private
        self._outputs = [
            os.path.normcase(os.path.realpath(folder)).rstrip(os.sep) + os.sep for folder in outputs
        ]

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        refused = self._refused(scope)
        if refused is None:
            await self._app(scope, receive, _Alone(send) if scope["type"] == "http" else send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            status, why = refused
            headers = [(b"content-type", b"text/plain; charset=utf-8")]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": f"{why}\n".encode()})

    def _refused(self, scope: Message) -> tuple[int, str] | None:
        """The status and the reason, or nothing."""
        told = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        called = told.get(b"host", "")
        if self._private and not is_local(called):
            return 421, f"this page is not for visitors of {called[:80]!r}: {_NAME}"
        origin = told.get(b"origin")
        if origin is not None and not is_own(origin, called, told.get(b"sec-fetch-site", "")):
            return 403, (
                f"another site's page, {origin[:80]!r}, may not use this one, {called[:80]!r}: "
                "if it is this one behind a proxy, let that pass the Host header on"
            )
        if self._is_withheld(scope["path"]):
            return 403, "only pictures and films are given out"
        return None

    def _is_withheld(self, path: str) -> bool:
        """Whether it asks for a file of the outputs that was not drawn."""
        found = _FILE.search(path)
        if found is None:
            return False
        names = {os.path.normcase(named(found[1])) for named in (os.path.abspath, os.path.realpath)}
        inside = any(name.startswith(folder) for name in names for folder in self._outputs)
        return inside and Path(found[1]).suffix.lower() not in _SERVED


class _Alone:
    """A `send` that leaves out of pages what they would ask of other servers."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._start: Message | None = None
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and _is_page(message["headers"]):
            self._start = message
        elif self._start is None:
            await self._send(message)
        else:
            self._body += message.get("body", b"")
            if not message.get("more_body"):
                start, self._start = self._start, None
                body = _FOREIGN.sub(b"", self._body)
                kept = [one for one in start["headers"] if one[0].lower() != b"content-length"]
                length = (b"content-length", str(len(body)).encode())
                await self._send({**start, "headers": [*kept, length]})
                await self._send({**message, "body": body})


def is_local(called: str) -> bool:
    """Whether a Host header is a name of this machine that no other one can have."""
    name = _name(f"//{called}").rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def is_own(origin: str, called: str, site: str) -> bool:
    """Whether a page of that origin is this server's, by how it is called (Host) or by the browser's word.

    `site` is Sec-Fetch-Site, which no script can set; over plain HTTP other machines' browsers send none.
    """
    if site == "same-origin":
        return True
    try:
        return bool(called) and urlsplit(origin).netloc.lower() == called.lower()
    except ValueError:
        return False


def _name(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def _is_page(headers: Any) -> bool:
    kinds = [value for name, value in headers if name.lower() == b"content-type"]
    coded = any(name.lower() == b"content-encoding" for name, _ in headers)
    return bool(kinds) and kinds[0].startswith(b"text/html") and not coded
