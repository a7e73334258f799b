"""Who the page answers and what it gives away: by its layer alone, and through the server it is part of."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from vsf_lib.studio.guard import Guard, is_local, is_own


def answer(
    path: str = "/",
    *,
    private: bool = True,
    outputs: tuple[Path, ...] = (),
    kind: str = "http",
    **headers: str,
) -> tuple[int, bytes, dict[str, str]]:
    """What comes of a request; the application behind says ok, as a page that wants foreign scripts."""

    async def behind(scope: dict[str, Any], receive: Any, send: Any) -> None:
        page = [(b"content-type", b"text/html; charset=utf-8"), (b"content-length", str(len(PAGE)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": page})
        await send({"type": "http.response.body", "body": PAGE[:30], "more_body": True})
        await send({"type": "http.response.body", "body": PAGE[30:]})

    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    given = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": kind, "path": path, "headers": given, "method": "POST"}
    asyncio.run(Guard(behind, private=private, outputs=outputs)(scope, None, send))  # type: ignore[arg-type]
    body = b"".join(message.get("body", b"") for message in sent)
    told = {name.decode(): value.decode() for name, value in sent[0].get("headers", [])}
    return sent[0].get("status", sent[0].get("code", 0)), body, told


PAGE = (
    b'<link rel="preconnect" href="https://fonts.example" crossorigin="anonymous"/><script\n src="https://cdn'
    b'.example/a.js"\n async\n></script><script>own = "<script src=\\"https://kept.example\\">"</script>'
    b'<script type="module" src="./assets/own.js"></script><link rel="stylesheet" href="./assets/own.css">'
)


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost:7860", True), ("LOCALHOST", True), ("127.0.0.1:7860", True), ("127.9.8.7", True),
        ("[::1]:7860", True), ("studio.localhost:7860", True), ("evil.example:7860", False),
        ("localhost.evil.example", False), ("127.0.0.1.evil.example", False), ("192.168.1.5:7860", False),
        ("localhost.:7860", True), ("", False),
        ("0.0.0.0:7860", False), ("[::1", False), ("evil.example@127.0.0.1", True),
    ],
)  # fmt: skip
def test_only_names_of_this_machine_are_answered(host: str, local: bool) -> None:
    """A name with a user before it is no Host header that a browser sends."""
    assert is_local(host) == local
    status, body, _ = answer(host=host)
    assert status == (200 if local else 421)
    if not local:
        assert b"open it as localhost or 127.0.0.1, or start it with --listen" in body
        assert answer(host=host, private=False)[0] == 200


@pytest.mark.parametrize(
    ("origin", "called", "site", "own"),
    [
        ("http://localhost:7860", "localhost:7860", "", True),
        ("http://[::1]:7860", "[::1]:7860", "", True),
        ("http://192.168.1.5:7860", "192.168.1.5:7860", "", True),
        ("https://evil.example", "localhost:7860", "", False),
        ("http://localhost:3000", "localhost:7860", "", False),
        ("null", "localhost:7860", "", False),
        ("", "localhost:7860", "", False),
        ("https://my.site", "127.0.0.1:7860", "same-origin", True),
        ("https://my.site", "127.0.0.1:7860", "", False),
        ("https://evil.example", "127.0.0.1:7860", "cross-site", False),
        ("http://localhost:3000", "localhost:7860", "same-site", False),
        ("http://localhost:7860", "localhost:7860", "same-origin", True),
        ("http://[::1", "localhost:7860", "", False),
    ],
)
def test_only_its_own_page_may_send_to_it(origin: str, called: str, site: str, own: bool) -> None:
    """X-Forwarded-Host is not asked: any page may send it."""
    assert is_own(origin, called, site) == own
    given = {"host": called, "origin": origin, "sec_fetch_site": site, "x_forwarded_host": "evil.example"}
    assert answer("/gradio_api/upload", private=False, **given)[0] == (200 if own else 403)


def test_of_the_outputs_only_what_is_drawn_is_given_out(tmp_path: Path) -> None:
    outputs = tmp_path / "Bilder für alle"
    outputs.mkdir()

    def status(file: str) -> int:
        return answer(f"/gradio_api/file={file}", host="localhost", outputs=(outputs,))[0]

    assert [status(str(outputs / name)) for name in ("a.png", "a.MP4", "videos/b.webm", "c.gif")] == [200] * 4
    for name in (
        "notes.txt",
        "queue.sqlite",
        "key",
        ".png",
        "a.png/../notes.txt",
        "x/../../Bilder für alle/n.txt",
    ):
        assert status(str(outputs / name)) == 403, name
    assert status(str(tmp_path / "x.txt")) == 200, "gradio's to decide"
    assert answer(f"/gradio_api/file/{outputs}/notes.txt", host="localhost", outputs=(outputs,))[0] == 403


def test_nothing_is_asked_of_another_server() -> None:
    _, body, headers = answer(host="localhost")
    assert body == PAGE[PAGE.index(b"<script>own") :]
    assert headers["content-length"] == str(len(body))


def test_a_foreign_line_is_closed() -> None:
    assert answer(kind="websocket", host="evil.example")[0] == 1008


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The page's address, and its outputs."""
    pytest.importorskip("gradio")
    from vsf_lib.studio import open_page
    from vsf_lib.studio.desk import ImageDesk
    from vsf_lib.video.desk import Desk, Places, Rights

    root = tmp_path_factory.mktemp("guarded")
    images = ImageDesk(root / "outputs")
    rights = Rights(install=False, paths=True, delete=False, open_folder=False)
    videos = Desk(Places(root / "queue", root / "videos"), rights)
    with open_page(videos, images, port=0) as url:
        yield url, root / "outputs"
    images.close()
    videos.close()


def asked(url: str, data: bytes | None = None, **headers: str) -> tuple[int, str]:
    request = urllib.request.Request(
        url, data, {name.replace("_", "-"): text for name, text in headers.items()}
    )
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # whatever the environment says
    try:
        with direct.open(request, timeout=60) as given:
            return given.status, given.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_the_served_page_is_guarded(page: tuple[str, Path]) -> None:
    url, outputs = page
    here = urlsplit(url).netloc
    status, text = asked(url)
    assert status == 200
    assert "gradio_config" in text
    for foreign in ('src="https://', 'href="https://'):
        assert foreign not in text
    assert asked(url, Host="evil.example")[0] == 421
    assert asked(url + "config", Host=f"localhost:{urlsplit(url).port}")[0] == 200
    join = url + "gradio_api/queue/join"
    told = {"Content_Type": "text/plain"}
    assert asked(join, b"{}", Origin="https://evil.example", **told)[0] == 403
    assert asked(join, b"{}", Origin=f"http://{here}", **told)[0] == 422, "gradio's own answer"
    webui = {"X_Forwarded_Host": "webui.example:7860"}
    assert asked(join, b"{}", **webui, **told)[0] == 422, "as a WebUI passes it on"
    for name, expected in (("a.png", 200), ("a.txt", 403)):
        (outputs / name).write_bytes(b"x")
        assert asked(f"{url}gradio_api/file={quote(str(outputs / name))}")[0] == expected, name
