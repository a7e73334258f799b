"""The queue run by the real worker: one job's end is not the queue's, and nothing is lost."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

pytest.importorskip("imageio_ffmpeg")
pytest.importorskip("wan_files")

from waiting import until

from vsf_lib.jobs.locks import Withdrawn
from vsf_lib.scenes.model import WAN
from vsf_lib.video import runner as runner_module
from vsf_lib.video.builtin import USUAL
from vsf_lib.video.files import read_infotext
from vsf_lib.video.job import Lora, VideoJob
from vsf_lib.video.process import Worker
from vsf_lib.video.progress import cost
from vsf_lib.video.queue import CANCELLED, DONE, FAILED, RUNNING, WAITING, Queue
from vsf_lib.video.runner import Runner, Surroundings

LONG = {"steps": 100, "width": 256, "height": 256, "frames": 33}


@pytest.fixture
def queue(tmp_path):
    return Queue(tmp_path / "queue.sqlite")


@pytest.fixture
def job(wan):
    def make(**values):
        small = {"model": str(wan), "width": 80, "height": 64, "frames": 5, "steps": 2}
        return VideoJob.create(**{"prompt": "a red car", "settings": {"method": "off"}, **small, **values})

    return make


@contextmanager
def running(queue, folder, **options):
    runner = Runner(queue, folder / "späte Videos", lock=folder / "lock", **options)
    runner.start()
    try:
        yield runner
    finally:
        runner.stop()


def states(queue):
    return {entry.id: entry.state for entry in queue.entries()}


def test_one_that_fails_does_not_stop_the_next(queue, job, tmp_path):
    workers = []

    def worker():
        workers.append(Worker())
        return workers[-1]

    with running(queue, tmp_path, worker=worker) as runner:
        first = queue.add(job(seed=1))
        bad = queue.add(job(loras=[Lora(file=str(tmp_path / "gone.safetensors"))]))
        same = queue.add(job(seed=1))
        runner.wake()
        until(lambda: queue.entry(same).state == DONE)
        assert runner.state.id is None
    assert states(queue) == {first: DONE, bad: FAILED, same: DONE}
    assert "there is no LoRA" in queue.entry(bad).message
    paths = [Path(queue.entry(id).path) for id in (first, same)]
    assert [path.name for path in paths] == ["a-red-car-1.mp4", "a-red-car-1-2.mp4"]
    assert read_infotext(paths[0]) == queue.entry(first).infotext
    assert len(workers) == 1, "the model stays loaded between jobs"


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_killed_worker_fails_its_job_alone(queue, job, tmp_path):
    workers = []

    def worker():
        workers.append(Worker())
        return workers[-1]

    lost, after = queue.add(job(**LONG)), queue.add(job())
    with running(queue, tmp_path, worker=worker) as runner:
        until(lambda: runner.state.preview)
        os.kill(workers[0].pid, signal.SIGKILL)
        until(lambda: queue.entry(after).state == DONE)
    assert queue.entry(lost).state == FAILED
    assert "by signal 9" in queue.entry(lost).message


def test_cancel_stops_the_job_that_runs(queue, job, tmp_path):
    stopped, after = queue.add(job(**LONG)), queue.add(job())
    with running(queue, tmp_path) as runner:
        until(lambda: runner.state.step > 0)
        runner.cancel(after)
        runner.cancel(stopped)
        until(lambda: queue.entry(after).state == DONE)
    assert queue.entry(stopped).state == CANCELLED


def test_a_job_that_ran_when_the_program_ended_is_the_first_again(queue, job, tmp_path):
    ran, after = queue.add(job(**LONG)), queue.add(job(seed=2))
    with running(queue, tmp_path) as runner:
        until(lambda: runner.state.step > 0)
    assert queue.entry(ran).state == RUNNING
    queue.edit(after, job(seed=3))
    queue.paused = True
    with running(queue, tmp_path):
        until(lambda: queue.entry(ran).state == WAITING)
    assert [entry.id for entry in queue.entries(WAITING)] == [ran, after]


def test_a_paused_queue_begins_nothing(queue, job, tmp_path):
    queue.paused = True
    id = queue.add(job())
    with running(queue, tmp_path) as runner:
        time.sleep(2)
        assert queue.entry(id).state == WAITING
        queue.paused = False
        runner.wake()
        until(lambda: queue.entry(id).state == DONE)


def test_only_one_program_runs_the_queue(queue, job, tmp_path):
    with running(queue, tmp_path) as one, running(Queue(tmp_path / "queue.sqlite"), tmp_path) as other:
        until(lambda: one.state.elsewhere != other.state.elsewhere)  # whichever was first
        id = queue.add(job())
        until(lambda: queue.entry(id).state == DONE)
        assert one.state.elsewhere != other.state.elsewhere


def test_what_a_host_needs_is_around_each_job(queue, job, tmp_path):
    order = []

    class Host(Surroundings):
        @contextmanager
        def job(self, entry, stopped):
            order.append(f"before {entry.id}")
            if entry.job.seed == 9:
                raise RuntimeError("the host has no memory")
            yield
            order.append(f"after {entry.id}")

        def progress(self, state):
            stages.append(state.stage)

    stages = []
    one, refused, other = queue.add(job()), queue.add(job(seed=9)), queue.add(job())
    with running(queue, tmp_path, around=Host(), idle=0.1) as runner:
        until(lambda: queue.entry(other).state == DONE)
        until(lambda: runner._worker is None, 30)
    assert order == [
        f"before {one}",
        f"after {one}",
        f"before {refused}",
        f"before {other}",
        f"after {other}",
    ]
    assert queue.entry(refused).message == "the host has no memory"
    assert stages.count("writing") == 2


def test_a_large_models_worker_is_not_kept_as_long_as_the_small_ones(
    queue, job, built_in, tmp_path, monkeypatch
):
    monkeypatch.setattr(runner_module, "_IDLE_LARGE", 0.1)
    small = {**USUAL, "model": WAN, "steps": 1}
    with running(queue, tmp_path, idle=1000) as runner:
        id = queue.add(job(**small))
        until(lambda: queue.entry(id).state == DONE)
        worker = runner._worker
        assert runner._patience == 1000
        id = queue.add(job())
        until(lambda: queue.entry(id).state == DONE)
        until(lambda: runner._worker is None, 30)
        assert worker is not None and not worker.alive
        assert runner._patience == 1000, "the next one has loaded nothing yet"


def test_the_hosts_own_button_stops_the_job(queue, job, tmp_path):
    class Host(Surroundings):
        pressed = False

        def stopped(self):
            return self.pressed

        def progress(self, state):
            self.pressed = state.step > 0

    id = queue.add(job(**LONG))
    with running(queue, tmp_path, around=Host()):
        until(lambda: queue.entry(id).state == CANCELLED)


class Host(Surroundings):
    """A program with its own folders, whose turn may not come."""

    def __init__(self, *, turn=True):
        self.turn = turn

    def folder(self, entry):
        return Path("2026-01-02")

    def notes(self, entry):
        return ("pictures wait",)

    @contextmanager
    def job(self, entry, stopped):
        while not self.turn:
            if stopped():
                raise Withdrawn
            time.sleep(0.05)
        yield


def test_a_program_says_where_files_go_and_what_to_tell(queue, job, tmp_path):
    id = queue.add(job())
    notes = []
    with running(queue, tmp_path, around=Host()) as runner:
        until(lambda: notes.append(runner.state.notes) or queue.entry(id).state == DONE)
        until(lambda: runner.state.id is None)
    assert Path(queue.entry(id).path).parent == tmp_path / "späte Videos" / "2026-01-02"
    assert any("pictures wait" in said for said in notes)
    assert queue.entry(id).seconds > 0


def test_a_job_whose_turn_does_not_come_can_be_cancelled(queue, job, tmp_path):
    id = queue.add(job())
    host = Host(turn=False)
    with running(queue, tmp_path, around=host, worker=lambda: pytest.fail("nothing is to be made")) as runner:
        until(lambda: runner.state.id == id)
        runner.cancel(id)
        until(lambda: queue.entry(id).state == CANCELLED)


def test_work_is_counted_until_nothing_waits(queue, job, tmp_path, monkeypatch):
    first, second = queue.add(job()), queue.add(job(seed=2))
    finished = {}

    def note(runner, name, value):
        """Every state that was told, however short: a look now and then would miss some."""
        object.__setattr__(runner, name, value)
        if name == "state" and value.id is not None:
            finished[value.id] = value.finished

    monkeypatch.setattr(Runner, "__setattr__", note, raising=False)
    with running(queue, tmp_path) as runner:
        until(lambda: queue.entry(second).state == DONE)
        time.sleep(1.5)  # it looks, and nothing waits
        third = queue.add(job(seed=3))
        runner.wake()
        until(lambda: queue.entry(third).state == DONE)
    assert [finished[id] for id in (first, second, third)] == [0, cost(job()), 0]


@contextmanager
def locked(file):
    """The queue as a program that hangs would hold it."""
    with closing(sqlite3.connect(file, isolation_level=None)) as db:
        db.execute("BEGIN EXCLUSIVE")
        yield
        db.execute("ROLLBACK")


def test_a_queue_that_cannot_be_used_for_a_while_stops_nothing_for_ever(queue, job, tmp_path, monkeypatch):
    file = tmp_path / "queue.sqlite"
    id = queue.add(job(**LONG))
    monkeypatch.setattr("vsf_lib.video.queue._PATIENCE", 0.1)
    with locked(file):
        runner = Runner(queue, tmp_path / "videos", lock=tmp_path / "lock")
        runner.start()
        until(lambda: "cannot use the queue" in runner.state.problem)
    try:
        until(lambda: runner.state.step > 0)
        with locked(file):
            runner.cancel(id)
            until(lambda: runner.state.problem)
        until(lambda: queue.entry(id).state == CANCELLED)
    finally:
        runner.stop()


def test_a_folder_that_cannot_be_written_to_fails_the_job_before_a_worker_starts(queue, job, tmp_path):
    (tmp_path / "späte Videos").write_text("a file where the folder should be")

    def worker():
        raise AssertionError("nothing is to be made")  # pytest.fail would end the thread, and be waited for

    with running(queue, tmp_path, worker=worker) as runner:
        id = queue.add(job())
        runner.wake()
        until(lambda: queue.entry(id).state == FAILED)
    said = queue.entry(id).message
    assert said.startswith(f"cannot write to {tmp_path / 'späte Videos'}: ")
    assert said.endswith("; make room on its disk, or give this program leave to write there")
