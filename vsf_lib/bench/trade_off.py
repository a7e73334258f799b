"""What a method gives up for what it removes, read off its curve over strength.

Owns the arithmetic on curves, as broken lines between the strengths that were drawn: shares are linear in
between, strengths geometric, since they are swept so. Most functions take points `[..., n, 3]` (positive,
negative, quality) in the order of `strengths` `[n]`, so that all resamples of a bootstrap are read at once.
They give NaN where a curve does not have what is asked for. Knows no method and no model.
"""

from __future__ import annotations

import numpy as np

from vsf_lib.bench.drawing import NEGATIVE, POSITIVE

KEPT = 0.9
"""The positive share below which removal is not worth having."""
REMOVED = 0.5
"""The negative share from which on a strength counts as usable."""
_FLOORS = np.linspace(KEPT, 1, 101)


def best_removal(points: np.ndarray, floor: float = KEPT) -> np.ndarray:
    """`[...]`: the largest negative share anywhere on the curve where the positive one is `floor` or more."""
    positive, negative = points[..., POSITIVE], points[..., NEGATIVE]
    at_points = np.where(positive >= floor, negative, -np.inf).max(-1)
    between = _where(positive, floor)
    crossed = negative[..., :-1] + between * np.diff(negative, axis=-1)
    # The first column keeps a curve of one point from being an empty list.
    best = np.concatenate([at_points[..., None], np.where(np.isnan(crossed), -np.inf, crossed)], -1).max(-1)
    return np.where(np.isfinite(best), best, np.nan)


def best_point(points: np.ndarray, strengths: np.ndarray, floor: float = KEPT) -> np.ndarray:
    """`[4]`: strength, positive, negative and quality at the `best_removal` of one curve `[n, 3]`."""
    rows = np.column_stack([np.log(strengths), points])
    found = [row for row in rows if row[1 + POSITIVE] >= floor]
    for i, t in enumerate(_where(points[:, POSITIVE], floor)):
        if not np.isnan(t):
            found.append(rows[i] + t * (rows[i + 1] - rows[i]))
    if not found:
        return np.full(4, np.nan)
    best = max(found, key=lambda row: row[1 + NEGATIVE])
    return np.concatenate([np.exp(best[:1]), best[1:]])


def at_removal(points: np.ndarray, strengths: np.ndarray, removal: float) -> np.ndarray:
    """`[..., 4]`: strength, positive, negative and quality where the negative share first rises to `removal`.

    NaN for a curve that never gets there, or that is beyond it at its weakest: nothing lies before that.
    """
    if len(strengths) < 2:
        return np.full((*points.shape[:-2], 4), np.nan)
    negative = points[..., NEGATIVE]
    rises = (negative[..., :-1] < removal) & (negative[..., 1:] >= removal)
    first = np.argmax(rises, -1)[..., None]
    known = rises.any(-1) & (negative[..., 0] < removal)
    t = np.take_along_axis(_where(negative, removal), first, -1)
    logs = np.log(strengths)
    rows = np.concatenate([np.broadcast_to(logs[:, None], (*points.shape[:-1], 1)), points], -1)
    low = np.take_along_axis(rows, first[..., None], -2)[..., 0, :]
    high = np.take_along_axis(rows, first[..., None] + 1, -2)[..., 0, :]
    found = low + t * (high - low)
    found[..., 0] = np.exp(found[..., 0])
    return np.where(known[..., None], found, np.nan)


def usable_octaves(points: np.ndarray, strengths: np.ndarray) -> np.ndarray:
    """`[...]`: how many doublings of strength keep positive >= KEPT and negative >= REMOVED."""
    low, high = _usable(points)
    return (np.clip(high - low, 0, None) * np.diff(np.log2(strengths))).sum(-1)


def usable_range(points: np.ndarray, strengths: np.ndarray) -> tuple[float, float]:
    """The smallest and the largest usable strength of one curve `[n, 3]`; NaN where none is."""
    logs = np.log(strengths)
    low, high = _usable(points)
    which = high > low
    if not which.any():
        return float("nan"), float("nan")
    ends = np.exp(logs[:-1] + np.stack([low, high]) * np.diff(logs))[:, which]
    return float(ends[0].min()), float(ends[1].max())


def area(points: np.ndarray) -> np.ndarray:
    """`[...]`: the area under best negative against positive from KEPT to 1, as a share of the whole strip.

    It is the mean of `best_removal` over all floors in the strip, 0 where the curve does not reach one.
    """
    return np.stack([np.nan_to_num(best_removal(points, floor)) for floor in _FLOORS], -1).mean(-1)


def _where(values: np.ndarray, level: float) -> np.ndarray:
    """`[..., n - 1]`: where in each piece `values` `[..., n]` cross `level`, from 0 to 1; NaN if nowhere."""
    a, b = values[..., :-1], values[..., 1:]
    crosses = (a >= level) != (b >= level)
    return np.where(crosses, (level - a) / np.where(crosses, b - a, 1), np.nan)


def _usable(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each piece from where to where, 0 to 1, it is usable; nowhere if the end is not above the start."""
    low, high = np.zeros(points[..., :-1, 0].shape), np.ones(points[..., :-1, 0].shape)
    for column, level in ((POSITIVE, KEPT), (NEGATIVE, REMOVED)):
        a, b = points[..., :-1, column], points[..., 1:, column]
        t = _where(points[..., column], level)
        low = np.where((a < level) & (b >= level), np.maximum(low, t), low)
        high = np.where((a >= level) & (b < level), np.minimum(high, t), high)
        high = np.where((a < level) & (b < level), 0, high)
    return low, high
