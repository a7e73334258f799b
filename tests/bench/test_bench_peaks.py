"""Peaks and cells against plain loops, on random masks and maps."""

from __future__ import annotations

import numpy as np
import pytest

from vsf_lib.bench.peaks import Hits, cells_on, chances, peak_hits


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng()


@pytest.mark.parametrize(("rows", "columns", "down", "across"), [(8, 8, 8, 8), (3, 5, 4, 6), (4, 2, 3, 1)])
def test_cells_on_a_mask(rng: np.random.Generator, rows: int, columns: int, down: int, across: int) -> None:
    masks = rng.random((6, rows * down, columns * across)) < 0.03
    masks[0] = False
    masks[1] = True
    on = cells_on(masks, rows, columns)
    assert on.overlaps.shape == on.centred.shape == (6, rows, columns)
    for n in range(6):
        for row in range(rows):
            for column in range(columns):
                cell = masks[n, row * down : (row + 1) * down, column * across : (column + 1) * across]
                assert on.overlaps[n, row, column] == cell.any()
                # The pixels that touch the centre, whose coordinates are (down / 2, across / 2).
                touching = [
                    cell[y, x]
                    for y in range(down)
                    for x in range(across)
                    if y <= down / 2 <= y + 1 and x <= across / 2 <= x + 1
                ]
                assert on.centred[n, row, column] == (np.mean(touching) >= 0.5)
    assert on.overlaps[on.centred].all(), "the stricter one"


def test_the_peak_of_each_map_meets_its_own_mask(rng: np.random.Generator) -> None:
    maps, cells = rng.random((20, 4, 6)), rng.random((2, 20, 4, 6)) < 0.3
    hits = peak_hits(maps, Hits(*cells))
    for n in range(20):
        row, column = max(((r, c) for r in range(4) for c in range(6)), key=lambda at: maps[n][at])
        assert hits.overlaps[n] == cells[0, n, row, column]
        assert hits.centred[n] == cells[1, n, row, column]


def test_chance_is_what_random_cells_come_to(rng: np.random.Generator) -> None:
    cells, among = rng.random((2, 12, 3, 3)) < 0.4, rng.random((12, 3, 3)) < 0.7
    among[0] = False
    got = chances(Hits(*cells), among)
    for n in range(12):
        for which, shares in zip(cells, (got.overlaps, got.centred), strict=True):
            picked = [which[n, r, c] for r in range(3) for c in range(3) if among[n, r, c]]
            assert shares[n] == pytest.approx(np.mean(picked) if picked else 0)
    everywhere = np.ones((12, 3, 3), bool)
    assert np.allclose(chances(Hits(*cells), everywhere).overlaps, cells[0].mean((1, 2)))
