"""The row of pictures and its worker process, with the real small model: what is drawn, kept and stopped."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("diffusers")

from vsf_lib.cli import main
from vsf_lib.heatmap_sheet import overlays_of
from vsf_lib.images.asked import Asked
from vsf_lib.images.process import Worker
from vsf_lib.images.row import CANCELLED, DONE, FAILED, RUNNING, WAITING, Job, Row
from vsf_lib.jobs import messages
from vsf_lib.jobs.locks import turn
from vsf_lib.metadata import parse_parameters, read_png

CAR = Asked(prompt="a red car on a field", given={"negative_prompt": "wheels"}, seed=2, compare=True, steps=2)
LONG = Asked(prompt="a red car", given={"negative_prompt": "wheels"}, seed=1, steps=1000)
"""Drawn for many times as long as a test takes for a look."""
SABOTAGE = """
import torch
from diffusers import SD3Transformer2DModel

def hook(module, args):
    if isinstance(module, SD3Transformer2DModel):
        {act}

torch.nn.modules.module.register_module_forward_pre_hook(hook)
"""


class Told:
    """A row, and all states of its jobs."""

    def __init__(self, folder: Path, **others: object) -> None:
        self.folder = folder
        self.lock = threading.Lock()
        self.row = Row(folder, turn=lambda stopped: turn(self.lock, stopped), **others)  # type: ignore[arg-type]
        self.row.start()

    def until(self, id: int, done: Callable[[Job], bool] = lambda job: job.ended) -> list[Job]:
        """Every state up to the one that is `done`."""
        seen = [self.row.job(id)]
        end = time.monotonic() + 300
        while not done(seen[-1]):
            assert time.monotonic() < end, seen[-1]
            job = self.row.wait(seen[-1], 1)
            if job is not seen[-1]:
                seen.append(job)
        return seen


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    made = Told(tmp_path_factory.mktemp("Bilder für alle"))
    yield made
    made.row.close()


def test_a_picture_is_the_one_that_generate_draws_and_the_model_stays(told: Told, tmp_path: Path) -> None:
    words = ["--prompt", CAR.prompt or "", "--negative-prompt", "wheels", "--seed", "2", "--steps", "2"]
    assert main(["generate", *words, "--compare", "--out", str(tmp_path / "x.png")]) == 0
    sides = Image.open(tmp_path / "x.png")
    seen = told.until(told.row.add(CAR))
    job = seen[-1]
    assert job.state == DONE
    drawn = job.drawn
    assert drawn is not None
    assert Image.open(drawn.without).tobytes() == sides.crop((0, 0, 64, 64)).tobytes()
    assert Image.open(drawn.path).tobytes() == sides.crop((64, 0, 128, 64)).tobytes()
    parameters = parse_parameters(read_png(drawn.path))
    assert parameters.settings is not None
    assert read_png(drawn.path) == drawn.infotext
    assert "VSF comparison" not in drawn.infotext, "it is one picture, and would be shown in halves"
    assert parse_parameters(read_png(drawn.without)).settings is None, "nothing guided it"
    assert [one.steps for one in seen if one.steps][-1] == 4
    again = told.until(told.row.add(CAR))
    assert not any("loading" in one.stage for one in again)
    assert [one.steps for one in again if one.steps][-1] == 2, "the unguided picture is known"
    kept = again[-1].drawn
    assert kept is not None
    assert kept.path != drawn.path
    for one, other in ((kept.path, drawn.path), (kept.without, drawn.without)):
        assert Path(one).read_bytes() == Path(other).read_bytes()
    other_seed = Asked(**{**CAR.told(), "seed": 3})
    fresh = told.until(told.row.add(other_seed))
    assert [one.steps for one in fresh if one.steps][-1] == 4, "another seed's is another picture"
    assert fresh[-1].drawn is not None
    assert Path(fresh[-1].drawn.without).read_bytes() != Path(kept.without).read_bytes()


def test_a_heat_map_lies_beside_the_picture(told: Told) -> None:
    drawn = told.until(told.row.add(Asked(**{**CAR.told(), "heatmap": True})))[-1].drawn
    assert drawn is not None
    sheet = Image.open(drawn.heatmap)
    assert "VSF heatmap: " in read_png(drawn.heatmap)
    assert len(overlays_of(sheet, (64, 64), 2)) == 2
    assert "VSF heatmap" not in read_png(drawn.path)


def test_a_sweep_is_a_strip_and_a_film(told: Told) -> None:
    pytest.importorskip("imageio_ffmpeg")
    from vsf_lib.video.files import read_infotext

    asked = Asked(**{**CAR.told(), "compare": False, "sweep": "alpha=0,2", "fps": 7, "loop": True})
    seen = told.until(told.row.add(asked))
    drawn = seen[-1].drawn
    assert drawn is not None
    assert "VSF fps" not in read_png(drawn.path)
    assert 'VSF sweep: "alpha=0,2", VSF fps: 7' in read_infotext(Path(drawn.film))
    assert Path(drawn.film).stem == Path(drawn.path).stem
    assert {"drawing without", "drawing alpha 0", "drawing alpha 2"} <= {one.stage for one in seen}
    assert [one.steps for one in seen if one.steps][-1] == 6


def test_a_job_that_runs_is_stopped_and_one_that_waits_is_taken_out(told: Told) -> None:
    before = set(told.folder.iterdir())
    running, waiting, last = told.row.add(LONG), told.row.add(LONG), told.row.add(CAR)
    told.until(running, lambda job: job.step > 0)
    assert [told.row.before(id) for id in (running, waiting, last)] == [0, 1, 2]
    assert told.row.job(waiting).state == WAITING
    told.row.cancel(waiting)
    assert told.row.job(waiting).state == CANCELLED
    assert told.row.job(running).state == RUNNING, "another's job"
    told.row.cancel(running)
    assert told.until(running)[-1].state == CANCELLED
    seen = told.until(last)
    assert seen[-1].state == DONE
    assert not any("loading" in one.stage for one in seen), "it was stopped between two blocks"
    assert {path.name for path in set(told.folder.iterdir()) - before} == {
        Path(name).name for name in (seen[-1].drawn.path, seen[-1].drawn.without)
    }
    told.row.cancel(last)
    assert told.row.job(last).state == DONE


def test_what_fails_says_why_and_costs_itself_alone(told: Told) -> None:
    bad = told.until(told.row.add(Asked(**{**CAR.told(), "model": "/no such folder"})))[-1]
    assert bad.state == FAILED
    assert "there is no model '/no such folder'" in bad.message
    assert told.until(told.row.add(CAR))[-1].state == DONE


def test_a_picture_waits_for_its_turn_and_may_leave_while_it_does(told: Told) -> None:
    with told.lock:
        id = told.row.add(CAR)
        told.until(id, lambda job: job.state == RUNNING)
        assert told.row.job(id).stage == "waiting for its turn"
        told.row.cancel(id)
        assert told.until(id)[-1].state == CANCELLED
        after = told.row.add(CAR)
    assert told.until(after)[-1].state == DONE


def test_a_process_that_dies_costs_its_job_alone(told: Told) -> None:
    id = told.row.add(LONG)
    told.until(id, lambda job: job.step > 0)
    worker = told.row._worker
    assert worker is not None
    os.kill(worker.pid, signal.SIGKILL)
    dead = told.until(id)[-1]
    assert dead.state == FAILED
    assert "the picture process ended" in dead.message
    assert told.until(told.row.add(CAR))[-1].state == DONE


class Standing:
    """A worker that ends every job at once, as it is told to."""

    def __init__(self) -> None:
        self.alive, self.ends, self.orders = True, list[messages.Event](), 0

    def draw(self, *_: object) -> messages.Event:
        self.orders += 1
        return self.ends.pop(0)

    def close(self) -> None:
        self.alive = False


def test_nothing_is_ordered_outside_of_its_turn(tmp_path: Path) -> None:
    worker = Standing()
    worker.ends.append(messages.Cancelled())
    told = Told(tmp_path, worker=lambda: worker)
    try:
        with told.lock:
            id = told.row.add(CAR)
            told.until(id, lambda job: job.state != WAITING)
            told.row.cancel(id)
            told.until(id)
        assert worker.orders == 0
    finally:
        told.row.close()


@pytest.mark.parametrize(
    ("ends", "makes_room"),
    [
        ("large drawn", True),
        ("large drawn, small failed", True),
        ("large failed", True),
        ("large drawn, small drawn", False),
        ("small drawn", False),
    ],
)
def test_room_is_made_while_a_large_model_may_be_held(tmp_path: Path, ends: str, makes_room: bool) -> None:
    """A small model's job that fails early leaves the large one where it was."""
    said = {"drawn": messages.Drawn("", "", 0.0), "failed": messages.Failed("no such device")}
    worker = Standing()
    told = Told(tmp_path, worker=lambda: worker)
    try:
        for one in ends.split(", "):
            kind, end = one.split()
            worker.ends.append(said[end])
            told.until(told.row.add(Asked(**{**CAR.told(), "model": "a/b" if kind == "large" else "scenes"})))
        told.row.make_room()
        assert worker.alive != makes_room
    finally:
        told.row.close()


@pytest.mark.parametrize(
    ("act", "says"),
    [
        ("raise torch.OutOfMemoryError('CUDA out of memory')", "out of memory; choose a smaller size"),
        ("raise KeyError('something')", "KeyError: 'something'"),
    ],
)
def test_an_error_in_the_model_is_one_line(tmp_path: Path, act: str, says: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(SABOTAGE.replace("{act}", act), encoding="utf-8")
    root = Path(__file__).parents[2]
    path = os.pathsep.join(filter(None, [str(tmp_path), str(root), os.environ.get("PYTHONPATH")]))
    told = Told(tmp_path / "out", worker=lambda: Worker(environment={"PYTHONPATH": path}))
    try:
        for _ in range(2):  # the second by the same process
            job = told.until(told.row.add(CAR))[-1]
            assert (job.state, job.drawn) == (FAILED, None)
            assert job.message.startswith(says)
        assert list((tmp_path / "out").iterdir()) == []
    finally:
        told.row.close()
