"""The page beside an old WebUI: who is let in, how it is passed on, and its jobs' turns between pictures."""

from __future__ import annotations

import http.server
import json
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("gradio")  # the page, and the server and client that hosts have with theirs
pytest.importorskip("imageio_ffmpeg")

import httpcore
import uvicorn
from starlette.applications import Starlette
from starlette.middleware.gzip import GZipMiddleware

from vsf_lib.errors import SettingsError
from vsf_lib.jobs import messages
from vsf_lib.jobs.locks import turn
from vsf_lib.video.job import VideoJob
from vsf_lib.video.places import Places, Rights
from vsf_lib.video.queue import CANCELLED, DONE, Queue
from vsf_lib.webui.apart import routes, tab
from vsf_lib.webui.apart.desk import ApartDesk
from vsf_lib.webui.apart.process import PageProcess

OURS = {"X-VSF": "1"}
WITHIN = 240


@contextmanager
def served(app: Any) -> Iterator[str]:
    """The address of a host with that application, compressed as the hosts do."""
    app.add_middleware(GZipMiddleware, minimum_size=1000)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(30)


def until(done: Callable[[], Any]) -> Any:
    end = time.monotonic() + WITHIN
    while time.monotonic() < end:
        found = done()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("it does not come to that")


def ask(url: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with _open(urllib.request.Request(url, method=method, headers=named), timeout=WITHIN) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


class Row:
    """A host's row of pictures, its state and what it was told."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.interrupted = False
        self.jobs: list[messages.Turn] = []
        self.steps: list[int] = []
        self.busy = False

    def turn(self, stopped: Callable[[], bool]) -> Any:
        return turn(self.lock, stopped)

    @contextmanager
    def job(self, asked: messages.Turn) -> Iterator[str]:
        self.jobs.append(asked)
        self.busy = True
        yield "by day"
        self.busy = False

    def stopped(self) -> bool:
        return self.interrupted

    def progress(self, event: messages.Progress) -> None:
        self.steps.append(event.step)


def environment(**values: Any) -> Any:
    """One that is there: this Python's own."""
    return SimpleNamespace(
        **{"ready": True, "installing": "", "failed": "", "python": Path(sys.executable), **values}
    )


@pytest.fixture
def wan(tmp_path: Path) -> Path:
    wan_files = pytest.importorskip("wan_files")
    return Path(wan_files.save(tmp_path / "wan klein"))


@pytest.fixture
def row() -> Row:
    return Row()


@pytest.fixture
def desk(tmp_path: Path, row: Row) -> Iterator[ApartDesk]:
    places = Places(
        tmp_path / "data", tmp_path / "Videos für alle", files=(tmp_path,), downloads={"x": tmp_path}
    )
    assert Places.heard(json.loads(json.dumps(places.told()))) == places
    made = ApartDesk(places, Rights(), routes.PAGE, environment=environment(), host=row)  # type: ignore[arg-type]
    yield made
    made.close()


def opened(desk: ApartDesk) -> PageProcess:
    desk.open()
    until(lambda: desk.state()["stage"] == "open")
    page = desk._page
    assert page is not None
    return page


def test_the_page_is_opened_by_the_set_up_page_and_passed_on(desk: ApartDesk) -> None:
    app = Starlette()
    routes.add(app, desk)
    with served(app) as url:
        status, shown = ask(f"{url}/vsf-video/")
        assert status == 200
        assert b"set-up" not in shown
        assert json.loads(ask(f"{url}/vsf-video/state", **OURS)[1]) == {"stage": "ready", "text": ""}
        assert ask(f"{url}/vsf-video/page/")[0] == 503
        assert ask(f"{url}/vsf-video/open", "POST")[0] == 403, "another site's form can send this"
        assert json.loads(ask(f"{url}/vsf-video/open", "POST", **OURS)[1])["stage"] == "opening"
        until(lambda: json.loads(ask(f"{url}/vsf-video/state", **OURS)[1])["stage"] == "open")
        status, page = ask(f"{url}/vsf-video/page/")
        assert status == 200
        assert b"VSF Video" in page
        config = json.loads(ask(f"{url}/vsf-video/page/config")[1])
        assert config["root"] == f"{url}/vsf-video/page", "its links lead through the WebUI"
        assert ask(f"{url}/vsf-video/page/", Sec_Fetch_Site="cross-site")[0] == 403
        sent = f"{url}/vsf-video/page/gradio_api/queue/join"  # over plain HTTP browsers tell the origin alone
        assert ask(sent, "POST", Origin="http://other.example")[0] == 403
        assert ask(sent, "POST", Origin="null")[0] == 403
        assert ask(sent, "POST", Origin=url)[0] == 422, "the page's own word for what is missing"
        behind = {"Origin": "https://me.example", "X_Forwarded_Host": "me.example:443, inner"}
        assert ask(sent, "POST", **behind)[0] == 422
        assert ask(f"{url}/vsf-video/page/gradio_api/file=/etc/passwd")[0] in (403, 404)
        desk.close()
        assert json.loads(ask(f"{url}/vsf-video/state", **OURS)[1])["stage"] == "ready"


def test_with_a_login_only_who_is_logged_in_gets_anything(desk: ApartDesk) -> None:
    app = Starlette()
    app.auth, app.tokens, app.cookie_id = {"me": "secret"}, {"token": "me"}, "xy"  # as gradio has them
    routes.add(app, desk)
    with served(app) as url:
        for path, method in (
            ("state", "GET"),
            ("open", "POST"),
            ("install?torch=own", "POST"),
            ("page/", "GET"),
        ):
            assert ask(f"{url}/vsf-video/{path}", method, **OURS)[0] == 403
            assert ask(f"{url}/vsf-video/{path}", method, **OURS, Cookie="access-token-xy=guess")[0] == 403
        assert ask(f"{url}/vsf-video/state", **OURS, Cookie="access-token-xy=token")[0] == 200
        assert desk.state()["stage"] == "ready", "nothing was opened"


def test_a_public_webui_installs_nothing(tmp_path: Path, row: Row) -> None:
    begun: list[str] = []
    empty = environment(ready=False, torches=lambda: {"own": "one"}, install=begun.append)
    places = Places(tmp_path / "data", tmp_path / "videos")
    for install, status in ((False, 409), (True, 200)):
        desk = ApartDesk(places, Rights(install=install), routes.PAGE, environment=empty, host=row)  # type: ignore[arg-type]
        app = Starlette()
        routes.add(app, desk)
        with served(app) as url:
            assert ask(f"{url}/vsf-video/install?torch=own", "POST", **OURS)[0] == status
            assert desk.state()["may_install"] is install
            assert ask(f"{url}/vsf-video/open", "POST", **OURS)[0] == 409
    assert begun == ["own"]


@pytest.mark.parametrize("old", [False, True])
def test_an_answer_is_passed_on_as_it_comes(
    desk: ApartDesk, monkeypatch: pytest.MonkeyPatch, old: bool
) -> None:
    """The page's events come one by one through a connection that stays open, and the host compresses."""
    if old:  # the hosts' httpcore closes nothing while it is being cancelled
        for module in (httpcore._async.http11, httpcore._async.connection_pool):
            monkeypatch.setattr(module, "AsyncShieldCancellation", nullcontext)
    read, closed = threading.Event(), threading.Event()
    asked: dict[str, str] = {}

    class Page(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.update(self.headers, body=self.rfile.read(int(self.headers["Content-Length"])).decode())
            asked["path"] = self.path
            self.send_response(200)
            self.send_header("Content-Type", "text/plain")  # which every host compresses
            self.end_headers()
            self.wfile.write(b"data: first\n\n")
            self.wfile.flush()
            assert read.wait(WITHIN)
            try:
                while True:  # until the visitor is gone
                    self.wfile.write(b"data: more\n\n")
                    self.wfile.flush()
                    time.sleep(0.05)
            except OSError:
                closed.set()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as upstream:
        threading.Thread(target=upstream.serve_forever, daemon=True).start()
        monkeypatch.setattr(ApartDesk, "port", upstream.server_port)
        app = Starlette()
        routes.add(app, desk)
        with served(app) as url:
            headers = {
                "Accept-Encoding": "gzip",
                "Cookie": "access-token=secret",
                "X-Own": "ü".encode().decode("latin-1"),
                "Origin": url,
            }
            request = urllib.request.Request(f"{url}/vsf-video/page/a%20%231%25%3F?c=%2F&d", b"sent", headers)
            with _open(request, timeout=WITHIN) as answer:
                assert answer.readline() == b"data: first\n"
                read.set()
                assert answer.readline() == b"\n"
                assert answer.readline() == b"data: more\n"
            assert closed.wait(WITHIN), "the connection behind stays open for ever"
        upstream.shutdown()
    assert (asked["path"], asked["body"]) == ("/a%20%231%25%3F?c=%2F&d", "sent")
    assert not {"cookie", "origin"} & {name.lower() for name in asked}
    assert asked["x-forwarded-host"] == url.removeprefix("http://")


def test_a_job_waits_for_its_turn_keeps_it_and_gives_it_back(desk: ApartDesk, row: Row, wan: Path) -> None:
    queue = Queue(desk._places.data / "queue.sqlite")
    job = VideoJob.create(
        prompt="ein rotes Auto", model=str(wan), width=128, height=96, frames=5, steps=3, seed=5
    )
    row.lock.acquire()  # a picture is being made
    first = queue.add(job)
    page = opened(desk)
    time.sleep(1)
    assert not row.jobs
    assert page.alive
    row.lock.release()
    until(lambda: row.busy)
    assert row.lock.locked()
    until(lambda: queue.entry(first).state == DONE)
    until(lambda: not row.lock.locked())
    assert row.jobs == [messages.Turn(first, "ein rotes Auto", 5, 128, 96)]
    assert max(row.steps) == 3
    path = Path(queue.entry(first).path)
    assert path.parent == desk._places.outputs / "by day"
    assert path.is_file()

    second = queue.add(job.changed(steps=90, frames=33))  # is stopped by the host's own button
    until(lambda: len(row.jobs) == 2 and max(row.steps[-1:], default=0) > 0)
    row.interrupted = True
    until(lambda: queue.entry(second).state == CANCELLED)
    until(lambda: not row.lock.locked())
    row.interrupted = False

    third = queue.add(job.changed(steps=90, frames=33))
    until(lambda: len(row.jobs) == 3)
    page.kill()  # the page dies with its job
    until(lambda: not row.lock.locked())
    until(lambda: desk.state()["stage"] == "ready")
    assert "ended by signal 9" in desk.state()["text"] or sys.platform == "win32"
    with pytest.raises(SettingsError, match="video page"):
        _ = desk.port
    opened(desk)  # and begins it again
    until(lambda: len(row.jobs) == 4)
    assert row.jobs[3].id == third


def test_a_page_that_has_just_died_is_not_told_as_closed(desk: ApartDesk) -> None:
    """Its last lines come a little after its end; the set-up page looks no more once there is a reason."""
    page: Any = SimpleNamespace(alive=False, failed="", port=None, close=lambda: None)
    desk._page = page
    assert desk.state()["stage"] == "opening"
    page.failed = "no memory"
    assert desk.state() == {"stage": "ready", "text": "no memory"}


def test_the_api_alone_gets_no_page() -> None:
    """It has no login of the pages' kind, so everybody would be let in."""
    app = Starlette()
    tab.serve(None, app)
    assert app.routes == []


HOST = """
import sys, types
modules = types.ModuleType("modules")
said = {}
modules.script_callbacks = types.SimpleNamespace(
    **{name: (lambda f, name=name: said.setdefault(name, f)) for name in
       ("on_ui_tabs", "on_app_started", "on_script_unloaded")})
sys.modules["modules"] = modules
sys.path.insert(0, sys.argv[1])
before = set(sys.modules)
exec(compile(open(sys.argv[1] + "/scripts/vsf_video.py", encoding="utf-8").read(), "vsf_video.py", "exec"))
new = sorted({name.split(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names))
print(*said)
print(*new)
"""


def test_an_old_host_loads_nothing_that_it_may_lack() -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", HOST, str(root)], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["on_ui_tabs on_app_started on_script_unloaded", "vsf_lib"]
