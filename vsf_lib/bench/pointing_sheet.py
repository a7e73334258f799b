"""The contact sheet of `bench scenes --pointing`: pictures, the parts found, maps with their peaks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from vsf_lib.heatmap import Scale, overlay

_COLUMNS = 12
_TILE = 160
_ON, _BESIDE = (0, 255, 120), (255, 255, 255)


@dataclass(frozen=True)
class Sheet:
    """What `write_sheet` is given."""

    rows: list[tuple[str, np.ndarray]]
    titles: list[str]


def make_sheet(
    titles: Sequence[str],
    pictures: np.ndarray,
    parts: np.ndarray,
    maps: Mapping[str, tuple[np.ndarray, np.ndarray]],
) -> Sheet:
    """The first of `pictures` uint8 `[n, h, w, 3]` with `parts` bool `[n, h, w]`, side by side.

    `maps` are `[n, rows, columns]` each, with bool `[n]`: whether the peak is on the part.
    """
    first = range(min(_COLUMNS, len(pictures)))
    tiles = [Image.fromarray(pictures[k]).resize((_TILE, _TILE), Image.Resampling.NEAREST) for k in first]
    rows = [("unguided", tiles), ("part found", [_found(tiles[k], parts[k]) for k in first])]
    for name, (shares, hits) in maps.items():
        rows.append((name.replace(", ", "\n"), [_marked(tiles[k], shares[k], bool(hits[k])) for k in first]))
    return Sheet(
        [(name, np.stack([np.asarray(tile) for tile in row])) for name, row in rows],
        list(titles[: len(first)]),
    )


def _found(picture: Image.Image, part: np.ndarray) -> Image.Image:
    """`picture` in grey but for the part."""
    mask = Image.fromarray(part).resize(picture.size, Image.Resampling.NEAREST)
    return Image.composite(picture, picture.convert("L").convert("RGB"), mask)


def _marked(picture: Image.Image, shares: np.ndarray, hit: bool) -> Image.Image:
    """`picture` under its map, with a frame around the peak: green on the part, white beside it."""
    shown = overlay(picture, shares, Scale.of(shares))
    row, column = np.unravel_index(shares.argmax(), shares.shape)
    height, width = (side // cells for side, cells in zip(shown.size[::-1], shares.shape, strict=True))
    left, top = int(column) * width, int(row) * height
    frame = (left, top, left + width - 1, top + height - 1)
    ImageDraw.Draw(shown).rectangle(frame, outline=_ON if hit else _BESIDE, width=2)
    return shown
