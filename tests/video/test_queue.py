"""The queue on disk: order, states, several users at once, and processes that die."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing

import pytest

from vsf_lib.errors import OutputError, SettingsError
from vsf_lib.jobs.locks import only_one
from vsf_lib.settings import Settings
from vsf_lib.video.job import VideoJob
from vsf_lib.video.queue import CANCELLED, DONE, FAILED, RUNNING, WAITING, Queue


def job(prompt="a red car", **values):
    return VideoJob.create(prompt=prompt, **values)


@pytest.fixture
def queue(tmp_path):
    return Queue(tmp_path / "späte Videos" / "queue.sqlite")


def prompts(queue, *states):
    return [entry.job.prompt for entry in queue.entries(*states)]


def test_jobs_come_out_as_they_went_in(queue):
    made = job(settings=Settings(negative_prompt="wheels", alpha=1.5), frames=17)
    queue.add(made)
    queue.add(job("second"))
    taken = queue.take()
    assert taken.job == made
    assert taken.state == RUNNING
    assert queue.take().job.prompt == "second"
    assert queue.take() is None


def test_order_can_be_changed(queue):
    ids = {name: queue.add(job(name)) for name in "abcd"}
    queue.move(ids["d"], 0)
    assert prompts(queue) == ["d", "a", "b", "c"]
    queue.move(ids["a"], 2)
    assert prompts(queue) == ["d", "b", "a", "c"]
    queue.move(ids["d"], 99)
    assert prompts(queue) == ["b", "a", "c", "d"]
    queue.remove(ids["a"])
    queue.duplicate(ids["b"])
    queue.edit(ids["c"], job("C"))
    assert prompts(queue) == ["b", "C", "d", "b"]
    assert [queue.take().job.prompt for _ in range(4)] == ["b", "C", "d", "b"]


def test_states_end_and_begin_again(queue):
    for name in "abc":
        queue.add(job(name))
    a, b, c = (queue.take().id for _ in range(3))
    queue.done(a, "/x/a.mp4", "a\nSteps: 1")
    queue.failed(b, "out of memory")
    queue.cancelled(c)
    states = {entry.job.prompt: entry for entry in queue.entries()}
    assert (states["a"].state, states["a"].path, states["a"].infotext) == (DONE, "/x/a.mp4", "a\nSteps: 1")
    assert (states["b"].state, states["b"].message) == (FAILED, "out of memory")
    assert states["c"].state == CANCELLED
    assert prompts(queue) == ["c", "b", "a"], "the latest first"
    queue.again(b)
    assert prompts(queue, WAITING) == ["b"]
    assert queue.entry(b).message == ""


def test_what_cannot_be_done_is_told(queue):
    id = queue.add(job())
    queue.take()
    for act in (lambda: queue.edit(id, job("other")), lambda: queue.move(id, 0), lambda: queue.remove(id)):
        with pytest.raises(SettingsError, match=f"job {id} is running"):
            act()
    with pytest.raises(SettingsError, match="removed"):
        queue.move(99, 0)
    queue.done(id, "", "")
    with pytest.raises(SettingsError, match="is done, but this needs one that is running"):
        queue.failed(id, "late")


def test_a_pause_outlives_the_process(queue):
    queue.add(job())
    queue.paused = True
    again = Queue(queue._file)
    assert again.paused
    assert again.take() is None
    again.paused = False
    assert queue.take() is not None


def test_what_ran_when_its_process_died_is_first_again(queue):
    for name in "abc":
        queue.add(job(name))
    queue.take()
    again = Queue(queue._file)
    assert again.recover() == 1
    assert prompts(again) == ["a", "b", "c"]
    assert again.recover() == 0


def test_many_at_once_take_each_job_once(queue):
    for number in range(20):
        queue.add(job(str(number)))
    taken, lock = [], threading.Lock()

    def work():
        own = Queue(queue._file)
        while (entry := own.take()) is not None:
            with lock:
                taken.append(entry.job.prompt)
            own.done(entry.id, "", "")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken, key=int) == [str(number) for number in range(20)]


KILLED = """
import sys, time
from pathlib import Path
from vsf_lib.video.job import VideoJob
from vsf_lib.jobs.locks import only_one
from vsf_lib.video.queue import Queue
folder = Path(sys.argv[1])
with only_one(folder / "lock") as got:
    queue = Queue(folder / "queue.sqlite")
    queue.add(VideoJob.create(prompt="first")); queue.add(VideoJob.create(prompt="second"))
    queue.take()
    with queue._change() as db:
        db.execute("DELETE FROM jobs")
        print("ready", got, flush=True)
        time.sleep(60)
