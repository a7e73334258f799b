"""The least work that each method can do in one step of a whole denoiser.

Owns the count, layer by layer: multiplications and additions of linear layers and attention, and elements
read or written once. What is done per element (norms, gates, the merge) is taken as fused into its
neighbours, in the model's own step as well. Knows no tensor.
"""

from __future__ import annotations

from dataclasses import dataclass

from vsf_lib.bench.attention.work import added
from vsf_lib.bench.model.networks import (
    FLUX_CHANNELS,
    FLUX_POOLED,
    FREQUENCIES,
    SD3_CHANNELS,
    SD3_POOLED,
    TEXT_WIDTH,
    WAN_CHANNELS,
    WAN_FFN,
    Blocks,
)
from vsf_lib.bench.speed.course import Work
from vsf_lib.bench.speed.methods import negatives_of
from vsf_lib.bench.speed.shapes import Shape

_PATCH = 4
"""Pixels of a latent that are one token."""


@dataclass
class Tally:
    """What was counted so far, for `batch` pictures at once."""

    batch: int
    flops: int = 0
    moved: int = 0

    def linear(self, rows: int, wide: int, out: int, times: int = 1, *, weights: bool = True) -> None:
        """`times` layers from `wide` to `out` channels on `rows` tokens a picture; without `weights` theirs
        are read for other tokens anyway."""
        self.flops += times * 2 * self.batch * rows * wide * out
        self.moved += times * (self.batch * rows * (wide + out) + (wide * out if weights else 0))

    def attention(self, pairs: int, elements: int, channels: int, times: int = 1) -> None:
        """Pairs of a query and a key, and elements of q, k, v and the output, a channel each."""
        self.flops += times * 4 * self.batch * pairs * channels
        self.moved += times * self.batch * elements * channels


def floor(method: str, shape: Shape, blocks: Blocks, n_n: int, batch: int) -> Work:
    """The floor of `method` with a negative of `n_n` tokens; of VSF it is the same in every form.

    NAG's and NASA's is that of their published form, whose image tokens attend to the image twice.
    """
    own = step(shape, blocks, batch)
    if method == "none":
        return Work(1.0, 1.0)
    more = own if method == "cfg" else more_of(method, shape, blocks, n_n, batch)
    return Work(
        (own.flops + more.flops) / own.flops, (own.moved + more.moved) / own.moved, more.flops, more.moved
    )


def step(shape: Shape, blocks: Blocks, batch: int) -> Tally:
    """An unguided step."""
    tally, c = Tally(batch), shape.heads * shape.width
    i, p = shape.image, shape.text
    tally.linear(1, FREQUENCIES, c)
    tally.linear(1, c, c)
    if shape.family.name.startswith("wan"):
        tally.linear(i, _PATCH * WAN_CHANNELS, c)
        tally.linear(1, c, 6 * c)
        tally.linear(p, TEXT_WIDTH, c)
        tally.linear(p, c, c)
        for _ in range(blocks.count):
            tally.linear(i, c, c, times=6)  # q, k, v and out of the video, q and out of the text's attention
            tally.attention(i * i, 4 * i, c)
            tally.linear(p, c, c, times=2)
            tally.attention(i * p, 2 * i + 2 * p, c)
            tally.linear(i, c, WAN_FFN)
            tally.linear(i, WAN_FFN, c)
        tally.linear(i, c, _PATCH * WAN_CHANNELS)
        return tally

    flux = shape.family.name == "flux"
    channels = FLUX_CHANNELS if flux else _PATCH * SD3_CHANNELS
    tally.linear(i, channels, c)
    tally.linear(p, TEXT_WIDTH, c)
    tally.linear(1, FLUX_POOLED if flux else SD3_POOLED, c)
    tally.linear(1, c, c)
    for number in range(blocks.count):
        kind = _kind(blocks, number, flux=flux)
        tally.attention((i + p) ** 2, 4 * (i + p), c)
        if kind == "single":
            tally.linear(1, c, 3 * c)
            tally.linear(i + p, c, c, times=3)
            tally.linear(i + p, c, 4 * c)
            tally.linear(i + p, 5 * c, c)
            continue
        dual, last = kind == "dual", kind == "last"
        tally.linear(1, c, (9 if dual else 6) * c)
        tally.linear(1, c, (2 if last else 6) * c)
        _stream(tally, i, c)
        if last:
            tally.linear(p, c, c, times=3)
        else:
            _stream(tally, p, c)
        if dual:
            tally.linear(i, c, c, times=4)
            tally.attention(i * i, 4 * i, c)
    tally.linear(1, c, 2 * c)
    tally.linear(i, c, channels)
    return tally


def more_of(method: str, shape: Shape, blocks: Blocks, n_n: int, batch: int) -> Tally:
    """What the negative's tokens add to a step, by `method`, which is not CFG.

    Its way into the network (the text embedder, and in cross-attention its keys and values too) is not in it:
    none of that changes from step to step.
    """
    tally, c = Tally(batch), shape.heads * shape.width
    n, flux = negatives_of(method, shape, n_n), shape.family.name == "flux"
    for number in range(blocks.count):
        kind = _kind(blocks, number, flux=flux)
        # In the last block of a whole network nobody needs what becomes of the negative's tokens.
        asks = shape.joint and kind != "last"
        tally.attention(*added(method, shape, n_n, asks=asks), c)
        if not shape.joint:
            continue
        if not asks:
            tally.linear(n, c, c, times=2, weights=False)
        elif kind == "single":
            tally.linear(n, c, c, times=3, weights=False)
            tally.linear(n, c, 4 * c, weights=False)
            tally.linear(n, 5 * c, c, weights=False)
        else:
            _stream(tally, n, c, weights=False)
    return tally


def _stream(tally: Tally, rows: int, c: int, *, weights: bool = True) -> None:
    """A double-stream block's layers for one of its streams: q, k, v, out and the MLP."""
    tally.linear(rows, c, c, times=4, weights=weights)
    tally.linear(rows, c, 4 * c, weights=weights)
    tally.linear(rows, 4 * c, c, weights=weights)


def _kind(blocks: Blocks, number: int, *, flux: bool) -> str:
    """ "double" or "single"; of SD3 "dual" with a second attention, and "last" where the text ends."""
    if flux:
        return "double" if number < blocks.first else "single"
    if blocks.ends and number == blocks.count - 1:
        return "last"
    return "dual" if number < blocks.first else "double"
