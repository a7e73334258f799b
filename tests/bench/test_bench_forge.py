"""`bench forge` against a scripted host over real HTTP, whose clock passes only while it draws."""

from __future__ import annotations

import json
import threading
from argparse import ArgumentParser
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from vsf_lib.bench.forge import command
from vsf_lib.bench.forge.host import Asked, Host, body
from vsf_lib.errors import GuidanceError, SettingsError

ASKED = Asked("a red car", "wheels", 64, 64, "Euler", "Simple", 1, None, 2.0, None)
STEP, ONCE = 0.5, 7.0
FACTORS = {"off": 1.0, "vsf": 1.02, "nag": 1.4}


class ScriptedHost:
    """Draws nothing, and says what a WebUI says."""

    def __init__(self) -> None:
        self.now = 0.0
        self.bodies: list[dict[str, Any]] = []
        self.silent = False
        """Whether it forgets to name VSF."""
        self.answer: tuple[int, bytes] | None = None
        scripted = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                text = self.rfile.read(int(self.headers["Content-Length"]))
                status, answer = scripted.answer or (200, scripted.draw(self.path, json.loads(text)))
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def draw(self, path: str, request: dict[str, Any]) -> bytes:
        assert path == "/sdapi/v1/txt2img"
        self.bodies.append(request)
        scripts = request.get("alwayson_scripts", {})
        method = scripts["VSF"]["args"][0]["method"] if scripts else "off"
        self.now += ONCE + STEP * FACTORS[method] * request["steps"]
        infotext = f"{request['prompt']}\nSteps: {request['steps']}, Seed: 1"
        if method != "off" and not self.silent:
            infotext += ", VSF alpha: 2"
        return json.dumps({"images": [], "info": json.dumps({"infotexts": [infotext]})}).encode()

    def __enter__(self) -> ScriptedHost:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def host() -> Iterator[ScriptedHost]:
    with ScriptedHost() as scripted:
        yield scripted


def test_what_a_picture_costs_once_falls_out(host: ScriptedHost) -> None:
    found = command.measure(Host(host.url), ASKED, ["vsf", "nag"], (4, 12), 3, clock=lambda: host.now)
    assert [row["method"] for row in found["rows"]] == ["vsf", "nag"]
    for row in found["rows"]:
        assert row["ratio"] == row["ratio_min"] == row["ratio_max"] == FACTORS[row["method"]]
        assert row["unguided_seconds_per_step"] == pytest.approx(STEP)
        assert row["seconds_per_step"] == pytest.approx(STEP * FACTORS[row["method"]])
        assert "VSF alpha" in row["parameters"]
    assert "VSF" not in found["unguided_parameters"]
    # Warmed up once, then three rounds, each with all of them, and each beginning with another one.
    assert len(host.bodies) == 6 + 3 * 6
    kinds = [(json.dumps(each.get("alwayson_scripts")), each["steps"]) for each in host.bodies]
    rounds = [kinds[at : at + 6] for at in range(6, 24, 6)]
    assert all(sorted(each) == sorted(rounds[0]) and len(set(each)) == 6 for each in rounds)
    assert len({each[0] for each in rounds}) == 3


def test_pictures_differ_in_guidance_and_steps_alone() -> None:
    off, on = body(ASKED, "off", 4), body(ASKED, "vsf", 4)
    given = on.pop("alwayson_scripts")
    assert on == off
    assert given == {"VSF": {"args": [{"method": "vsf", "negative_prompt": "wheels", "alpha": 2.0}]}}
    assert "override_settings" not in off


def test_a_picture_that_was_not_guided_is_no_measurement(host: ScriptedHost) -> None:
    host.silent = True
    with pytest.raises(GuidanceError, match="method vsf does not say that VSF acted"):
        command.measure(Host(host.url), ASKED, ["vsf"], (1, 2), 1, clock=lambda: host.now)


def test_a_prompt_that_names_us_is_no_guidance(host: ScriptedHost) -> None:
    Host(host.url).draw(Asked("VSF, no VSF here", *list(vars(ASKED).values())[1:]), "off", 1)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((404, b"{}"), "answers 404: start it with --api"),
        ((422, b'{"detail": "VSF alpha is 99"}'), "answers 422: .*VSF alpha is 99"),
        ((200, b"<html>"), "does not answer"),
        ((200, b'{"images": []}'), "answers otherwise than a WebUI does"),
    ],
)
def test_what_a_host_says_otherwise(host: ScriptedHost, answer: tuple[int, bytes], message: str) -> None:
    host.answer = answer
    with pytest.raises(SettingsError, match=message):
        Host(host.url).draw(ASKED, "off", 1)


def test_a_host_that_is_not_there() -> None:
    with ScriptedHost() as gone:
        url = gone.url
    with pytest.raises(SettingsError, match=r"does not answer.*start the WebUI with --api"):
        Host(url).draw(ASKED, "off", 1)
    with pytest.raises(SettingsError, match="--url is 'here'"):
        Host("here")


def test_the_command_prints_and_writes(
    host: ScriptedHost, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command.time, "perf_counter", lambda: host.now)
    parser, target = ArgumentParser(), tmp_path / "speed.json"
    command.add_arguments(parser)
    arguments = ["--url", host.url, "--rounds", "1", "--steps", "2,3", "--json", str(target)]
    assert command.run(parser.parse_args(arguments)) == 0
    assert json.loads(target.read_text("utf-8"))["rows"][0]["ratio"] == 1.02
    assert "vsf" in capsys.readouterr().out


def test_steps_that_take_no_time_are_refused(host: ScriptedHost) -> None:
    with pytest.raises(SettingsError, match="took no longer than"):
        command.measure(Host(host.url), ASKED, ["vsf"], (1, 2), 1, clock=lambda: 0.0)


@pytest.mark.parametrize("steps", ["", "4", "4,4", "12,4", "0,3", "4,x", "1,2,3", "4,999"])
def test_wrong_steps_are_refused(steps: str) -> None:
    with pytest.raises(SettingsError, match="two numbers such as 4,12"):
        command.read_steps(steps)


@pytest.mark.parametrize("methods", ["", "off", "vsf,vsf", "cfg"])
def test_wrong_methods_are_refused(methods: str) -> None:
    with pytest.raises(SettingsError, match="must name some of"):
        command.read_methods(methods)
