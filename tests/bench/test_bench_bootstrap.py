"""The bootstrap over pairs against resampling by hand."""

from __future__ import annotations

import random

import numpy as np
import pytest

from vsf_lib.bench.bootstrap import DRAWS, Bootstrap, band


@pytest.fixture
def seed() -> int:
    """Another one on every run; a failure shows it."""
    return random.SystemRandom().randrange(2**31)


def test_every_resample_takes_as_many_pairs_as_there_are(seed: int) -> None:
    counts = Bootstrap(13, draws=50, seed=seed).means(np.eye(13)) * 13
    assert counts.shape == (50, 13)
    np.testing.assert_allclose(counts, counts.round(), atol=1e-9)
    np.testing.assert_allclose(counts.sum(1), 13)
    assert len(np.unique(counts.round(), axis=0)) > 40


def test_means_are_those_of_the_pairs_that_were_taken(seed: int) -> None:
    values = np.random.default_rng(seed).random((4, 13, 3))
    bootstrap = Bootstrap(13, draws=7, seed=seed)
    got = bootstrap.means(values)
    assert got.shape == (7, 4, 3)
    for draw, counts in enumerate((bootstrap.means(np.eye(13)) * 13).round().astype(int)):
        taken = [pair for pair, count in enumerate(counts) for _ in range(count)]
        for point in range(4):
            np.testing.assert_allclose(got[draw, point], np.mean([values[point, p] for p in taken], axis=0))


def test_the_band_is_what_resampling_by_hand_gives(seed: int) -> None:
    """Pair by pair with replacement, sorted, and cut off at either end."""
    generator = random.Random(seed)
    pairs = [generator.random() for _ in range(60)]
    means = sorted(sum(generator.choices(pairs, k=60)) / 60 for _ in range(20_000))
    low, high = band(Bootstrap(60, draws=20_000, seed=seed).means(np.array(pairs)[:, None]))
    # The mean's own spread is 0.037, a 90 % band would be 0.012 narrower at either end.
    assert low[0] == pytest.approx(means[int(0.025 * 20_000)], abs=0.005)
    assert high[0] == pytest.approx(means[int(0.975 * 20_000)], abs=0.005)


def test_it_is_the_same_on_every_run() -> None:
    values = np.random.default_rng(3).random((20, 3))
    assert np.array_equal(Bootstrap(20).means(values), Bootstrap(20).means(values))
    assert len(Bootstrap(20).means(values)) == DRAWS
    assert not np.array_equal(Bootstrap(20).means(values), Bootstrap(20, seed=1).means(values))


def test_pairs_of_one_kind_leave_no_doubt() -> None:
    low, high = band(Bootstrap(9).means(np.ones((9, 2))))
    np.testing.assert_allclose([low, high], 1.0)


def test_what_few_resamples_have_has_no_band() -> None:
    samples = np.array([[1.0, np.nan, 1.0], [2.0, np.nan, np.nan], [3.0, 5.0, 3.0], [4.0, np.nan, 5.0]])
    low, high = band(samples)
    assert np.isnan([low[1], high[1]]).all()
    assert low[2] == pytest.approx(np.quantile([1.0, 3.0, 5.0], 0.025))
    assert high[0] == pytest.approx(np.quantile([1.0, 2.0, 3.0, 4.0], 0.975))
