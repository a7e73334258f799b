"""Where a negative prompt acts: its share of the attention as a map, in colours, and laid over a picture.

Owns the way from a share per token to pixels, and the colours. The share is `Report.share` of
`guided(..., record_share=True)`: what part of an image token's attention goes to the negative prompt, figure
4 of the VSF paper. Knows no model, no pipeline and no file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

INFERNO = np.array(
    [
        (0, 0, 4),
        (10, 7, 34),
        (30, 12, 69),
        (56, 9, 98),
        (81, 14, 108),
        (105, 22, 110),
        (128, 31, 108),
        (152, 39, 102),
        (176, 49, 91),
        (198, 61, 77),
        (217, 77, 61),
        (233, 97, 43),
        (244, 121, 24),
        (250, 148, 7),
        (252, 176, 20),
        (248, 205, 55),
        (242, 234, 105),
        (252, 255, 164),
    ],
    np.float64,
)
"""Evenly spaced colours, between which `colours` is linear: every fifteenth of matplotlib's inferno (S. van
der Walt, N. Smith; public domain). Equal steps of a value are equal steps of lightness to the eye."""

_OPACITY = 0.65
"""Of the colours over a picture in grey: enough to read them, little enough to see what lies below."""


@dataclass(frozen=True)
class Scale:
    """The shares at the two ends of the colours."""

    low: float
    high: float

    @classmethod
    def of(cls, shares: np.ndarray) -> Scale:
        """From the smallest to the largest share."""
        return cls(float(shares.min()), float(shares.max()))

    def position(self, shares: np.ndarray) -> np.ndarray:
        """Shares as positions between the ends, 0 to 1; 0 everywhere if the ends are one."""
        width = self.high - self.low
        if width <= 0:
            return np.zeros(shares.shape)
        position: np.ndarray = ((shares - self.low) / width).clip(0, 1)
        return position

    def __str__(self) -> str:
        return f"{self.low:.3g} to {self.high:.3g}"


def token_grid(tokens: int, width: int, height: int) -> tuple[int, int]:
    """Rows and columns of the tokens of a picture of `width` x `height` pixels.

    SD3 and Flux make a token of each square of 2x2 latents, row by row, so that the picture's size says how
    many there are along each side. Raises ValueError where no squares fit.
    """
    side = math.isqrt(width * height // tokens) if tokens > 0 else 0
    if side == 0 or width % side or height % side or width * height != tokens * side * side:
        raise ValueError(f"{tokens} tokens are no squares of a picture of {width}x{height} pixels")
    return height // side, width // side


def as_maps(share: np.ndarray, width: int, height: int) -> np.ndarray:
    """Shares `[..., n_i]` as maps float64 `[..., rows, columns]`; raises ValueError as `token_grid` does."""
    share = np.asarray(share, np.float64)
    return share.reshape(*share.shape[:-1], *token_grid(share.shape[-1], width, height))


def colours(position: np.ndarray) -> np.ndarray:
    """Positions from 0 to 1 as uint8 `[..., 3]`."""
    at = np.asarray(position, np.float64).clip(0, 1) * (len(INFERNO) - 1)
    below = np.minimum(at.astype(int), len(INFERNO) - 2)
    part = (at - below)[..., None]
    mixed: np.ndarray = INFERNO[below] * (1 - part) + INFERNO[below + 1] * part
    return mixed.round().astype(np.uint8)


def enlarged(shares: np.ndarray, width: int, height: int) -> np.ndarray:
    """A map `[rows, columns]` as float64 `[height, width]`: bicubic, but never beyond the map's own ends."""
    image = Image.fromarray(np.asarray(shares, np.float32), mode="F")
    smooth = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC), np.float64)
    return smooth.clip(shares.min(), shares.max())


def heat(shares: np.ndarray, scale: Scale, width: int, height: int) -> Image.Image:
    """A map `[rows, columns]` in colours, as a picture of `width` x `height` pixels."""
    return Image.fromarray(colours(scale.position(enlarged(shares, width, height))))


def overlay(
    picture: Image.Image,
    shares: np.ndarray,
    scale: Scale,
    area: tuple[float, float, float, float] | None = None,
) -> Image.Image:
    """`picture` in grey under the colours of a map `[rows, columns]`; of the picture's size.

    area: left, top, right and bottom of what the map covers, in pixels, where that is not the whole picture;
    it may reach beyond the picture.
    """
    grey = picture.convert("L").convert("RGB")
    left, top, right, bottom = (round(edge) for edge in area or (0, 0, *picture.size))
    coloured = grey.copy()
    coloured.paste(heat(shares, scale, max(1, right - left), max(1, bottom - top)), (left, top))
    return Image.blend(grey, coloured, _OPACITY)