"""


def test_a_process_killed_inside_a_change_loses_nothing(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready True\n"
    with only_one(tmp_path / "lock") as got:
        assert not got, "the other process is the one"
    os.kill(process.pid, signal.SIGKILL if os.name != "nt" else signal.SIGTERM)
    process.wait()
    with only_one(tmp_path / "lock") as got:
        assert got, "a dead process holds no lock"
    queue = Queue(tmp_path / "queue.sqlite")
    assert queue.recover() == 1
    assert prompts(queue) == ["first", "second"]


def test_an_error_inside_a_change_undoes_it(queue):
    queue.add(job())

    def half() -> None:
        with queue._change() as db:
            db.execute("DELETE FROM jobs")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half()
    assert prompts(queue) == ["a red car"]


def test_a_damaged_or_later_file_is_kept_and_told(tmp_path):
    damaged = tmp_path / "damaged.sqlite"
    damaged.write_bytes(b"no database" * 200)
    with pytest.raises(OutputError, match="is damaged"):
        Queue(damaged)
    assert damaged.read_bytes().startswith(b"no database")
    later = tmp_path / "later.sqlite"
    Queue(later)
    db = sqlite3.connect(later)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(OutputError, match="later version"):
        Queue(later)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="cannot"):
        Queue(tmp_path / "x" / "queue.sqlite")
    tmp_path.chmod(0o700)


def test_a_finished_job_stays_when_it_is_made_again(queue):
    id = queue.add(job())
    queue.take()
    queue.done(id, "/x/a.mp4", "a\nSteps: 1", seconds=12.5)
    other = queue.again(id)
    assert other != id
    assert (queue.entry(id).path, queue.entry(id).seconds) == ("/x/a.mp4", 12.5)
    assert prompts(queue, WAITING) == ["a red car"]
    queue.take()
    queue.failed(other, "lost")
    assert queue.again(other) == other
    assert queue.entry(other).message == ""
    assert queue.entry(other).ended is None


def test_history_is_the_latest_first_and_no_longer_than_asked(queue):
    for name in "abc":
        queue.cancelled(queue.add(job(name)) and queue.take().id)
    queue.add(job("waits"))
    assert [entry.job.prompt for entry in queue.history(2)] == ["c", "b"]
    assert len(queue.history(9)) == 3


def test_a_queue_of_the_first_version_is_taken_over(tmp_path):
    file = tmp_path / "queue.sqlite"
    Queue(file).add(job("old"))
    with closing(sqlite3.connect(file)) as db:
        db.execute("ALTER TABLE jobs DROP COLUMN seconds")
        db.execute("PRAGMA user_version = 1")
        db.commit()
    queue = Queue(file)
    entry = queue.take()
    assert entry.job.prompt == "old"
    queue.done(entry.id, "", "", seconds=3.0)
    assert Queue(file).entry(entry.id).seconds == 3.0


def test_a_job_of_another_version_harms_no_other(queue, tmp_path):
    strange, ours = queue.add(job("strange")), queue.add(job("ours"))
    with closing(sqlite3.connect(tmp_path / "späte Videos" / "queue.sqlite")) as db:
        db.execute("UPDATE jobs SET job = replace(job, '\"fps\"', '\"colour\"') WHERE id = ?", (strange,))
        db.commit()
    assert {entry.id: entry.state for entry in queue.entries()} == {strange: FAILED, ours: WAITING}
    assert queue.take().id == ours
    assert "cannot be read" in queue.entry(strange).message
    assert [entry.id for entry in queue.history(9)] == [strange]
    queue.remove(strange)
    assert [entry.id for entry in queue.entries()] == [ours]


def test_what_runs_is_before_all_that_wait_in_any_order(queue):
    first, second, third = (queue.add(job(name)) for name in "abc")
    queue.take()
    queue.move(third, 0)
    assert [entry.id for entry in queue.entries()] == [first, third, second]
    assert [entry.id for entry in queue.entries(RUNNING, WAITING)] == [first, third, second]
