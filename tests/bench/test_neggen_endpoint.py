"""The judge behind an endpoint, against a scripted one: what is sent, what is tried again, what is told."""

from __future__ import annotations

import base64
import http.server
import io
import logging
import socket
import threading
from typing import Any

import pytest
from PIL import Image

from vsf_lib.bench.neggen.asking import TRIES, ask
from vsf_lib.bench.neggen.endpoint import ATTEMPTS, LONGEST_PAUSE, Endpoint
from vsf_lib.bench.neggen.prompts import Item
from vsf_lib.errors import ModelError

KEY = "sk-test-0123456789-secret"
ITEM = Item("A zebra.", "stripes", "Does the picture show a zebra?", "Are the stripes missing?")


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (5, 7), (10, 20, 30)).save(buffer, "PNG")
    return buffer.getvalue()


class Pauses(list[float]):
    def __call__(self, seconds: float) -> None:
        self.append(seconds)


@pytest.fixture
def pauses() -> Pauses:
    return Pauses()


def judge(endpoint: Any, pauses: Pauses, key: str = KEY, timeout: float = 20.0) -> Endpoint:
    return Endpoint(endpoint.address, "some/model", key, timeout, pauses)


def test_the_request_is_what_the_endpoints_take(endpoint: Any, pauses: Pauses) -> None:
    said = judge(endpoint, pauses).reply(png(), ["first", "own words", "again"])
    assert '"answer_1": true' in said
    (asked,) = endpoint.asked
    assert endpoint.paths == ["/v1/chat/completions"]
    assert endpoint.headers[0]["authorization"] == f"Bearer {KEY}"
    assert endpoint.headers[0]["content-type"] == "application/json"
    assert (asked["model"], asked["temperature"]) == ("some/model", 0)
    assert set(asked["response_format"]["json_schema"]["schema"]["properties"]) == {
        "answer_1",
        "answer_2",
        "quality",
    }
    first, own, again = asked["messages"]
    assert [turn["role"] for turn in (first, own, again)] == ["user", "assistant", "user"]
    assert (own["content"], again["content"]) == ("own words", "again")
    text, image = first["content"]
    assert text == {"type": "text", "text": "first"}
    head, _, data = image["image_url"]["url"].partition(",")
    assert head == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as shown:
        assert (shown.size, shown.getpixel((0, 0))) == ((5, 7), (10, 20, 30))


def test_without_a_key_none_is_sent(endpoint: Any, pauses: Pauses) -> None:
    judge(endpoint, pauses, key="").reply(png(), ["x"])
    assert "authorization" not in endpoint.headers[0]


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 529])
def test_a_busy_endpoint_is_asked_again_ever_later(
    endpoint: Any, pauses: Pauses, said: Any, code: int
) -> None:
    endpoint.script = lambda number, _: said(code=code, text="busy") if number < 3 else said(text="good")
    assert judge(endpoint, pauses).reply(png(), ["x"]) == "good"
    assert pauses == [1.0, 2.0, 4.0]


def test_the_pause_is_the_one_that_the_endpoint_asks_for(endpoint: Any, pauses: Pauses, said: Any) -> None:
    told = ["0.5", "7", "100000", "Wed, 21 Oct 2026 07:28:00 GMT", "-3"]
    endpoint.script = lambda number, _: (
        said(code=429, headers={"Retry-After": told[number]}) if number < len(told) else said(text="good")
    )
    assert judge(endpoint, pauses).reply(png(), ["x"]) == "good"
    assert pauses == [0.5, 7.0, LONGEST_PAUSE, 8.0, 16.0]


def test_it_gives_up_and_says_why(endpoint: Any, pauses: Pauses, said: Any) -> None:
    endpoint.script = lambda *_: said(code=503, body=b'{"error": {"message": "over capacity"}}')
    with pytest.raises(ModelError, match=r"HTTP 503: over capacity, 6 times"):
        judge(endpoint, pauses).reply(png(), ["x"])
    assert (len(endpoint.asked), len(pauses)) == (ATTEMPTS, ATTEMPTS - 1)


def test_an_answer_that_does_not_come_or_not_whole_is_asked_for_again(
    endpoint: Any, pauses: Pauses, said: Any
) -> None:
    never = threading.Event()
    script = [said(wait=never), said(cut=True), said(text="good")]
    endpoint.script = lambda number, _: script[number]
    assert judge(endpoint, pauses, timeout=1.0).reply(png(), ["x"]) == "good"
    never.set()
    assert len(pauses) == 2


def test_an_endpoint_that_is_not_there(pauses: Pauses) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(ModelError, match=r"cannot be reached or is busy .*refused"):
        Endpoint(address, "m", KEY, 5, pauses).reply(png(), ["x"])
    assert len(pauses) == ATTEMPTS - 1


