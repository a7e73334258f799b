"""Contact sheets: the same pictures by several methods, one method a row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from vsf_lib.errors import OutputError

_TITLE = 14
_LABEL = 92


def write_sheet(
    path: Path, rows: Sequence[tuple[str, np.ndarray]], columns: Sequence[str], scale: int = 2
) -> None:
    """Writes a PNG. `rows` are a name and pictures uint8 `[n, h, w, 3]` each; `columns` title them."""
    height, width = (side * scale for side in rows[0][1].shape[1:3])
    sheet = Image.new(
        "RGB", (_LABEL + width * len(columns), 2 * _TITLE + height * len(rows)), (255, 255, 255)
    )
    draw = ImageDraw.Draw(sheet)
    for j, column in enumerate(columns):
        first, _, second = column.partition("\n")
        draw.text((_LABEL + j * width + 2, 1), first, fill=(0, 0, 0))
        draw.text((_LABEL + j * width + 2, _TITLE), second, fill=(170, 0, 0))
    for i, (name, pictures) in enumerate(rows):
        draw.text((4, 2 * _TITLE + i * height + height // 2 - 6), name, fill=(0, 0, 0))
        for j, picture in enumerate(pictures[: len(columns)]):
            tile = Image.fromarray(picture).resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(tile, (_LABEL + j * width, 2 * _TITLE + i * height))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(path)
    except OSError as error:
        raise OutputError(
            f"the contact sheet cannot be written to {path} ({error}); choose another --sheet"
        ) from error
