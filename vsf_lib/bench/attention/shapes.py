"""The attentions that are measured, as data, and the least work that each method can do on them.

Owns the numbers of the models. Knows no tensor.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """One attention of a model: `image` tokens ask, and see `text` tokens, and in `joint` ones themselves.

    With `negative_first` the sequence is [N, P, I], otherwise [I, P, N].
    """

    name: str
    shown: str
    heads: int
    width: int
    image: int
    text: int
    joint: bool = True
    negative_first: bool = False


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("sd35-large-1024", "SD3.5 large, 1024x1024", 38, 64, 4096, 333),
        Shape("sd35-medium-1024", "SD3.5 medium, 1024x1024", 24, 64, 4096, 333),
        Shape("flux-1024", "Flux, 1024x1024", 24, 128, 4096, 512, negative_first=True),
        Shape(
            "wan-1.3b-480p", "Wan 1.3B, 832x480, 81 frames, cross-attention", 12, 128, 32760, 512, joint=False
        ),
    )
}

_VSF = ("vsf", "vsf-masked", "difference")


@dataclass(frozen=True)
class Work:
    """What an attention cannot do without, as multiples of the model's own."""

    flops: float
    """Pairs of a query and a key: each costs four operations a channel."""
    moved: float
    """Elements of q, k, v and the output, each read or written once."""


def negatives_of(method: str, shape: Shape, n_n: int) -> int:
    """How many negative tokens `method` is given: NAG and NASA pad them like the prompt, as published."""
    return shape.text if method in ("nag", "nasa") else n_n


def floor(method: str, shape: Shape, n_n: int) -> Work:
    """The floor of `method` with a negative of `n_n` tokens; of VSF it is the same in every form."""
    i, n = shape.image, negatives_of(method, shape, n_n)
    pairs, moved = _own(shape)
    if method == "none":
        return Work(1.0, 1.0)
    if method == "cfg":
        return Work(2.0, 2.0)
    if not shape.joint:
        return Work((pairs + i * n) / pairs, (moved + 2 * n) / moved)
    # N's own rows look at I and N. The image's look at N, and for NAG and NASA at I a second time, since
    # both take the two averages apart.
    added = i * n + n * (i + n) + (0 if method in _VSF else i * i)
    return Work((pairs + added) / pairs, (moved + 4 * n) / moved)


def _own(shape: Shape) -> tuple[int, int]:
    """Pairs and elements per head (and channel) of the unguided attention."""
    i, p = shape.image, shape.text
    if shape.joint:
        return (i + p) ** 2, 4 * (i + p)
    return i * p, 2 * i + 2 * p
