"""A run spread over a Ray cluster of this machine: the same results, also where a worker is killed."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from vsf_lib.bench.neggen import work
from vsf_lib.cli import main

pytest.importorskip("ray", reason="the package ray is not installed")
if sys.platform != "linux":
    pytest.skip("finds the workers in /proc", allow_module_level=True)

WORDS = ("--limit", "4", "--seeds", "2", "--methods", "vsf,none")
PICTURES = 4 * 2 * 2


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As Ray's workers have: sums over more of them end in other last bits."""
    monkeypatch.setenv("RAY_worker_niceness", "0")
    monkeypatch.setattr("vsf_lib.cli.console._PATIENCE", float("inf"))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(folder: Path, *more: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["bench", "neggen", "--out", str(folder), *WORDS, *more])
        return code, *capsys.readouterr()

    return call


def workers() -> list[int]:
    """Those descendants of this process that are at work on pictures, by what Ray calls them."""
    parents, titles = {}, {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(place.name)] = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            titles[int(place.name)] = (place / "cmdline").read_bytes()
        except OSError:
            continue

    def descends(pid: int) -> bool:
        while pid in parents:
            pid = parents[pid]
            if pid == os.getpid():
                return True
        return False

    return [pid for pid, title in titles.items() if title.startswith(b"ray::draw_all") and descends(pid)]


class Killer(threading.Thread):
    """Kills one worker at work as soon as the first picture is there."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self._folder = folder
        self.done = threading.Event()
        self.killed = 0
        self.there = 0

    def run(self) -> None:
        while not self.killed and not self.done.is_set():
            if self._pictures():
                for pid in workers()[:1]:
                    os.kill(pid, signal.SIGKILL)
                    self.killed, self.there = pid, self._pictures()
            time.sleep(0.01)

    def _pictures(self) -> int:
        return len(list(self._folder.glob("pictures/*.png")))


def test_a_run_survives_the_loss_of_a_worker_and_finds_the_same(
    call: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    code, _, err = call(tmp_path / "alone")
    assert code == 0, err
    killer = Killer(tmp_path / "spread")
    killer.start()
    code, out, err = call(tmp_path / "spread", "--ray", "--ray-workers", "2")
    killer.done.set()
    killer.join()
    assert code == 0, err
    assert "\x1b" not in out, "what Ray has to say is no result"
    assert killer.killed, "no worker was at work when one was to be killed"
    assert 1 <= killer.there < PICTURES
    results = [(tmp_path / name / "results.json").read_bytes() for name in ("alone", "spread")]
    assert results[0] == results[1]
    for part in ("pictures", "answers"):
        one, other = (
            {file.name: file.read_bytes() for file in (tmp_path / name / part).iterdir()}
            for name in ("alone", "spread")
        )
        assert one == other
        assert len(one) == PICTURES
    # And it goes on from there as any other: nothing is drawn or asked again.
    assert call(tmp_path / "spread") == (0, out, "")
    assert "died" in err


def test_an_error_in_a_worker_is_told_as_at_home(
    call: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    work._artist.cache_clear()
    code, out, err = call(tmp_path / "x", "--ray", "--judge", str(tmp_path))
    assert (code, out) == (2, "")
    assert err.strip().splitlines()[-1].startswith(f"error: the judge in {tmp_path} has no config.json")
    assert "Traceback" not in err
    assert not work._artist.cache_info().currsize, "the model is looked at where it is to be drawn with"


def test_a_cluster_that_is_not_there(call: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    code, out, err = call(tmp_path / "x", "--ray", "auto")
    assert (code, out) == (2, "")
    assert "error: --ray auto: no cluster can be used there" in err


def test_without_the_package_its_name_is_told(
    call: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    code, _, err = call(tmp_path / "x", "--ray")
    assert code == 2
    assert "pip install ray" in err
