"""How far a job and the whole queue are, as shares from 0 to 1 and seconds: arithmetic only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vsf_lib.video.job import VideoJob

_SPANS = {
    "encoding": (0.0, 0.03),
    "loading": (0.03, 0.06),
    "sampling": (0.06, 0.92),
    "decoding": (0.92, 0.98),
    "writing": (0.98, 1.0),
}
"""Of a job, by its stages: sampling is nearly all of it, and the only one whose end can be told."""


@dataclass(frozen=True)
class Overview:
    """Where the queue stands."""

    job: float
    """Share of the running job."""
    total: float
    """Share of all jobs since the queue was last empty."""
    waiting: int
    """Jobs behind the running one."""
    seconds_left: float | None
    """Of all jobs; None while it cannot be told."""


def cost(job: VideoJob) -> float:
    """Work in a job, in units that only compare jobs: steps, frames, pixels, and calls per step."""
    calls = (1 if job.guidance_scale == 1 else 2) * (2 if job.compare else 1)
    return float(job.steps * job.made_frames * job.width * job.height * calls)


def share(stage: str, step: int, steps: int) -> float:
    """How much of a job is done at `step` of `steps` in a stage; a stage without steps counts as begun."""
    first, last = _SPANS.get(stage, (0.0, 0.0))
    done = step / steps if steps else 0.0
    return (1 - done) * first + done * last


def overview(
    job: VideoJob,
    waiting: Iterable[VideoJob],
    *,
    stage: str,
    step: int,
    steps: int,
    seconds_left: float | None,
    finished: float = 0.0,
) -> Overview:
    """Where the queue stands while `job` runs; `finished` is the cost of the jobs that were before it.

    `seconds_left` of the sampling tells how long a unit of cost takes, and so how long the others will.
    """
    others = [cost(one) for one in waiting]
    own = cost(job)
    done = share(stage, step, steps)
    left = None
    if seconds_left is not None and steps > step:
        each = seconds_left / (own * (1 - step / steps))
        left = seconds_left + each * sum(others)
    elif seconds_left is not None and not others:
        left = seconds_left
    return Overview(done, (finished + done * own) / (finished + own + sum(others)), len(others), left)


def spoken(seconds: float) -> str:
    """`95.0` -> `1 min 35 s`."""
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
