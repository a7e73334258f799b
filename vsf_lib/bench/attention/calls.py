"""What is timed: each method on one shape as a function without arguments, over random tensors made once.

Owns how a method is called, and what it holds. Times nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa

from vsf_lib.attention import (
    KERNELS,
    cross_attention,
    joint_attention,
    nag_attention,
    nag_cross_attention,
    nasa_attention,
    nasa_cross_attention,
    variant_attention,
    variant_cross_attention,
)
from vsf_lib.attention.kernels import plan
from vsf_lib.attention.layout import read_regions
from vsf_lib.attention.masked import joint_bias, with_flipped
from vsf_lib.bench.attention.shapes import Shape, negatives_of
from vsf_lib.presets import baseline

_UNPADDED = "-unpadded"
USUAL = ("none", "vsf", "vsf-masked", "difference", "nag", "nasa", "cfg")
"""The names of `bench scenes`, and the masked form, as published. "none" is the unguided call once more."""
METHODS = (*USUAL, f"nag{_UNPADDED}", f"nasa{_UNPADDED}")
"""With NAG and NASA on a negative that is not padded like the prompt."""

ALPHA, BETA = 3.3, 0.2
"""The paper's for SD3.5; no time depends on them."""


@dataclass(frozen=True)
class Call:
    """A method by one kernel."""

    method: str
    kernel: str
    run: Callable[[], Tensor]
    held: tuple[Tensor, ...]
    """The tensors that it needs beside what it allocates."""
    auto: bool = True
    """Whether this kernel is what the method would take by itself."""


@dataclass(frozen=True)
class Cell:
    """One shape at one batch size and length of the negative prompt."""

    shape: Shape
    batch: int
    n_n: int
    device: torch.device
    dtype: torch.dtype

    def draw(self, *tokens: int) -> tuple[Tensor, ...]:
        """`[B, H, n, D]` for each n of `tokens`, in memory `[B, n, H, D]` as models have it."""
        return tuple(
            torch.randn(
                (self.batch, n, self.shape.heads, self.shape.width), device=self.device, dtype=self.dtype
            ).transpose(1, 2)
            for n in tokens
        )


def unguided(cell: Cell) -> Call:
    """The model's own call, that all are set against."""
    s = cell.shape
    keys = s.image + s.text if s.joint else s.text
    q, k, v = cell.draw(keys if s.joint else s.image, keys, keys)
    return Call("none", "sdpa", partial(sdpa, q, k, v), (q, k, v))


def calls(cell: Cell, methods: Sequence[str]) -> Iterator[Call]:
    """Those of `methods`, VSF by each kernel that can do it here. Methods share tensors where sizes agree."""
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
            drawn[n] = cell.draw(*([length] * 3 if s.joint else (s.image, s.text, s.text, n, n)))
        yield from _guided(s, method, n, drawn[n])


def vsf_kernels(q: Tensor, k: Tensor, v: Tensor, *, joint: bool) -> list[tuple[str, bool]]:
    """The kernels that VSF can take for these tensors, each with whether it is the one that it does take."""
    chosen = plan(q, k, v)
    usual = chosen.form if chosen.kernel is None else chosen.kernel.name
    # Joint only: in cross-attention the three-call form is the masked one.
    names = [kernel.name for kernel in KERNELS if _fits(kernel.name, q, k, v)] + ["three-call"] * joint
    return [(name, name == usual) for name in names]


def _fits(name: str, q: Tensor, k: Tensor, v: Tensor) -> bool:
    try:
        plan(q, k, v, name)
    except ValueError:
        return False
    return True


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
            run = partial(functions.vsf, q, k, v, **where, **strength, kernel=name)
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
        name = method.removesuffix(_UNPADDED)
        values_of = baseline(name).settings()
        if name == "nag":
            nag = {"phi": values_of.nag_phi, "tau": values_of.nag_tau, "alpha": values_of.nag_alpha}
            yield Call(method, "sdpa", partial(functions.nag, q, k, v, **where, **nag), held)
        else:
            run = partial(functions.nasa, q, k, v, **where, alpha=values_of.nasa_alpha)
            yield Call(method, "sdpa", run, held)


def _regions(s: Shape, n: int) -> dict[str, Any]:
    """Where I, P and N lie."""
    if s.negative_first:
        return {"negative": slice(0, n), "positive": slice(n, n + s.text), "image": slice(n + s.text, None)}
    end = s.image + s.text
    return {"image": slice(0, s.image), "positive": slice(s.image, end), "negative": slice(end, None)}
