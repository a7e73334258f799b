"""The pictures that show heat maps to people: overlays with their scale, and maps step by step.

Owns the layout and its words. Knows no model and no file; the maps and colours are heatmap.py's.
"""

from __future__ import annotations

import math
import unicodedata
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vsf_lib.heatmap import Scale, colours, heat, overlay

MOST_STEPS = 64
"""Steps that a strip shows. Of more it shows so many, evenly spread."""

_PANEL, _TILE, _OVERLAY = 448, 128, 256
"""Pixels of the longer side of an overlay, of a step's picture, and of an overlay that is one step's."""
_COLUMNS = 4
"""Steps in a row of the strip."""
_GAP, _LINE, _BAR = 12, 20, 10
_PAPER, _INK, _FAINT, _EMPTY = (255, 255, 255), (20, 20, 20), (110, 110, 110), (225, 225, 225)


@dataclass(frozen=True)
class Step:
    """One step of a strip."""

    number: int
    """From 0."""
    sigma: float
    picture: Image.Image
    """What the model expected as the result."""
    shares: np.ndarray | None
    """`[rows, columns]`; None where the step was not guided."""


def shown_steps(total: int) -> tuple[int, ...]:
    """Which of `total` steps, from 0, a strip shows: all of them, or `MOST_STEPS` with the first and last."""
    if total <= MOST_STEPS:
        return tuple(range(total))
    return tuple(round(at) for at in np.linspace(0, total - 1, MOST_STEPS).tolist())


