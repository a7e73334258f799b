"""The peak of what PyTorch allocates on the CPU, by its profiler: temporaries inside operators count too.

Owns the count. Must not know what is run, and imports nothing of ours: a host's trial loads it by its path.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch.profiler import ProfilerActivity, profile

T = TypeVar("T")


def watched(run: Callable[[], T]) -> tuple[T, int]:
    """What `run` gives, and the bytes that it took at its worst moment, that result included."""
    with torch.inference_mode(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as prof:
        result = run()
    events = [event for event in prof.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = highest = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        highest = max(highest, now)
    return result, highest


def peak(run: Callable[[], Any]) -> int:
    """The bytes that `run` takes at its worst moment."""
    run()  # what is allocated once and kept is not the call's
    return watched(run)[1]
