"""The peak of what PyTorch allocates on the CPU, by its profiler: temporaries inside operators count too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile


def peak(run: Callable[[], Any]) -> int:
    """Bytes beyond what was there before, at the worst moment of `run` with its result still alive."""
    run()  # what is allocated once and kept is not the call's
    with torch.inference_mode(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as prof:
        kept = run()
    events = [event for event in prof.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = highest = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        highest = max(highest, now)
    del kept
    return highest
