"""Times calls in interleaved rounds, and sets each against the first in the same round.

Owns the order and the ratios. Knows no attention; clock and synchronisation come from outside.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Ratio(NamedTuple):
    """The median over rounds, and the ends of what they gave."""

    middle: float
    low: float
    high: float


@dataclass(frozen=True)
class Pace:
    """How often all is timed: `most` rounds of `calls` calls each, or fewer where `seconds` are over.

    The first `least` rounds are made whatever they take.
    """

    most: int
    calls: int = 1
    seconds: float | None = None
    least: int = 3

    def goes_on(self, made: int, gone: float) -> bool:
        """Whether there is time for one more round after `made` that took `gone` seconds."""
        if self.seconds is None or made < max(self.least, 1):
            return True
        return gone * (made + 1) / made <= self.seconds


def interleaved(
    runs: Sequence[Callable[[], object]],
    pace: Pace,
    *,
    clock: Callable[[], float],
    wait: Callable[[], None],
) -> list[list[float]]:
    """The seconds of each of `runs` in each round.

    Every round has them all, so that a machine that gets slower does so for all of them, and each begins with
    another one, so that none always follows the same.
    """
    seconds: list[list[float]] = [[] for _ in runs]
    first = ended = 0.0
    for number in range(pace.most):
        if not pace.goes_on(number, ended - first):
            break
        for place in range(len(runs)):
            which = (number + place) % len(runs)
            run = runs[which]
            wait()
            began = clock()
            for _ in range(pace.calls):
                run()
            wait()
            ended = clock()
            seconds[which].append((ended - began) / pace.calls)
            if number == place == 0:
                first = began
    return seconds


def ratio(seconds: Sequence[float], own: Sequence[float]) -> Ratio:
    """Of the rounds' ratios to `own`: both in the order of the rounds."""
    found = [one / other for one, other in zip(seconds, own, strict=True)]
    return Ratio(statistics.median(found), min(found), max(found))
