"""Heat maps: from shares per token to pixels, against slow references in float64, and what a sheet shows."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from vsf_lib.heatmap import (
    INFERNO,
    Scale,
    as_maps,
    colours,
    enlarged,
    heat,
    overlay,
    token_grid,
)
from vsf_lib.heatmap_sheet import MOST_STEPS, Step, draw_sheet, shown_steps


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng()


def lightness(rgb: np.ndarray) -> np.ndarray:
    """CIE L* of sRGB colours 0..255 `[n, 3]`, from the definitions (IEC 61966-2-1, CIE 15)."""
    c = rgb / 255
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    y = linear @ np.array([0.2126, 0.7152, 0.0722])
    return np.where(y > (6 / 29) ** 3, 116 * np.cbrt(y) - 16, y * (29 / 3) ** 3)


def test_equal_steps_are_equal_steps_of_lightness() -> None:
    seen = lightness(colours(np.linspace(0, 1, 256)).astype(float))
    assert seen[0] < 1
    assert seen[-1] > 95
    straight = np.linspace(seen[0], seen[-1], 256)
    assert np.abs(seen - straight).max() < 6, "jet strays by 75, and falls again"
    assert (np.diff(seen) > -0.5).all(), "8 bits a channel round"


def test_colours_lie_between_the_tables(rng: np.random.Generator) -> None:
    at = rng.random((5, 7))
    knots = np.linspace(0, 1, len(INFERNO))
    expected = np.stack([np.interp(at, knots, INFERNO[:, c]) for c in range(3)], -1)
    assert np.abs(colours(at) - expected).max() <= 0.5 + 1e-9
    assert (colours(np.array([-1.0, 0.0])) == INFERNO[0]).all()
    assert (colours(np.array([1.0, 2.0])) == INFERNO[-1]).all()


def test_tokens_are_squares_of_the_picture(rng: np.random.Generator) -> None:
    for _ in range(50):
        rows, columns, side = (int(n) for n in rng.integers(1, 40, 3))
        assert token_grid(rows * columns, columns * side, rows * side) == (rows, columns)
    assert token_grid(4096, 1024, 1024) == (64, 64)
    for tokens, width, height in ((0, 64, 64), (63, 64, 64), (64, 64, 72), (2, 3, 3), (5000, 64, 64)):
        with pytest.raises(ValueError, match=f"{tokens} tokens"):
            token_grid(tokens, width, height)


def test_tokens_run_along_the_rows(rng: np.random.Generator) -> None:
    share = rng.random((2, 3, 24))
    maps = as_maps(share, 48, 32)
    assert maps.shape == (2, 3, 4, 6)
    for token in range(24):
        assert (maps[..., token // 6, token % 6] == share[..., token]).all()


def bicubic(values: np.ndarray, length: int) -> np.ndarray:
    """Along the first axis to `length`, Keys' kernel with a = -0.5, cells as areas, edges renormalised."""

    def kernel(t: float) -> float:
        t = abs(t)
        if t < 1:
            return 1.5 * t**3 - 2.5 * t**2 + 1
        return -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2 if t < 2 else 0.0

    rows = []
    for i in range(length):
        centre = (i + 0.5) * len(values) / length
        weights = np.array([kernel(j + 0.5 - centre) for j in range(len(values))])
        rows.append(np.tensordot(weights / weights.sum(), values, 1))
    return np.stack(rows)


def test_enlarging_is_bicubic_within_the_maps_ends(rng: np.random.Generator) -> None:
    shares = rng.random((5, 8)) ** 3
    expected = bicubic(bicubic(shares, 40).T, 96).T
    assert (expected.min(), expected.max()) != (shares.min(), shares.max())
    got = enlarged(shares, 96, 40)
    assert got.shape == (40, 96)
    assert np.abs(got - expected.clip(shares.min(), shares.max())).max() < 1e-6


def test_scale_runs_from_the_least_to_the_most(rng: np.random.Generator) -> None:
    shares = rng.random((4, 6)) * 0.03 + 0.002
    scale = Scale.of(shares)
    position = scale.position(shares)
    assert (position.min(), position.max()) == (0, 1)
    assert np.allclose(position * (scale.high - scale.low) + scale.low, shares, atol=1e-12)
    assert (Scale(0.1, 0.1).position(np.array([0.1, 0.1])) == 0).all()
    assert str(Scale(0.00123456, 0.5)) == "0.00123 to 0.5"


