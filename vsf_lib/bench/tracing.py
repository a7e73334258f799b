"""Draws a method's curve over its strength: a coarse sweep, then more points where it matters.

Owns lines (what is swept), curves (what came out) and where points are added. Knows pairs, pictures and judge
through drawing.py only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vsf_lib.bench.drawing import NEGATIVE, POSITIVE, Method, draw, outcomes
from vsf_lib.bench.pairs import Pair
from vsf_lib.bench.trade_off import KEPT
from vsf_lib.scenes.judge import Judge


@dataclass(frozen=True)
class Crossing:
    """Where a curve is looked at closely: its last fall below a positive share, its first rise to another."""

    column: int
    level: float

    def between(self, points: np.ndarray) -> int | None:
        """The index of the piece of `points` `[n, 3]` that crosses the level; None if none does."""
        above = points[:, self.column] >= self.level
        pieces = np.flatnonzero(above[:-1] != above[1:])
        if not len(pieces):
            return None
        return int(pieces[-1] if self.column == POSITIVE else pieces[0])

    def beyond(self, points: np.ndarray) -> int:
        """1 if the level lies beyond the strongest of `points`, -1 before the weakest, 0 in between."""
        if self.between(points) is not None:
            return 0
        above = bool(points[0, self.column] >= self.level)
        return 1 if above == (self.column == POSITIVE) else -1


KEPT_AT = Crossing(POSITIVE, KEPT)
REMOVED_AT = (Crossing(NEGATIVE, 0.5), Crossing(NEGATIVE, 0.7))
_STRETCHES, _STRETCH = 2, 3.0


@dataclass(frozen=True)
class Line:
    """A method and how its strength is swept."""

    name: str
    group: str
    """What it is shown with: "vsf", "difference", "variant", "ablation", "baseline" or "none"."""
    knob: str
    """What is swept, such as "alpha"; empty where there is nothing to sweep."""
    strengths: tuple[float, ...]
    """The coarse sweep, rising."""
    method: Callable[[float], Method]
    held: str = ""
    """What stays the same, in words."""
    most: float = math.inf
    """The largest strength that means something."""
    beside: str = ""
    """The name of the line that it is to be compared with, if there is one."""


@dataclass(frozen=True)
class Curve:
    """A line as it was drawn."""

    line: Line
    strengths: np.ndarray
    """`[n]`, rising."""
    outcomes: np.ndarray
    """`[n, pairs, 3]`: the share of a pair's seeds that kept the prompt, lost the part, were clean."""

    @property
    def points(self) -> np.ndarray:
        """`[n, 3]`: the shares over all pairs."""
        means: np.ndarray = self.outcomes.mean(1)
        return means


class Measure:
    """Draws and judges a method once, however often it is asked for."""

    def __init__(
        self, pipe: Any, judge: Judge, pairs: Sequence[Pair], *, seeds: Sequence[int], steps: int
    ) -> None:
        self.pairs = pairs
        self._pipe, self._judge, self._seeds, self._steps = pipe, judge, seeds, steps
        self._known: dict[Method, np.ndarray] = {}

    def __call__(self, method: Method) -> np.ndarray:
        """`[pairs, 3]`: each pair's shares over its seeds."""
        key = replace(method, name="")
        if key not in self._known:
            pictures = draw(self._pipe, self.pairs, method, seeds=self._seeds, steps=self._steps)
            self._known[key] = outcomes(self._judge, self.pairs, pictures).mean(0)
        return self._known[key]


def trace(line: Line, measure: Measure, crossings: Sequence[Crossing], rounds: int) -> Curve:
    """The curve of `line`, with more points at its crossings.

    Where a crossing lies outside of the coarse sweep, that is stretched, at most twice at either end; then in
    each of `rounds` every crossing gets one more point in its middle. 0 rounds leave the coarse sweep alone.
    """
    drawn = {strength: measure(line.method(strength)) for strength in line.strengths}

    def curve() -> Curve:
        strengths = sorted(drawn)
        return Curve(line, np.array(strengths), np.stack([drawn[s] for s in strengths]))

    def add(strength: float) -> None:
        strength = min(rounded(strength), line.most)
        if strength not in drawn:
            drawn[strength] = measure(line.method(strength))

    if len(line.strengths) < 2 or not rounds:
        return curve()
    for _ in range(_STRETCHES):
        for crossing in crossings:
            now = curve()
            beyond = crossing.beyond(now.points)
            if beyond:
                add(now.strengths[-1] * _STRETCH if beyond > 0 else now.strengths[0] / _STRETCH)
    for _ in range(rounds):
        for crossing in crossings:
            now = curve()
            at = crossing.between(now.points)
            if at is not None:
                add((now.strengths[at] * now.strengths[at + 1]) ** 0.5)
    return curve()


def rounded(strength: float) -> float:
    """To the three digits that are printed, so that what is printed was drawn."""
    return float(f"{strength:.3g}")