@pytest.mark.parametrize(
    ("code", "tells"),
    [
        (400, "HTTP 400: no pictures, please"),
        (401, "--judge-key-env"),
        (403, "--judge-key-env"),
        (404, "--judge-model"),
        (413, "HTTP 413"),
    ],
)
def test_what_trying_again_cannot_mend_ends_at_once(
    endpoint: Any, pauses: Pauses, said: Any, code: int, tells: str
) -> None:
    endpoint.script = lambda *_: said(code=code, body=b'{"error": {"message": "no pictures,\\n please"}}')
    with pytest.raises(ModelError, match="refuses: HTTP") as caught:
        judge(endpoint, pauses).reply(png(), ["x"])
    assert tells in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (len(endpoint.asked), pauses) == (1, [])


@pytest.mark.parametrize(
    ("body", "tells"),
    [
        (b"", "but nothing)"),
        (b"<html>\n <body>", "but <html> <body>)"),
        (b"[]", "but [])"),
        (b'{"choices": []}', '{"choices": []}'),
        (b"[" * 9000, "[[[..."),
        (b'{"answer_1": true, "answer_2": true, "quality": 1}', '{"answer_1": true'),
        (f"your key is {KEY}".encode(), "your key is (key)"),
    ],
)
def test_what_is_no_reply_is_told_and_not_read(
    endpoint: Any, pauses: Pauses, said: Any, body: bytes, tells: str
) -> None:
    endpoint.script = lambda *_: said(body=body)
    answer = ask(judge(endpoint, pauses), png(), ITEM)
    assert answer.values == (None, None, None)
    assert len(answer.replies) == len(endpoint.asked) == TRIES
    assert answer.replies[0].startswith("(no reply of a model, but ")
    assert tells in answer.replies[0]
    assert len(answer.replies[0]) < 200


def test_a_reply_without_words_is_an_empty_one(endpoint: Any, pauses: Pauses, said: Any) -> None:
    endpoint.script = lambda *_: said(body=b'{"choices": [{"message": {"content": null}}]}')
    assert judge(endpoint, pauses).reply(png(), ["x"]) == ""


def test_words_in_parts_are_put_together(endpoint: Any, pauses: Pauses, said: Any) -> None:
    parts = b'{"choices": [{"message": {"content": [{"type": "text", "text": "a"}, {"text": "b"}]}}]}'
    endpoint.script = lambda *_: said(body=parts)
    assert judge(endpoint, pauses).reply(png(), ["x"]) == "ab"


@pytest.mark.parametrize("refused", ["temperature", "response_format"])
def test_an_option_that_the_model_refuses_is_left_out_from_then_on(
    endpoint: Any, pauses: Pauses, said: Any, refused: str
) -> None:
    def script(_: int, asked: dict[str, Any]) -> Any:
        return said(code=400, text=f"Unsupported value: '{refused}'") if refused in asked else said(text="ok")

    endpoint.script = script
    asking = judge(endpoint, pauses)
    assert [asking.reply(png(), ["x"]) for _ in range(2)] == ["ok", "ok"]
    assert [refused in asked for asked in endpoint.asked] == [True, False, False]
    other = {"temperature": "response_format", "response_format": "temperature"}[refused]
    assert all(other in asked for asked in endpoint.asked)
    assert pauses == []


def test_the_key_goes_nowhere_else(
    endpoint: Any, pauses: Pauses, said: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Not along with a redirect, nor into a message, a log or a reply that repeats it."""
    caplog.set_level(logging.DEBUG)
    seen: list[dict[str, str]] = []

    class Other(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            seen.append(dict(self.headers))
            self.send_error(500)

        do_GET = do_POST = answer  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    other = http.server.HTTPServer(("127.0.0.1", 0), Other)
    thread = threading.Thread(target=other.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    messages = []
    try:
        for code in (301, 302, 303, 307, 308):
            place = f"http://127.0.0.1:{other.server_address[1]}/"
            endpoint.script = lambda *_, code=code, place=place: said(code=code, headers={"Location": place})
            with pytest.raises(ModelError, match="redirects are not followed") as caught:
                judge(endpoint, pauses).reply(png(), ["x"])
            messages.append(str(caught.value))
    finally:
        other.shutdown()
        thread.join()
        other.server_close()
    assert seen == []
    for code in (401, 500):
        endpoint.script = lambda *_, code=code: said(code=code, text=f"wrong key: {KEY}")
        with pytest.raises(ModelError) as caught:
            judge(endpoint, pauses).reply(png(), ["x"])
        messages.append(f"{caught.value} {caught.value.__cause__} {caught.value.__context__}")
        assert "wrong key: (key)" in messages[-1]
    assert KEY not in " ".join([*messages, caplog.text])
    endpoint.script = lambda *_: said(text=f"your key is {KEY}")
    assert judge(endpoint, pauses).reply(png(), ["x"]) == "your key is (key)"
