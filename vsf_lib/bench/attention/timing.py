"""Times calls in interleaved rounds, and sets each against the first in the same round.

Owns the order and the ratios. Knows no attention; clock and synchronisation come from outside.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple


class Ratio(NamedTuple):
    """The median over rounds, and the ends of what they gave."""

    middle: float
    low: float
    high: float


def interleaved(
    runs: Sequence[Callable[[], object]],
    rounds: int,
    *,
    calls: int,
    clock: Callable[[], float],
    wait: Callable[[], None],
) -> list[list[float]]:
    """The seconds of each of `runs` in each round, `calls` calls at a time.

    Every round has them all, so that a machine that gets slower does so for all of them, and each begins with
    another one, so that none always follows the same.
    """
    seconds: list[list[float]] = [[] for _ in runs]
    for number in range(rounds):
        for place in range(len(runs)):
            which = (number + place) % len(runs)
            run = runs[which]
            wait()
            began = clock()
            for _ in range(calls):
                run()
            wait()
            seconds[which].append((clock() - began) / calls)
    return seconds


def ratio(seconds: Sequence[float], own: Sequence[float]) -> Ratio:
    """Of the rounds' ratios to `own`: both in the order of the rounds."""
    found = [one / other for one, other in zip(seconds, own, strict=True)]
    return Ratio(statistics.median(found), min(found), max(found))
