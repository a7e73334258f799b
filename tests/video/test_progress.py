"""How far a job and the queue are: shares, and the time that is left."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsf_lib.video.job import VideoJob
from vsf_lib.video.progress import cost, overview, share, spoken


def job(**values):
    return VideoJob.create(prompt="a car", **values)


@given(st.integers(1, 50))
def test_a_job_never_goes_back(steps):
    stages = [("waiting", 0, 0), ("encoding", 0, 0), ("loading", 0, 0)]
    stages += [("sampling", step, steps) for step in range(steps + 1)]
    stages += [("decoding", 0, 0), ("writing", 0, 0)]
    shares = [share(*stage) for stage in stages]
    assert shares == sorted(shares)
    assert 0 <= shares[0] <= shares[-1] < 1


def test_the_queue_is_counted_by_work_and_not_by_jobs():
    small, large = job(steps=4, frames=17), job(steps=8, frames=17, width=1280, height=720)
    view = overview(small, [large], stage="decoding", step=0, steps=0, seconds_left=None)
    assert view.waiting == 1
    assert view.seconds_left is None
    ratio = (8 * 1280 * 720) / (4 * 832 * 480)
    assert view.total == pytest.approx(view.job / (1 + ratio))
    after = overview(large, [], stage="waiting", step=0, steps=0, seconds_left=None, finished=cost(small))
    assert after.total == pytest.approx(1 / (1 + ratio))


def test_what_waits_takes_as_long_as_its_work_is():
    """Ten seconds for the half of the steps that is left: twenty for each such job."""
    view = overview(
        job(), [job(), job(guidance_scale=5)], stage="sampling", step=4, steps=8, seconds_left=10.0
    )
    assert view.seconds_left == pytest.approx(10 + 20 + 40)
    last = overview(job(), [], stage="sampling", step=8, steps=8, seconds_left=0.0)
    assert last.seconds_left == 0


def test_dropped_frames_are_work_too():
    assert cost(job(drop_frames=8)) == pytest.approx(cost(job()) * 89 / 81)


def test_a_sampling_that_has_ended_tells_nothing_of_what_waits():
    view = overview(job(), [job()], stage="sampling", step=8, steps=8, seconds_left=0.0)
    assert view.seconds_left is None


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (95, "1 min 35 s"), (3720, "1 h 2 min")]
)
def test_time_is_spoken(seconds, words):
    assert spoken(seconds) == words
