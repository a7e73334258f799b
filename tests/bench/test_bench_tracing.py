"""Where a curve gets its points."""

from __future__ import annotations

import numpy as np
import pytest

from vsf_lib.bench.drawing import NEGATIVE, POSITIVE, Method
from vsf_lib.bench.tracing import Crossing, Line, trace
from vsf_lib.settings import Settings

FALLS = Crossing(POSITIVE, 0.9)
RISES = Crossing(NEGATIVE, 0.5)


def line(*strengths: float, most: float = 100.0) -> Line:
    return Line("x", "vsf", "alpha", strengths, lambda s: Method("x", Settings(alpha=min(s, 100))), most=most)


class World:
    """Where the prompt and the part go at given alphas, each all at once; notes what was drawn."""

    def __init__(self, *, prompt_until: float, part_until: float) -> None:
        self.prompt_until, self.part_until = prompt_until, part_until
        self.drawn: list[float] = []

    def __call__(self, method: Method) -> np.ndarray:
        alpha = method.settings.alpha
        self.drawn.append(alpha)
        return np.array([[float(alpha < self.prompt_until), float(alpha >= self.part_until), 1.0]] * 4)


def test_points_are_added_where_the_prompt_goes() -> None:
    world = World(prompt_until=5.0, part_until=0.1)
    curve = trace(line(1.0, 4.0, 16.0), world, (FALLS,), 2)  # type: ignore[arg-type]
    np.testing.assert_allclose(curve.strengths, [1.0, 4.0, 5.66, 8.0, 16.0], rtol=1e-3)
    np.testing.assert_allclose(curve.points[:, POSITIVE], [1, 1, 0, 0, 0])
    assert sorted(world.drawn) == [pytest.approx(s, rel=1e-3) for s in curve.strengths]


@pytest.mark.parametrize(
    ("world", "crossing", "added"),
    [
        (World(prompt_until=0.5, part_until=1e9), FALLS, [0.333, 0.577]),
        (World(prompt_until=40.0, part_until=1e9), FALLS, [27.7, 48.0]),
        (World(prompt_until=1e9, part_until=0.5), RISES, [0.333, 0.577]),
        (World(prompt_until=1e9, part_until=40.0), RISES, [27.7, 48.0]),
        (World(prompt_until=1e9, part_until=1e9), RISES, [48.0, 100.0]),
        (World(prompt_until=0.0, part_until=1e9), FALLS, [1 / 9, 1 / 3]),
        (World(prompt_until=5.0, part_until=1e9), FALLS, []),
    ],
)
def test_a_sweep_that_misses_its_crossing_is_stretched(
    world: World, crossing: Crossing, added: list[float]
) -> None:
    curve = trace(line(1.0, 4.0, 16.0), world, (crossing,), 1)  # type: ignore[arg-type]
    # The new end, and then the middle of the crossing that it brought.
    outside = [s for s in curve.strengths if not 1 <= s <= 16]
    np.testing.assert_allclose(outside, added, rtol=1e-2)


def test_no_rounds_leave_the_coarse_sweep() -> None:
    world = World(prompt_until=0.5, part_until=2.0)
    assert list(trace(line(1.0, 4.0), world, (FALLS, RISES), 0).strengths) == [1.0, 4.0]  # type: ignore[arg-type]


def test_the_last_fall_and_the_first_rise_count() -> None:
    points = np.array([[1.0, 0.2, 1], [0.8, 0.6, 1], [1.0, 0.4, 1], [0.7, 0.9, 1]])
    assert FALLS.between(points) == 2
    assert RISES.between(points) == 0
    assert FALLS.between(points[:1]) is None
