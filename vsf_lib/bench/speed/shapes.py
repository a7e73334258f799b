"""The networks that are measured and the sizes of their pictures and videos, as data.

Owns the numbers and the names: `sd35-large-1024`, `flux-512`, `wan-1.3b-480p-5f`. Knows no tensor.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from vsf_lib.errors import SettingsError

_PIXELS = 16
"""A token's side in pixels: the autoencoders make eight of them one, and the networks take patches of two."""
_WIDE = {480: 832, 720: 1280}
_FRAMES = 81
_SIDES = (64, 4096)


@dataclass(frozen=True)
class Family:
    """A network: `heads` of `width` channels, and `text` tokens.

    In `joint` ones text and image share one attention, in the order [N, P, I] with `negative_first`,
    otherwise [I, P, N]; in the others the image's tokens look at the text in a cross-attention.
    """

    name: str
    shown: str
    heads: int
    width: int
    text: int
    joint: bool = True
    negative_first: bool = False
    video: bool = False


FAMILIES = {
    family.name: family
    for family in (
        Family("sd35-large", "SD3.5 large", 38, 64, 333),
        Family("sd35-medium", "SD3.5 medium", 24, 64, 333),
        Family("flux", "Flux", 24, 128, 512, negative_first=True),
        Family("wan-1.3b", "Wan 1.3B", 12, 128, 512, joint=False, video=True),
    )
}

SHAPES = ("sd35-large-1024", "sd35-medium-1024", "flux-1024", "wan-1.3b-480p")
"""What people generate."""


@dataclass(frozen=True)
class Shape:
    """A network at one size, with as many of its heads as are measured."""

    family: Family
    size: str
    """The end of its name."""
    pixels: str
    grid: tuple[int, int, int]
    """Image tokens: latent frames, rows and columns."""
    heads: int

    @property
    def name(self) -> str:
        return f"{self.family.name}-{self.size}"

    @property
    def shown(self) -> str:
        return f"{self.family.shown}, {self.pixels}"

    @property
    def image(self) -> int:
        return math.prod(self.grid)

    @property
    def text(self) -> int:
        return self.family.text

    @property
    def width(self) -> int:
        return self.family.width

    @property
    def joint(self) -> bool:
        return self.family.joint

    @property
    def negative_first(self) -> bool:
        return self.family.negative_first


def shape_named(name: str) -> Shape:
    """The shape of a name such as `flux-512`; raises SettingsError with what a name may be."""
    found = re.fullmatch(r"(.+?)-(\d{2,4})(p?)(?:-(\d{1,3})f)?", name)
    family = FAMILIES.get(found[1]) if found else None
    if found is None or family is None:
        raise SettingsError(f"there is no shape {name!r}: {_names()}")
    side, wide, frames = int(found[2]), bool(found[3]), found[4]
    width = _WIDE.get(side, 0) if wide else side
    if not _SIDES[0] <= side <= _SIDES[1] or side % _PIXELS or not width or (not family.video and wide):
        raise SettingsError(f"the shape {name!r} has the size {found[2]}{found[3]}: {_names()}")
    size, rows, columns = f"{side}{found[3]}", side // _PIXELS, width // _PIXELS
    if not family.video:
        if frames is not None:
            raise SettingsError(f"the shape {name!r} has frames, but {family.shown} draws pictures")
        return Shape(family, size, f"{width}x{side}", (1, rows, columns), family.heads)
    count = _FRAMES if frames is None else int(frames)
    if count % 4 != 1:
        raise SettingsError(f"the shape {name!r} has {count} frames, but must have 1, 5, 9 and so on")
    size += "" if frames is None else f"-{count}f"
    pixels = f"{width}x{side}, {count} frame{'s' * (count > 1)}"
    return Shape(family, size, pixels, (count // 4 + 1, rows, columns), family.heads)


def _names() -> str:
    return (
        f"shapes are {', '.join(SHAPES)}, or others of {', '.join(FAMILIES)} by a side of "
        f"{_SIDES[0]} to {_SIDES[1]} pixels, a multiple of {_PIXELS} (flux-512); videos also by 480p, 720p "
        "and frames (wan-1.3b-480p-5f)"
    )


class Scale(NamedTuple):
    """The sizes over which a scaling runs, and the one at which the length of the negative does."""

    sides: tuple[int, ...]
    frames: tuple[int, ...]
    usual: int
    usual_frames: int


def scaled(families: Sequence[str], scale: Scale) -> list[tuple[Shape, bool]]:
    """The shapes of a scaling, each with whether the length of the negative runs there.

    Pictures grow by their side, videos of 480 lines by their frames.
    """
    found = []
    for name in families:
        if FAMILIES[name].video:
            found += [(shape_named(f"{name}-480p-{n}f"), n == scale.usual_frames) for n in scale.frames]
        else:
            found += [(shape_named(f"{name}-{side}"), side == scale.usual) for side in scale.sides]
    return found
