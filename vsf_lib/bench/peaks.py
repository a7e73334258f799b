"""Does a map's peak lie on a part: cells, masks and rates. Arithmetic only; knows no model and no picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Hits:
    """Which cells `[..., rows, columns]` are on a part, which peaks `[n]` are, or how often one is."""

    overlaps: np.ndarray
    """The cell's area and the part have a pixel in common."""
    centred: np.ndarray
    """The part covers the cell's centre, which is stricter."""


def cells_on(masks: np.ndarray, rows: int, columns: int) -> Hits:
    """The cells that lie on masks bool `[..., h, w]`, whose sides are multiples of `rows` and `columns`.

    Where a cell's side is even its centre is a point between pixels: two of those four must be covered.
    """
    *before, height, width = masks.shape
    down, across = height // rows, width // columns
    cells = masks.reshape(*before, rows, down, columns, across)
    middle = cells[..., _middle(down), :, _middle(across)]
    return Hits(np.asarray(cells.any((-3, -1))), np.asarray(middle.mean((-3, -1)) >= 0.5))


def _middle(side: int) -> slice:
    return slice((side - 1) // 2, side // 2 + 1)


def peak_hits(maps: np.ndarray, on: Hits) -> Hits:
    """Whether the largest cell of each map `[n, rows, columns]` is on its part, bool `[n]`."""
    peaks = maps.reshape(len(maps), -1).argmax(1)
    return Hits(
        *(cells.reshape(len(maps), -1)[range(len(maps)), peaks] for cells in (on.overlaps, on.centred))
    )


def chances(on: Hits, among: np.ndarray) -> Hits:
    """How often a random one of the cells `among`, bool `[n, rows, columns]`, is on the part, `[n]`."""
    count = np.maximum(among.sum((1, 2)), 1)
    return Hits(*((cells & among).sum((1, 2)) / count for cells in (on.overlaps, on.centred)))