def test_overlay_is_the_grey_picture_under_the_colours(rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 256, (40, 24, 3)).astype(np.uint8)
    shares = rng.random((5, 3))
    scale = Scale.of(shares)
    got = np.asarray(overlay(Image.fromarray(pixels), shares, scale)).astype(float)
    grey = pixels @ np.array([0.299, 0.587, 0.114])
    expected = 0.35 * grey[..., None] + 0.65 * np.asarray(heat(shares, scale, 24, 40)).astype(float)
    assert got.shape == (40, 24, 3)
    assert np.abs(got - expected).max() <= 1.5


def test_a_level_map_is_drawn_too() -> None:
    shares = np.full((4, 4), 0.25)
    assert (np.asarray(heat(shares, Scale.of(shares), 8, 8)) == INFERNO[0]).all()


def test_long_strips_are_thinned_evenly() -> None:
    assert shown_steps(8) == tuple(range(8))
    assert shown_steps(MOST_STEPS) == tuple(range(MOST_STEPS))
    many = shown_steps(1000)
    assert (len(many), many[0], many[-1]) == (MOST_STEPS, 0, 999)
    assert len({b - a for a, b in pairwise(many)}) <= 2


# Sheets


def find(sheet: Image.Image, tile: np.ndarray) -> list[tuple[int, int]]:
    """Left and top of every place where `tile` stands in the sheet, pixel by pixel."""
    pixels = np.asarray(sheet).astype(int)
    height, width = tile.shape[:2]
    row = tile[0].astype(int)
    corners = [
        (y, x)
        for y, x in np.argwhere((pixels == row[0]).all(2))
        if np.array_equal(pixels[y, x : x + width], row)
    ]
    return [
        (int(x), int(y))
        for y, x in corners
        if np.array_equal(pixels[y : y + height, x : x + width], tile.astype(int))
    ]


def picture(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    return Image.fromarray(rng.integers(0, 256, (height, width, 3)).astype(np.uint8))


def test_sheet_shows_every_picture_under_one_map(rng: np.random.Generator) -> None:
    shares = rng.random((4, 8))
    pictures = [("without", picture(rng, 448, 224)), ("with", picture(rng, 448, 224))]
    sheet = draw_sheet("not wheels", shares, pictures)
    places = [find(sheet, np.asarray(overlay(p, shares, Scale.of(shares)))) for _, p in pictures]
    ((left, top),), ((right, level),) = places
    assert level == top
    assert right >= left + 448


def test_strip_is_one_scale_and_says_which_steps_were_not_guided(rng: np.random.Generator) -> None:
    maps = [rng.random((8, 8)) * 0.2, rng.random((8, 8)) * 0.2 + 0.1]
    pictures = [picture(rng, 128, 128) for _ in range(5)]
    guided = {1: maps[0], 3: maps[1]}
    steps = [Step(i, 1 - i / 5, p, guided.get(i)) for i, p in enumerate(pictures)]
    sheet = draw_sheet("x", np.mean(maps, axis=0), [("with", picture(rng, 64, 64))], steps)
    places = [find(sheet, np.asarray(p)) for p in pictures]
    assert all(len(place) == 1 for place in places)
    lefts, tops = zip(*(place[0] for place in places), strict=True)
    assert lefts[4] == lefts[0], "a second row"
    assert tops[:4] == (tops[0],) * 4
    assert tops[4] > tops[0]
    common = Scale.of(np.stack(maps))
    pixels = np.asarray(sheet)
    for number, (left, top) in enumerate(zip(lefts, tops, strict=True)):
        beside = pixels[top : top + 128, left + 128 : left + 256]
        if number in guided:
            assert np.array_equal(beside, np.asarray(heat(guided[number], common, 128, 128)))
        else:
            assert (beside == beside[0, 0]).all(2).mean() > 0.9
            assert beside[0, 0, 0] == beside[0, 0, 1] == beside[0, 0, 2]


def test_any_title_fits(rng: np.random.Generator) -> None:
    shares = rng.random((2, 1))
    for title in ("", "r\u00e4der " * 200, "\u8f6e\u5b50 \U0001f6de\nsecond line"):
        sheet = draw_sheet(title, shares, [("with", picture(rng, 16, 32))])
        assert (np.asarray(sheet)[:, -4:] == 255).all(), "nothing runs over the margin"
    one, other = (
        draw_sheet(t, shares, [("with", Image.new("RGB", (64, 32)))]) for t in ("r\u00e4der", "rader")
    )
    assert np.array_equal(np.asarray(one), np.asarray(other)), "the font has no accents"
