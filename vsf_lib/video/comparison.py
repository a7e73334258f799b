"""Two videos of one seed beside each other: as a film, and some of their frames as a still picture.

Owns what stands where and what it is called: left, and above, is the one without guidance. Knows no model.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from vsf_lib.errors import OutputError, SettingsError
from vsf_lib.files import reason
from vsf_lib.metadata import COMPARISON, read_png, write_png
from vsf_lib.strip import Tile, fit, pair, strip

WITHOUT, WITH = "without the negative prompt", "with the negative prompt"
_FILM = (256, 10**6)
"""The longer side of each half: small ones are enlarged, none is made smaller."""
_STILL = (256, 256)
_LETTERS = 1 / 12.8
"""Of a frame's width: so the longest label is as wide, as pages show the picture much smaller."""
_COLUMNS = 6
"""Frames in the still picture at most, first and last among them."""


def side_by_side(plain: np.ndarray, guided: np.ndarray) -> np.ndarray:
    """Frames `[n, h, w, 3]` uint8 of both, each `[n, h, w, 3]`, with a line under them that names them."""
    return np.stack(
        [
            np.asarray(pair(*_tiles(left, right), sides=_FILM))
            for left, right in zip(plain, guided, strict=True)
        ]
    )


def still(plain: np.ndarray, guided: np.ndarray) -> Image.Image:
    """A row of frames of each, with their numbers."""
    chosen = np.unique(np.linspace(0, len(plain) - 1, _COLUMNS).round().astype(int))
    rows = [
        [
            Tile(fit(Image.fromarray(frames[at]), _STILL), label if at == 0 else f"frame {at + 1}", is_plain)
            for at in chosen
        ]
        for frames, label, is_plain in ((plain, WITHOUT, True), (guided, WITH, False))
    ]
    letters = max(8, int(_LETTERS * rows[0][0].image.width))
    return strip([*rows[0], *rows[1]], columns=len(chosen), letters=letters)


def write_still(video: Path, image: Image.Image, infotext: str) -> Path:
    """Writes the picture that goes with a `video`, beside it and called after it; raises OutputError.

    It takes the place of an older one, and of nothing else.
    """
    path = still_of(video)
    if path.exists() and not _is_ours(path):
        raise OutputError(
            f"{video} would get a picture beside it in {path.name}, but that is another one: choose "
            "another name"
        )
    write_png(path, image, infotext)
    return path


def delete_still(video: Path, infotext: str) -> None:
    """Deletes the picture of a `video` of these parameters, if there is one; raises OutputError."""
    path = still_of(video)
    try:
        if path.is_file() and read_png(path) == infotext:
            path.unlink()
    except SettingsError:  # another picture
        return
    except OSError as error:
        raise OutputError(f"cannot delete {path}: {reason(error)}") from error


def still_of(video: Path) -> Path:
    """Where the picture of a video is, or of a folder of pictures, whether or not there is one."""
    return video.with_name(f"{video.name if video.is_dir() else video.stem}-strip.png")


def _is_ours(path: Path) -> bool:
    try:
        return f"{COMPARISON}: " in read_png(path)
    except SettingsError:
        return False


def _tiles(left: np.ndarray, right: np.ndarray) -> tuple[Tile, Tile]:
    return Tile(Image.fromarray(left), WITHOUT, plain=True), Tile(Image.fromarray(right), WITH)
