"""What is timed: each method on one shape as a function without arguments, over random tensors made once.

Owns how a method is called, and what it holds. Times nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa

from vsf_lib.attention import (
    cross_attention,
    joint_attention,
    nag_attention,
    nag_cross_attention,
    nasa_attention,
    nasa_cross_attention,
    variant_attention,
    variant_cross_attention,
)
from vsf_lib.attention.layout import read_regions
from vsf_lib.attention.masked import joint_bias, with_flipped
from vsf_lib.bench.speed.course import Call, Cell
from vsf_lib.bench.speed.methods import ALPHA, BETA, UNPADDED, kernel_options, negatives_of, vsf_kernels
from vsf_lib.bench.speed.shapes import Shape
from vsf_lib.presets import baseline


def unguided(cell: Cell) -> Call:
    """The model's own call, that all are set against."""
    s = cell.shape
    keys = s.image + s.text if s.joint else s.text
    q, k, v = _draw(cell, keys if s.joint else s.image, keys, keys)
    return Call("none", "sdpa", partial(sdpa, q, k, v), (q, k, v))


def calls(cell: Cell, methods: Sequence[str], *, every_kernel: bool = True) -> Iterator[Call]:
    """Those of `methods`, VSF by each kernel that can do it here, or by the one that it takes.

    Methods share tensors where sizes agree.
    """
    s, own = cell.shape, unguided(cell)
    drawn: dict[int, tuple[Tensor, ...]] = {}
    for method in methods:
        if method == "none":
            yield own
            continue
        if method == "cfg":
            yield _two_passes(own, unguided(cell))
            continue
        n = negatives_of(method, s, cell.n_n)
        if n not in drawn:
            length = s.image + s.text + n
            drawn[n] = _draw(cell, *([length] * 3 if s.joint else (s.image, s.text, s.text, n, n)))
        for call in _guided(s, method, n, drawn[n]):
            if every_kernel or call.auto:
                yield call


def _two_passes(first: Call, second: Call) -> Call:
    def run() -> Tensor:
        first.run()
        return second.run()

    # The passes follow each other, so that no more is held than one needs.
    return replace(second, method="cfg", run=run)


class _Functions(NamedTuple):
    vsf: Callable[..., Any]
    variant: Callable[..., Any]
    nag: Callable[..., Any]
    nasa: Callable[..., Any]


_JOINT = _Functions(joint_attention, variant_attention, nag_attention, nasa_attention)
_CROSS = _Functions(cross_attention, variant_cross_attention, nag_cross_attention, nasa_cross_attention)


def _guided(s: Shape, method: str, n: int, held: tuple[Tensor, ...]) -> Iterator[Call]:
    """`method` with n negative tokens, on q, k and v, in cross-attention followed by K_N and V_N."""
    q, k, v, *pair = held
    functions = _JOINT if s.joint else _CROSS
    where: dict[str, Any] = _regions(s, n) if s.joint else {"negative": tuple(pair)}
    strength = {"alpha": ALPHA, "beta": BETA}
    if method == "vsf":
        for name, auto in vsf_kernels(q, k, v, joint=s.joint):
            run = partial(functions.vsf, q, k, v, **where, **strength, **kernel_options(name))
            yield Call(method, name, run, held, auto)
    elif method == "vsf-masked" and s.joint:
        # Kind to it: mask and duplicate are there when the clock starts, as a model could have them.
        bias = joint_bias(q, read_regions(q.shape[2], **where), BETA, None)
        keys, values = with_flipped(k, v, where["negative"], ALPHA)
        yield Call(method, "masked", partial(sdpa, q, keys, values, attn_mask=bias), (q, keys, values, bias))
    elif method == "vsf-masked":
        yield Call(
            method, "masked", partial(functions.vsf, q, k, v, **where, **strength, kernel="masked"), held
        )
    elif method == "difference":
        kernel = next(name for name, auto in vsf_kernels(q, k, v, joint=True) if auto)
        run = partial(functions.variant, q, k, v, variant=method, **where, **strength)
        yield Call(method, kernel, run, held)
    else:
        name = method.removesuffix(UNPADDED)
        values_of = baseline(name).settings()
        if name == "nag":
            nag = {"phi": values_of.nag_phi, "tau": values_of.nag_tau, "alpha": values_of.nag_alpha}
            yield Call(method, "sdpa", partial(functions.nag, q, k, v, **where, **nag), held)
        else:
            run = partial(functions.nasa, q, k, v, **where, alpha=values_of.nasa_alpha)
            yield Call(method, "sdpa", run, held)


def _draw(cell: Cell, *tokens: int) -> tuple[Tensor, ...]:
    """`[B, H, n, D]` for each n of `tokens`, in memory `[B, n, H, D]` as models have it."""
    s = cell.shape
    return tuple(
        torch.randn((cell.batch, n, s.heads, s.width), device=cell.device, dtype=cell.dtype).transpose(1, 2)
        for n in tokens
    )


def _regions(s: Shape, n: int) -> dict[str, Any]:
    """Where I, P and N lie."""
    if s.negative_first:
        return {"negative": slice(0, n), "positive": slice(n, n + s.text), "image": slice(n + s.text, None)}
    end = s.image + s.text
    return {"image": slice(0, s.image), "positive": slice(s.image, end), "negative": slice(end, None)}
