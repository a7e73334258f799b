"""How far a share may be off because other pairs could have been asked: the bootstrap over pairs.

Owns resampling and percentiles. Knows nothing of what the numbers are.
"""

from __future__ import annotations

import numpy as np

LEVEL = 0.95
DRAWS = 1000
SEED = 2026
BANDS = f"{LEVEL:.0%} percentile bootstrap over pairs, {DRAWS} resamples, seed {SEED}"
"""What a band is, in words."""


class Bootstrap:
    """The same resamples of pairs for every number of a benchmark, so that differences keep their pairing."""

    def __init__(self, pairs: int, draws: int = DRAWS, seed: int = SEED) -> None:
        """Each of `draws` resamples takes `pairs` pairs with replacement."""
        random = np.random.default_rng(seed)
        self._weights = random.multinomial(pairs, np.full(pairs, 1 / pairs), size=draws) / pairs

    def means(self, values: np.ndarray) -> np.ndarray:
        """Of values `[..., pairs, k]` the mean over each resample's pairs: `[draws, ..., k]`."""
        return np.tensordot(self._weights, values, axes=(1, values.ndim - 2))


def band(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The percentile interval of LEVEL over the first axis; NaN where more than half of it is NaN.

    A number that a resample does not have (an alpha that its curve never reaches) is NaN there.
    """
    rest = (1 - LEVEL) / 2
    known = np.isfinite(samples).mean(axis=0) >= 0.5
    filled = np.where(known, samples, 0.0)
    low, high = np.nanquantile(filled, (rest, 1 - rest), axis=0)
    return np.where(known, low, np.nan), np.where(known, high, np.nan)
