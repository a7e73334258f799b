"""What is read off a curve, against looking at it in ten thousand places."""

from __future__ import annotations

import random

import numpy as np
import pytest

from vsf_lib.bench.trade_off import (
    KEPT,
    REMOVED,
    area,
    at_removal,
    best_point,
    best_removal,
    usable_octaves,
    usable_range,
)

FINE = 4000


@pytest.fixture
def seed() -> int:
    """Another one on every run; a failure shows it."""
    return random.SystemRandom().randrange(2**31)


def some_curve(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One that loses the prompt and the part, unevenly, as drawn ones do; strengths rise by some factor."""
    n = int(generator.integers(3, 9))
    t = np.linspace(0, 1, n)
    falling = 0.98 - 0.6 * t ** generator.uniform(0.5, 4) + generator.normal(0, 0.03, n)
    rising = 0.1 + 0.85 * t ** generator.uniform(0.5, 2) + generator.normal(0, 0.03, n)
    points = np.stack([falling, rising, generator.random(n)], 1).clip(0, 1)
    return points, np.exp(np.cumsum(generator.uniform(0.2, 1, n)))


def walked(points: np.ndarray, strengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The curve in many places: shares straight, strengths geometric between neighbours."""
    t = np.arange(FINE) / FINE
    rows, at = [], []
    for i in range(len(points) - 1):
        rows.append(points[i] + t[:, None] * (points[i + 1] - points[i]))
        at.append(strengths[i] ** (1 - t) * strengths[i + 1] ** t)
    return np.concatenate([*rows, points[-1:]]), np.concatenate([*at, strengths[-1:]])


def test_against_a_walk_along_the_curve(seed: int) -> None:
    generator = np.random.default_rng(seed)
    met = {"best": 0, "removal": 0, "usable": 0}
    for _ in range(25):
        points, strengths = some_curve(generator)
        rows, at = walked(points, strengths)
        positive, negative = rows[:, 0], rows[:, 1]

        kept = positive >= KEPT
        best = best_removal(points)
        if not kept.any():
            assert np.isnan(best)
            assert np.isnan(best_point(points, strengths)).all()
        else:
            met["best"] += 1
            assert best == pytest.approx(negative[kept].max(), abs=1e-3)
            strength, *shares = best_point(points, strengths)
            assert shares[1] == pytest.approx(best)
            near = rows[np.abs(np.log(at) - np.log(strength)).argmin()]
            np.testing.assert_allclose(shares, near, atol=2e-3)

        for removal in (0.5, 0.7):
            found = at_removal(points, strengths, removal)
            if points[0, 1] >= removal or not (negative >= removal).any():
                assert np.isnan(found).all()
                continue
            met["removal"] += 1
            first = int(np.argmax(negative >= removal))
            assert found[0] == pytest.approx(at[first], rel=2e-3)
            np.testing.assert_allclose(found[1:], rows[first], atol=2e-3)
            assert found[2] == pytest.approx(removal)

        usable = (positive[:-1] >= KEPT) & (negative[:-1] >= REMOVED)
        octaves = np.diff(np.log2(at))[usable].sum()
        assert usable_octaves(points, strengths) == pytest.approx(octaves, abs=2e-3)
        low, high = usable_range(points, strengths)
        if usable.any():
            met["usable"] += 1
            assert low == pytest.approx(at[:-1][usable].min(), rel=2e-3)
            assert high == pytest.approx(at[:-1][usable].max(), rel=2e-3)

        floors = np.linspace(KEPT, 1, 501)
        heights = [negative[positive >= floor].max(initial=0.0) for floor in floors]
        assert area(points) == pytest.approx(np.mean(heights), abs=0.02)
    assert met["best"] > 5
    assert met["removal"] > 5


def test_a_usable_stretch() -> None:
    points = np.array([[1.0, 0.1, 1.0], [1.0, 0.9, 1.0], [0.8, 0.9, 1.0]])
    strengths = np.array([1.0, 4.0, 16.0])
    # Usable from the middle of the first piece to the middle of the second, each of two octaves.
    assert usable_range(points, strengths) == pytest.approx((2.0, 8.0))
    assert usable_octaves(points, strengths) == pytest.approx(2.0)
    assert best_removal(points) == pytest.approx(0.9)


def test_two_usable_stretches_are_added_up() -> None:
    kept = [1.0, 1.0, 0.7, 1.0, 1.0]
    points = np.array([[p, 0.9, 1.0] for p in kept])
    strengths = 2.0 ** np.arange(5)
    assert usable_octaves(points, strengths) == pytest.approx(1 + 1 / 3 + 1 / 3 + 1)
    assert usable_range(points, strengths) == pytest.approx((1.0, 16.0))


def test_area_of_a_plain_strip() -> None:
    """0.6 removed up to positive 0.95, nothing beyond: half of the strip at 0.6."""
    assert area(np.array([[0.95, 0.6, 1.0], [0.5, 0.9, 1.0]])) == pytest.approx(0.5 * 0.6, abs=0.05)
    assert area(np.array([[0.5, 0.6, 1.0]])) == 0.0


def test_a_curve_that_begins_beyond_a_removal_does_not_have_it() -> None:
    """Where it first came to it lies before its weakest strength; that it comes back to it is no answer."""
    points = np.array([[0.8, 0.6, 1.0], [0.9, 0.4, 1.0], [0.5, 0.9, 1.0]])
    assert np.isnan(at_removal(points, np.array([1.0, 2.0, 4.0]), 0.5)).all()


def test_one_point_is_a_curve() -> None:
    points, strengths = np.array([[0.95, 0.6, 0.7]]), np.array([2.0])
    assert best_removal(points) == 0.6
    np.testing.assert_allclose(best_point(points, strengths), [2.0, 0.95, 0.6, 0.7])
    assert np.isnan(at_removal(points, strengths, 0.5)).all()
    assert usable_octaves(points, strengths) == 0.0
    assert np.isnan(usable_range(points, strengths)).all()


def test_many_curves_at_once_are_read_as_one_by_one(seed: int) -> None:
    generator = np.random.default_rng(seed)
    curves = np.stack([some_curve(np.random.default_rng(seed))[0] for _ in range(4)])
    curves = (curves + generator.normal(0, 0.1, curves.shape)).clip(0, 1)
    strengths = some_curve(np.random.default_rng(seed))[1]
    for read in (
        best_removal,
        area,
        lambda points: at_removal(points, strengths, 0.5),
        lambda points: usable_octaves(points, strengths),
    ):
        np.testing.assert_allclose(read(curves), np.stack([read(curve) for curve in curves]))
