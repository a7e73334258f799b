"""What the WebUI's own server answers below one path: the set-up page, and the video page passed on.

Owns who is let in: whoever is logged in to the WebUI, from its own pages. So the page needs no port of its
own to the outside, and works through `--listen`, `--share` and tunnels like the rest of the WebUI.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from vsf_lib.errors import VSFError
from vsf_lib.webui.apart.desk import ApartDesk

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

PATH = "/vsf-video"
PAGE = PATH + "/page"
_SET_UP = Path(__file__).with_name("set_up.html")
_OURS = "x-vsf"
"""A header that a form or a script of another site cannot send without asking first, which is not granted."""
_HOP = frozenset({
    b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"te", b"trailer",
    b"upgrade", b"transfer-encoding", b"host", b"cookie", b"set-cookie", b"server", b"date",
})  # fmt: skip
"""Headers that belong to one connection, or to the WebUI alone."""
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


def add(app: Any, desk: ApartDesk) -> None:
    """Adds the routes to the WebUI's application, once."""
    from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse

    def answer(act: Callable[[Request], Any]) -> Callable[[Request], Response]:
        """An order from the set-up page, and how things are then. Starlette runs it in a thread."""

        def handle(request: Request) -> Response:
            if not _known(app, request) or _OURS not in request.headers:
                return JSONResponse({"error": "log in to the WebUI first"}, 403)
            try:
                act(request)
            except VSFError as error:
                return JSONResponse({"error": str(error)}, 409)
            return JSONResponse(desk.state())

        return handle

    def set_up(request: Request) -> Response:
        return HTMLResponse(_SET_UP.read_text(encoding="utf-8"), headers={"cache-control": "no-store"})

    def install(request: Request) -> None:
        desk.install(request.query_params.get("torch", ""))

    routes: tuple[tuple[str, Any, list[str]], ...] = (
        (PATH, lambda request: RedirectResponse("vsf-video/"), ["GET"]),
        (PATH + "/", set_up, ["GET"]),
        (PATH + "/state", answer(lambda request: None), ["GET"]),
        (PATH + "/open", answer(lambda request: desk.open()), ["POST"]),
        (PATH + "/install", answer(install), ["POST"]),
        (PAGE + "/{path:path}", _passing(app, desk), _METHODS),
    )
    for path, handler, methods in routes:
        app.add_route(path, handler, methods=methods, include_in_schema=False)


def _known(app: Any, request: Request) -> bool:
    """Whether the WebUI knows the visitor; with no login of its own it knows everybody."""
    if getattr(app, "auth", None) is None and getattr(app, "auth_dependency", None) is None:
        return True
    cookie = getattr(app, "cookie_id", "")
    tokens = getattr(app, "tokens", {})
    names = (
        f"access-token-{cookie}",
        f"access-token-unsecure-{cookie}",
        "access-token",
        "access-token-unsecure",
    )
    return any(request.cookies.get(name) in tokens for name in names if name in request.cookies)


def _passing(app: Any, desk: ApartDesk) -> Callable[[Request], Awaitable[Response]]:
    """Passes a request on to the page's process and its answer back, piece by piece as it comes."""

    async def answer(request: Request) -> Response:
        import httpx
        from starlette.responses import PlainTextResponse, StreamingResponse

        if not _known(app, request) or _foreign(request):
            return PlainTextResponse("open this page in the WebUI", 403)
        try:
            port = desk.port
        except VSFError as error:
            return PlainTextResponse(str(error), 503)
        # Encoded anew, as the server has decoded it: a file's name may have a # or a % in it.
        path = quote(request.scope["path"].split(PAGE, 1)[1])
        url = httpx.URL(f"http://127.0.0.1:{port}{path}", query=request.scope["query_string"])
        # One for each request: where a visitor leaves in the middle, the hosts' httpcore never gives the
        # connection back. No proxy of the environment's stands before this machine.
        client = httpx.AsyncClient(timeout=None, trust_env=False, verify=False)
        asked = client.build_request(
            request.method, url, headers=_forwarded(request), content=request.stream()
        )
        try:
            given = await client.send(asked, stream=True)
        except httpx.HTTPError as error:
            await _close(client)
            return PlainTextResponse(f"the video page does not answer: {error}", 502)
        except BaseException:
            await _close(client)
            raise
        response = StreamingResponse(_pieces(given, client), given.status_code)
        # Or the WebUI's own compression holds pieces back until there are enough of them.
        plain = () if "content-encoding" in given.headers else ((b"content-encoding", b"identity"),)
        response.raw_headers = [*_kept(given.headers.raw), *plain]
        return response

    return answer


async def _pieces(given: Any, client: Any) -> AsyncIterator[bytes]:
    try:
        async for piece in given.aiter_raw():
            yield piece
    finally:
        await _close(client)


async def _close(client: Any) -> None:
    """Also where the request is being cancelled, because its visitor is gone."""
    import anyio

    # The hosts' httpcore closes an answer that is not over, too, and then complains of it.
    with anyio.CancelScope(shield=True), suppress(RuntimeError):
        await client.aclose()


def _foreign(request: Request) -> bool:
    """Whether another site's page asks, by what browsers say of it.

    Over plain HTTP they tell another machine's server only of the origin, and where something is sent.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None:
        return site not in ("same-origin", "none")
    if origin is None:
        return False
    called = request.headers.get("x-forwarded-host") or request.headers.get("host", "")
    # Without ports, which servers in between may drop.
    return urlsplit(origin).hostname != urlsplit(f"//{called.split(',')[0].strip()}").hostname


def _forwarded(request: Request) -> list[tuple[bytes, bytes]]:
    """The visitor's headers, and how the WebUI is called by the visitor: the page's links go by that.

    Without the origin, which `_foreign` has judged: the page has another name than the WebUI.
    """
    called = {"x-forwarded-host": request.headers.get("host", ""), "x-forwarded-proto": request.url.scheme}
    new = [
        (name.encode(), value.encode("latin-1"))
        for name, value in called.items()
        if name not in request.headers
    ]
    return [*((name, value) for name, value in _kept(request.headers.raw) if name != b"origin"), *new]


def _kept(raw: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [(name.lower(), value) for name, value in raw if name.lower() not in _HOP]