def draw_sheet(
    title: str,
    shares: np.ndarray,
    pictures: Sequence[tuple[str, Image.Image]],
    steps: Sequence[Step] = (),
) -> Image.Image:
    """The whole picture.

    `shares` `[rows, columns]` is the map that is laid over each of `pictures`, which have names; `steps` make
    the strip, all on one scale.
    """
    scale = Scale.of(shares)
    panel = _fitted(pictures[0][1].size, _PANEL)
    tile = _fitted(pictures[0][1].size, _TILE)
    guided = [step.shares for step in steps if step.shares is not None]
    columns = min(_COLUMNS, len(steps))
    width = _GAP + max(
        len(pictures) * (panel[0] + _GAP), columns * (2 * tile[0] + _GAP), _PANEL // 2 if steps else 0
    )
    overlays = 2 * _LINE + panel[1] + _LINE + _GAP
    rows = -(-len(steps) // _COLUMNS)
    strip = rows * (tile[1] + _LINE + _GAP) + (2 * _LINE if guided else 0)
    sheet = Image.new("RGB", (width, _GAP + overlays + strip), _PAPER)
    pen = _Pen(sheet)

    pen.text((_GAP, _GAP), title, width - 2 * _GAP)
    pen.scale((_GAP, _GAP + _LINE), "mean", scale, width - 2 * _GAP)
    top = _GAP + 2 * _LINE
    for number, (name, picture) in enumerate(pictures):
        left = _GAP + number * (panel[0] + _GAP)
        sheet.paste(overlay(_resized(picture, panel), shares, scale), (left, top))
        pen.text((left, top + panel[1]), name, panel[0], _FAINT)
    if not guided:
        return sheet
    top += panel[1] + _LINE + _GAP
    common = Scale.of(np.stack(guided))
    pen.scale((_GAP, top), "steps", common, width - 2 * _GAP)
    top += 2 * _LINE
    for number, step in enumerate(steps):
        row, column = divmod(number, _COLUMNS)
        left = _GAP + column * (2 * tile[0] + _GAP)
        below = top + row * (tile[1] + _LINE + _GAP)
        sheet.paste(_resized(step.picture, tile), (left, below))
        at = (left + tile[0], below)
        if step.shares is None:
            sheet.paste(_EMPTY, (*at, at[0] + tile[0], at[1] + tile[1]))
            pen.text((at[0] + 4, below + tile[1] // 2 - _LINE // 2), "not guided", tile[0] - 4, _FAINT)
        else:
            sheet.paste(heat(step.shares, common, *tile), at)
        pen.text((left, below + tile[1]), f"step {step.number + 1}, sigma {step.sigma:.3f}", 2 * tile[0])
    return sheet


def overlays_of(sheet: Image.Image, size: tuple[int, int], count: int) -> list[Image.Image]:
    """The overlays of a sheet that `draw_sheet` has made of `count` pictures of that size, cut out of it."""
    width, height = _fitted(size, _PANEL)
    lefts = [_GAP + number * (width + _GAP) for number in range(count)]
    top = _GAP + 2 * _LINE
    return [sheet.crop((left, top, left + width, top + height)) for left in lefts]


def draw_steps(
    title: str,
    picture: Image.Image,
    steps: Sequence[tuple[int, np.ndarray | None]],
    area: tuple[float, float, float, float] | None = None,
) -> tuple[Image.Image, Scale]:
    """The result under the map of each step, all on one scale, and that scale.

    `steps` are numbers from 0 with maps `[rows, columns]`, None where one was not guided; at least one was.
    `area` as in `heatmap.overlay`.
    """
    scale = Scale.of(np.stack([shares for _, shares in steps if shares is not None]))
    tile = _fitted(picture.size, _OVERLAY)
    small = _resized(picture, tile)
    if area is not None:
        across, down = tile[0] / picture.width, tile[1] / picture.height
        area = (area[0] * across, area[1] * down, area[2] * across, area[3] * down)
    columns = min(_COLUMNS, len(steps))
    rows = -(-len(steps) // columns)
    width = _GAP + max(columns * (tile[0] + _GAP), _PANEL // 2)
    height = 2 * _GAP + 2 * _LINE + rows * (tile[1] + _LINE + _GAP)
    sheet = Image.new("RGB", (width, height), _PAPER)
    pen = _Pen(sheet)
    pen.text((_GAP, _GAP), title, width - 2 * _GAP)
    pen.scale((_GAP, _GAP + _LINE), "share", scale, width - 2 * _GAP)
    for place, (number, shares) in enumerate(steps):
        row, column = divmod(place, columns)
        left = _GAP + column * (tile[0] + _GAP)
        top = 2 * _GAP + 2 * _LINE + row * (tile[1] + _LINE + _GAP)
        if shares is None:
            sheet.paste(small.convert("L").convert("RGB"), (left, top))
            name = f"step {number + 1}, not guided"
        else:
            sheet.paste(overlay(small, shares, scale, area), (left, top))
            name = f"step {number + 1}"
        pen.text((left, top + tile[1]), name, tile[0], _FAINT)
    return sheet, scale


class _Pen:
    """Writes on a sheet in Pillow's own font."""

    def __init__(self, sheet: Image.Image) -> None:
        self._sheet = sheet
        self._draw = ImageDraw.Draw(sheet)
        try:
            self._font = ImageFont.load_default(13)
        except TypeError:  # before Pillow 10.1, whose own font has one size
            self._font = ImageFont.load_default()

    def text(self, at: tuple[int, int], text: str, width: int, ink: tuple[int, int, int] = _INK) -> None:
        """One line, cut to `width` pixels."""
        line = _plain(" ".join(text.split()))
        if self._length(line) > width:
            kept = bisect_right(range(len(line)), width, key=lambda n: self._length(f"{line[:n]}...")) - 1
            line = f"{line[: max(kept, 0)]}..."
        self._draw.text((at[0], at[1] + 2), line, fill=ink, font=self._font)

    def _length(self, line: str) -> int:
        return math.ceil(self._draw.textlength(line, font=self._font))

    def scale(self, at: tuple[int, int], what: str, scale: Scale, width: int) -> None:
        """The colours from the scale's low end to its high one, between their shares."""
        low, high = f"{what}: {scale.low:.3g}", f"{scale.high:.3g}"
        left = at[0] + self._length(low) + 8
        room = at[0] + width - left - 8 - self._length(high)
        self.text(at, low, width)
        bar = max(1, min(_PANEL // 2, room))
        ramp = colours(np.tile(np.linspace(0, 1, bar), (_BAR, 1)))
        self._sheet.paste(Image.fromarray(ramp), (left, at[1] + (_LINE - _BAR) // 2))
        self.text((left + bar + 8, at[1]), high, width)


def _plain(text: str) -> str:
    """`text` in the letters that Pillow's own font has: no accents, and a question mark for what is left."""
    letters = (sign for sign in unicodedata.normalize("NFKD", text) if not unicodedata.combining(sign))
    return "".join(letters).encode("ascii", "replace").decode("ascii")


def _fitted(size: tuple[int, int], longer: int) -> tuple[int, int]:
    """`size` with its longer side `longer` pixels."""
    width, height = (max(1, round(side * longer / max(size))) for side in size)
    return width, height


def _resized(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Small pictures stay as they are, pixel by pixel; large ones lose no thin line."""
    grows = size[0] >= picture.width
    return picture.resize(size, Image.Resampling.NEAREST if grows else Image.Resampling.LANCZOS)
