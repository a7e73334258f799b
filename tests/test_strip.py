"""Strips and films: where each picture stands, its pixels, labels and bars."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vsf_lib.strip import PANEL, TILE, WIDTH, Tile, film, fit, stacked, strip, there_and_back

WHITE = (255, 255, 255)


def picture(number: int, size: tuple[int, int] = (64, 64)) -> Image.Image:
    """A picture that is not like another and has no white, black or red in it."""
    rng = np.random.default_rng(number)
    return Image.fromarray(rng.integers(60, 140, (size[1], size[0], 3), np.uint8))


def places(sheet: np.ndarray, tile: np.ndarray) -> list[tuple[int, int]]:
    """Every (x, y) at which `tile` stands in `sheet`, to the bit."""
    height, width = tile.shape[:2]
    starts = np.argwhere((sheet[: -height + 1 or None, : -width + 1 or None] == tile[0, 0]).all(2))
    return [(int(x), int(y)) for y, x in starts if np.array_equal(sheet[y : y + height, x : x + width], tile)]


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 30), st.sampled_from([(64, 64), (48, 72), (160, 120), (320, 200)]))
def test_every_picture_is_there_once_in_reading_order(count, size):
    tiles = [Tile(picture(number, size), f"alpha {number}") for number in range(count)]
    sheet = strip(tiles)
    assert sheet.width <= WIDTH
    pixels = np.asarray(sheet)
    found = []
    for tile in tiles:
        (place,) = places(pixels, np.asarray(fit(tile.image, TILE)))
        found.append((place[1], place[0]))
    assert found == sorted(found)
    rows = [[x for y, x in found if y == row] for row in sorted({y for y, _ in found})]
    lengths = [len(row) for row in rows]
    assert all(length == lengths[0] for length in lengths[:-1])
    assert lengths[0] - lengths[-1] < len(lengths), "rows are as equal as they can be"


def test_small_pictures_are_enlarged_pixel_by_pixel():
    image = picture(1, (48, 30))
    large = np.asarray(fit(image, TILE))
    assert large.shape == (90, 144, 3), "the least whole number that reaches the smaller measure"
    assert np.array_equal(large, np.asarray(image).repeat(3, 0).repeat(3, 1))


@pytest.mark.parametrize(
    ("size", "fitted"), [((1024, 1024), (320, 320)), ((480, 832), (185, 320)), ((4000, 1), (320, 1))]
)
def test_large_pictures_are_made_smaller(size, fitted):
    assert fit(Image.new("RGB", size), TILE).size == fitted
    assert fit(Image.new("RGB", (200, 300)), TILE).size == (200, 300), "between them nothing changes"


def test_labels_stand_under_their_pictures():
    names = ["without", "alpha 0", "alpha 10.25", ""]
    tiles = [Tile(picture(i), name, plain=i == 0) for i, name in enumerate(names)]
    pixels = np.asarray(strip(tiles)).astype(int)
    for i, name in enumerate(names):
        ((x, y),) = places(pixels, np.asarray(fit(tiles[i].image, TILE)))
        under = pixels[y + 128 :, x : x + 128]
        assert ((under != WHITE).any()) == bool(name)
        if name:
            red = under[..., 0] - under[..., 1:].max(2) > 60
            assert red.any() == (i == 0), "the unguided one is told apart"
            assert (under[..., 0].min() if i else under[..., 1].min()) < 100, "readable"
    between = pixels[:, 8 + 128 : 8 + 128 + 8]
    assert (between == WHITE).all(), "no label runs into the next"


def test_titles_are_wrapped_and_columns_obeyed():
    tiles = [Tile(picture(i), str(i)) for i in range(4)]
    plain, titled = (
        strip(tiles, columns=4),
        strip(tiles, columns=4, title="many words " * 20 + "\nnot: wheels"),
    )
    assert plain.width == titled.width
    extra = titled.height - plain.height
    assert extra > 3 * 12
    assert np.array_equal(np.asarray(titled)[extra + 8 :], np.asarray(plain)[8:])
    assert strip(tiles, columns=1).height > 4 * 128


def test_stacked_pictures():
    one, other = picture(1, (30, 20)), picture(2, (40, 10))
    both = np.asarray(stacked([one, other]))
    assert both.shape == (30, 40, 3)
    assert np.array_equal(both[:20, :30], np.asarray(one))
    assert np.array_equal(both[20:], np.asarray(other))
    assert (both[:20, 30:] == WHITE).all()


@pytest.mark.parametrize("size", [(64, 64), (33, 57), (1024, 768)])
def test_a_film_shows_one_after_the_other_beside_the_still_one(size):
    still = Tile(picture(0, size), "without", plain=True)
    moving = [Tile(picture(i, size), f"alpha {i}") for i in (1, 2, 3)]
    frames = film(still, moving, [0.0, 0.5, 1.0])
    assert frames.dtype == np.uint8
    assert frames.shape[1] % 2 == frames.shape[2] % 2 == 0, "as H.264 needs it"
    left = np.asarray(fit(still.image, PANEL))
    height, width = left.shape[:2]
    for frame, tile in zip(frames, moving, strict=True):
        assert np.array_equal(frame[:height, :width], left)
        assert np.array_equal(frame[:height, width + 8 : 2 * width + 8], np.asarray(fit(tile.image, PANEL)))
        assert (frame[height:, :width] != 255).any(), "the label of the still one"
    assert not np.array_equal(frames[0][height:], frames[1][height:])
    bars = [int((frame[-4, width + 8 : 2 * width + 8] < 60).all(1).sum()) for frame in frames]
    assert bars == [0, round(width / 2), width]


def test_there_and_back_repeats_no_end():
    frames = np.arange(5).reshape(5, 1, 1, 1)
    assert there_and_back(frames).ravel().tolist() == [0, 1, 2, 3, 4, 3, 2, 1]
    assert there_and_back(frames[:2]).ravel().tolist() == [0, 1]
    assert there_and_back(frames[:1]).ravel().tolist() == [0]
