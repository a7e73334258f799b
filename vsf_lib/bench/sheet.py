"""Contact sheets: the same pictures by several methods, one method a row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from vsf_lib.bench.results import write_whole

_TITLE = 14
_TITLES = 4
"""Lines of text above a column: the longest prompt takes three, its negative one."""
_LABEL = 92


def write_sheet(
    path: Path, rows: Sequence[tuple[str, np.ndarray]], columns: Sequence[str], scale: int = 2
) -> None:
    """Writes a PNG. `rows` are a name and pictures uint8 `[n, h, w, 3]` each; `columns` title them."""
    height, width = (side * scale for side in rows[0][1].shape[1:3])
    sheet = Image.new(
        "RGB", (_LABEL + width * len(columns), _TITLES * _TITLE + height * len(rows)), (255, 255, 255)
    )
    draw = ImageDraw.Draw(sheet)
    for j, column in enumerate(columns):
        first, _, second = column.partition("\n")
        lines = [(line, (0, 0, 0)) for line in _wrapped(draw, first, width - 4)[: _TITLES - 1]]
        for k, (line, ink) in enumerate([*lines, (second, (170, 0, 0))]):
            draw.text((_LABEL + j * width + 2, k * _TITLE + 1), line, fill=ink)
    for i, (name, pictures) in enumerate(rows):
        draw.text((4, _TITLES * _TITLE + i * height + height // 2 - 6), name, fill=(0, 0, 0))
        for j, picture in enumerate(pictures[: len(columns)]):
            tile = Image.fromarray(picture).resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(tile, (_LABEL + j * width, _TITLES * _TITLE + i * height))
    write_whole(path, lambda part: sheet.save(part, format="PNG"), "the contact sheet", "--sheet")


def _wrapped(draw: ImageDraw.ImageDraw, text: str, width: int) -> list[str]:
    """`text` in lines of at most `width` pixels."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if draw.textlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
