"""Labelled pictures put together: rows of tiles, and the frames of a film beside a picture that stands still.

Owns their measures: small pictures are enlarged, pixel by pixel, and large ones made smaller, so that a strip
can be read on a screen; and what both look like of a sweep. Knows nothing of what the pictures show.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vsf_lib.sweep import WITHOUT, Plan, Sweep

WIDTH = 1600
"""Pixels that a strip's rows are wrapped to."""
TILE = (128, 320)
"""The longer side of a picture in a strip: at least, at most."""
PANEL = (256, 640)
"""The same in a film."""
Font = Callable[[int], Any]
"""Gives Pillow's font of a size."""
_GAP = 8
_PAPER, _INK, _RED, _PALE = (255, 255, 255), (20, 20, 20), (170, 0, 0), (215, 215, 215)


@dataclass(frozen=True)
class Tile:
    """A picture and what is written under it."""

    image: Image.Image
    label: str
    plain: bool = False
    """Whether it is the picture that the others are compared with; its label is red."""


def strip(
    tiles: Sequence[Tile],
    *,
    columns: int | None = None,
    title: str = "",
    letters: int = 0,
    font_of: Font | None = None,
) -> Image.Image:
    """All tiles in their order, in rows that are equally long where they can be, with a `title` above.

    `columns` is how many a row has at most; without it as many as fit into `WIDTH`. `letters` is their size
    in pixels; without it that at which long labels still fit.
    """
    fitted = [(fit(tile.image, TILE), tile) for tile in tiles]
    width, height = (max(side) for side in zip(*(image.size for image, _ in fitted), strict=True))
    font = (font_of or _font)(letters or max(12, max(width, height) // 20))
    most = columns or max(1, (WIDTH - _GAP) // (width + _GAP))
    rows = -(-len(tiles) // most)
    across = -(-len(tiles) // rows) if columns is None else min(columns, len(tiles))
    line = _line(font)
    row, total = height + line + _GAP, across * (width + _GAP) + _GAP
    wrapped = _wrapped(title, font, total - 2 * _GAP)
    top = _GAP + len(wrapped) * line
    sheet = Image.new("RGB", (total, top + rows * row), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for i, words in enumerate(wrapped):
        draw.text((_GAP, _GAP // 2 + i * line), words, _INK, font)
    for i, (image, tile) in enumerate(fitted):
        x, y = _GAP + i % across * (width + _GAP), top + i // across * row
        sheet.paste(image, (x, y))
        draw.text((x, y + height + 1), tile.label, _RED if tile.plain else _INK, font)
    return sheet


def film(
    still: Tile, moving: Sequence[Tile], shares: Sequence[float], *, font_of: Font | None = None
) -> np.ndarray:
    """Frames `[n, h, w, 3]` uint8, h and w even as video needs them: `still` left, one of `moving` right.

    Under the right one stand its label and a bar, filled by the `shares` (0 to 1).
    """
    left = fit(still.image, PANEL)
    width, height = left.size
    font = (font_of or _font)(max(12, max(width, height) // 16))
    line = _line(font)
    bar = max(4, line // 4)
    size = (_even(2 * width + _GAP), _even(height + line + bar + 2))
    frames = np.empty((len(moving), size[1], size[0], 3), np.uint8)
    for frame, tile, share in zip(frames, moving, shares, strict=True):
        picture = Image.new("RGB", size, _PAPER)
        draw = ImageDraw.Draw(picture)
        x, under = width + _GAP, height + line
        picture.paste(left, (0, 0))
        picture.paste(fit(tile.image, PANEL), (x, 0))
        draw.text((2, height + 1), still.label, _RED if still.plain else _INK, font)
        draw.text((x + 2, height + 1), tile.label, _INK, font)
        draw.rectangle((x, under, x + width - 1, under + bar - 1), _PALE)
        if (filled := round(share * width)) > 0:
            draw.rectangle((x, under, x + filled - 1, under + bar - 1), _INK)
        frame[:] = np.asarray(picture)
    return frames


def pair(left: Tile, right: Tile, *, sides: tuple[int, int], font_of: Font | None = None) -> Image.Image:
    """Two tiles side by side with their labels under them, even in width and height as video needs it.

    Their longer sides are brought within `sides`.
    """
    images = [fit(tile.image, sides) for tile in (left, right)]
    width, height = images[0].size
    font = (font_of or _font)(min(24, max(12, max(width, height) // 18)))
    sheet = Image.new("RGB", (_even(2 * width + _GAP), _even(height + _line(font))), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for x, image, tile in zip((0, width + _GAP), images, (left, right), strict=True):
        sheet.paste(image, (x, 0))
        draw.text((x + 2, height + 1), tile.label, _RED if tile.plain else _INK, font)
    return sheet


def there_and_back(frames: np.ndarray) -> np.ndarray:
    """The frames, and then those between the ends backwards: repeated by a player they never jump."""
    return np.concatenate([frames, frames[-2:0:-1]])


def swept_strip(
    sweep: Sweep,
    pictures: Sequence[Image.Image],
    without: Image.Image | None = None,
    *,
    font_of: Font | None = None,
) -> Image.Image:
    """The strip of a sweep: one of `pictures` per value, and first the one `without` guidance, if any."""
    still = [] if without is None else [Tile(without, WITHOUT, plain=True)]
    return strip([*still, *_tiles(sweep, pictures)], font_of=font_of)


def swept_film(
    plan: Plan,
    pictures: Sequence[Image.Image],
    without: Image.Image | None = None,
    *,
    font_of: Font | None = None,
) -> np.ndarray:
    """The frames of its film. The picture `without` guidance stands still in it, else the first of them."""
    values, moving = plan.sweep.values, _tiles(plan.sweep, pictures)
    still = moving[0] if without is None else Tile(without, WITHOUT, plain=True)
    low, high = min(values), max(values)
    shares = [(value - low) / (high - low) if high > low else 1.0 for value in values]
    frames = film(still, moving, shares, font_of=font_of)
    return there_and_back(frames) if plan.loop else frames


def stacked(images: Sequence[Image.Image]) -> Image.Image:
    """Pictures one under the other, from the left."""
    sheet = Image.new(
        "RGB", (max(image.width for image in images), sum(image.height for image in images)), _PAPER
    )
    y = 0
    for image in images:
        sheet.paste(image, (0, y))
        y += image.height
    return sheet


def fit(image: Image.Image, sides: tuple[int, int]) -> Image.Image:
    """`image` with its longer side within `sides`: enlarged by a whole number, every pixel a square, or
    smoothly made smaller."""
    low, high = sides
    longer = max(image.size)
    if longer < low:
        times = -(-low // longer)
        return image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)
    if longer > high:
        width, height = (max(1, round(side * high / longer)) for side in image.size)
        return image.resize((width, height), Image.Resampling.LANCZOS)
    return image


def _tiles(sweep: Sweep, pictures: Sequence[Image.Image]) -> list[Tile]:
    return [Tile(*pair) for pair in zip(pictures, map(sweep.label, sweep.values), strict=True)]


def _font(size: int) -> Any:
    """What is written with, unless a font is given."""
    try:
        return ImageFont.load_default(size)
    except TypeError:  # before Pillow 10.1, which the WebUIs still have: one size for all
        return ImageFont.load_default()


def _line(font: Any) -> int:
    """The height of a line of text."""
    return int(font.getbbox("Ag")[3]) + 5


def _wrapped(text: str, font: Any, width: int) -> list[str]:
    lines: list[str] = []
    for paragraph in text.splitlines():
        lines.append("")
        for word in paragraph.split():
            longer = f"{lines[-1]} {word}".strip()
            if lines[-1] and font.getlength(longer) > width:
                lines.append(word)
            else:
                lines[-1] = longer
    return lines


def _even(side: int) -> int:
    return side + side % 2
