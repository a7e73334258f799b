"""A judge behind an OpenAI-compatible endpoint (`POST ADDRESS/chat/completions`), by the standard library.

Owns the request, what is tried again and when, and what its errors mean. The API key goes into one header of
the request and nowhere else: not into messages, not to another host by a redirect.
"""

from __future__ import annotations

import base64
import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from email.message import Message
from typing import Any

from vsf_lib.bench.neggen.asking import NoReplyError
from vsf_lib.errors import ModelError

ATTEMPTS = 6
LONGEST_PAUSE = 60.0
_AGAIN = frozenset({408, 409, 425, 429})
_SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "answers",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {
                "answer_1": {"type": "boolean"},
                "answer_2": {"type": "boolean"},
                "quality": {"type": "number"},
            },
            "required": ["answer_1", "answer_2", "quality"],
            "additionalProperties": False,
        },
    },
}

_REFUSED_AS = {"temperature": ("temperature",), "response_format": ("response_format", "json_schema")}
_LONGEST_REPLY = 4_000_000
"""Bytes."""
_LONGEST_SHOWN = 120
"""Signs of what came instead of one."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The standard one would send the key along, to whatever host is named."""

    def redirect_request(self, *_: Any) -> None:
        return None


class Endpoint:
    """One model of one endpoint; may be used by several threads."""

    def __init__(
        self,
        address: str,
        model: str,
        key: str = "",
        timeout: float = 120.0,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._url = f"{address}/chat/completions"
        self._model = model
        self._key = key
        self._timeout = timeout
        self._pause = pause
        self._open = urllib.request.build_opener(_NoRedirect).open
        # What makes replies repeatable and readable; some models refuse one or the other.
        self._options: dict[str, Any] = {"temperature": 0, "response_format": _SCHEMA}

    def reply(self, picture: bytes, turns: Sequence[str]) -> str:
        """What the model says; raises ModelError once trying again is of no use, and NoReplyError."""
        trouble = ""
        for attempt in range(ATTEMPTS):
            options = dict(self._options)
            wait: float | None = None
            try:
                with self._open(self._request(picture, turns, options), timeout=self._timeout) as response:
                    return self._text(_whole(response))
            except urllib.error.HTTPError as error:
                with error:
                    said = self._said(error)
                trouble = f"HTTP {error.code}{said}"
                refused = [
                    name
                    for name in options
                    if error.code in (400, 422) and any(sign in said for sign in _REFUSED_AS[name])
                ]
                if refused:
                    self._options = {name: x for name, x in self._options.items() if name not in refused}
                    continue
                if error.code not in _AGAIN and error.code < 500:
                    raise ModelError(
                        f"the judge at {self._url} refuses: {self._meant(error.code, said)}"
                    ) from None
                wait = _told_pause(error.headers)
            except (OSError, http.client.HTTPException) as error:  # URLError and timeouts among them
                trouble = self._without_key(str(getattr(error, "reason", error)) or type(error).__name__)
            if attempt + 1 < ATTEMPTS:
                self._pause(min(2.0**attempt if wait is None else wait, LONGEST_PAUSE))
        raise ModelError(
            f"the judge at {self._url} cannot be reached or is busy ({trouble}, {ATTEMPTS} times): look at "
            "the endpoint"
        )

    def _request(
        self, picture: bytes, turns: Sequence[str], options: dict[str, Any]
    ) -> urllib.request.Request:
        image = f"data:image/png;base64,{base64.b64encode(picture).decode('ascii')}"
        first = [{"type": "text", "text": turns[0]}, {"type": "image_url", "image_url": {"url": image}}]
        messages: list[dict[str, Any]] = [{"role": "user", "content": first}]
        messages += [
            {"role": "user" if place % 2 else "assistant", "content": turn}
            for place, turn in enumerate(turns[1:])
        ]
        body = json.dumps({"model": self._model, "messages": messages, **options}).encode()
        headers = {"Content-Type": "application/json", "User-Agent": "vsf"}
        request = urllib.request.Request(self._url, data=body, headers=headers, method="POST")
        if self._key:
            request.add_unredirected_header("Authorization", f"Bearer {self._key}")
        return request

    def _text(self, body: bytes) -> str:
        """The reply in an answer; raises NoReplyError where there is none, as in a web page."""
        try:
            text = json.loads(body)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError, RecursionError):
            came = " ".join(self._without_key(body.decode("utf-8", "replace")).split())
            came = f"{came[:_LONGEST_SHOWN]}..." if len(came) > _LONGEST_SHOWN else came
            raise NoReplyError(f"(no reply of a model, but {came or 'nothing'})") from None
        if isinstance(text, list):  # some give it in parts
            text = "".join(part.get("text", "") for part in text if isinstance(part, dict))
        return self._without_key(text) if isinstance(text, str) else ""

    def _said(self, error: urllib.error.HTTPError) -> str:
        """What the endpoint says of an error, in one line."""
        try:
            body = error.read(20_000).decode("utf-8", "replace")
        except (OSError, http.client.HTTPException):
            return ""
        try:
            content = json.loads(body)
            told = content.get("error", content) if isinstance(content, dict) else content
            body = str(told.get("message", told)) if isinstance(told, dict) else str(told)
        except (ValueError, RecursionError):
            pass  # not JSON: told as it is
        line = " ".join(self._without_key(body).split())[:300]
        return f": {line}" if line else ""

    def _meant(self, code: int, said: str) -> str:
        remedy = {
            401: "the key is missing or wrong (see --judge-key-env)",
            403: "the key may not use it (see --judge-key-env)",
            404: "there is no such address or model (see --judge and --judge-model)",
        }.get(code, "redirects are not followed: pass the final address" if 300 <= code < 400 else "")
        return f"HTTP {code}{said}" + (f"; {remedy}" if remedy else "")

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "(key)") if self._key else text


def _whole(response: Any) -> bytes:
    """The content; raises IncompleteRead, which `read` with a limit does not, where it was cut off."""
    content: bytes = response.read(_LONGEST_REPLY)
    if response.length:
        raise http.client.IncompleteRead(content, response.length)
    return content


def _told_pause(headers: Message) -> float | None:
    """The seconds that the endpoint asks for, if it does so in seconds."""
    try:
        seconds = float(headers.get("Retry-After", ""))
    except ValueError:
        return None
    return seconds if seconds >= 0 else None
