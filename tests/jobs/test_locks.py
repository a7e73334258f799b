"""A turn in a row, such as a video's in that of a WebUI's pictures."""

from __future__ import annotations

import threading

import pytest

from vsf_lib.jobs.locks import Withdrawn, turn


def test_a_turn_is_ours_alone_and_given_back():
    lock = threading.Lock()
    with turn(lock, lambda: False):
        assert lock.locked()
    assert not lock.locked()
    with pytest.raises(ValueError, match="in the job"), turn(lock, lambda: False):
        raise ValueError("in the job")
    assert not lock.locked()


def test_a_job_that_is_stopped_before_its_turn_keeps_nobody_waiting():
    lock, stopped = threading.Lock(), threading.Event()
    lock.acquire()
    threading.Timer(0.3, stopped.set).start()
    with pytest.raises(Withdrawn), turn(lock, stopped.is_set):
        pytest.fail("it was never its turn")
    lock.release()
    for waits in [thread for thread in threading.enumerate() if thread.name == "vsf-turn"]:
        waits.join(30)
    assert not lock.locked(), "the thread that waited in the row passes it on"
