"""Puts pieces of attention together by their log-sum-exps, in float32, rounding once.

Owns the formulas. Must not know kernels, regions or masks.

For keys split into two sets, with outputs O_1, O_2 and log-sum-exps L_1, L_2, attention over both is
(1 - s) O_1 + s O_2 with s = sigmoid(L_2 - L_1). Value sign flip is that formula with the second set's values
times -alpha and its logits minus beta (method's section 3.1; appendix B writes 1 - w as W). Its variants
differ from it in how much of the first set's output they keep, and in a limit on the result.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor


class Formula(NamedTuple):
    """The guided output as keep(w) O_b - alpha w O_n, then held to `limit` times the norm of O_b."""

    keep: Callable[[Tensor], Tensor] | None = None
    """From w `[B, H, n, 1]` to the factor of O_b; None keeps all of it."""
    limit: float | None = None
    """At least 1, so that rows that are off stay exactly O_b; None is no limit."""


def _diluted(w: Tensor) -> Tensor:
    return 1 - w


FLIP = Formula(_diluted)
"""The paper's value sign flip: (1 - w) O_b - alpha w O_n."""


def guide(
    out: Tensor,
    base: Tensor,
    base_lse: Tensor,
    negative: Tensor,
    negative_lse: Tensor,
    alpha: float | Tensor,
    beta: float | Tensor,
    formula: Formula = FLIP,
    *,
    fuse: bool = False,
) -> Tensor:
    """(1 - w) base - alpha w negative, or another formula, with w = sigmoid(L_n - L_b - beta), to `out`.

    out, base, negative `[B, H, n, D]`; log-sum-exps `[B, H, n]`; alpha a float or `[B, 1, 1, 1]`; beta a
    float or `[B, 1, 1]`. `out` may be `base`. Returns w `[B, H, n]`, wide. beta = inf gives w = 0 and base
    exactly. `fuse` has a compiler make one kernel of it, at its first call, which takes a while.
    """
    if fuse and in_place(base, negative):
        merged: Tensor = _fused()(out, base, base_lse, negative, negative_lse, alpha, beta, formula)
        return merged
    w = torch.sigmoid((negative_lse - base_lse) - beta)
    combine(out, base, negative, w, alpha, formula)
    return w


@functools.lru_cache(maxsize=1)
def _fused() -> Callable[..., Tensor]:
    compiled: Callable[..., Tensor] = torch.compile(guide, dynamic=True)
    return compiled


def combine(
    out: Tensor, base: Tensor, negative: Tensor, w: Tensor, alpha: float | Tensor, formula: Formula
) -> None:
    """`formula` of O_b and O_n `[B, H, n, D]` at the share w `[B, H, n]`, in its dtype; rounded to `out`.

    `out` may be `base` where neither carries a gradient.
    """
    for tokens in pieces(base):
        share, o_b, o_n = w[:, :, tokens].unsqueeze(-1), base[:, :, tokens], negative[:, :, tokens]
        to = out[:, :, tokens]
        # Before `to`, which may be O_b itself, is written.
        allowed = None if formula.limit is None else _norm(o_b, w.dtype) * formula.limit
        factor = None if formula.keep is None else formula.keep(share)
        if to.dtype == w.dtype and in_place(o_b, o_n, w):
            if factor is not None:
                torch.mul(o_b, factor, out=to)
            elif to.data_ptr() != o_b.data_ptr():
                to.copy_(o_b)
            guided = to
        else:
            guided = o_b.to(w.dtype, copy=True) if factor is None else o_b * factor
        guided = guided.addcmul_(o_n, share * alpha, value=-1)
        if allowed is not None:
            guided = guided * _within(allowed, _norm(guided))
        if guided is not to:
            to.copy_(guided)


def pieces(x: Tensor) -> Iterator[slice]:
    """The tokens of `[B, H, n, D]` in runs whose float32 copies stay in a processor's cache.

    What stands between two roundings is so never as large as the output, nor goes through main memory. A
    compiler fuses the whole, and is given it as one.
    """
    batch, heads, n, width = x.shape
    if torch.compiler.is_compiling():
        yield slice(0, n)
        return
    step = max(1, piece_size(x.device.type) // (batch * heads * width))
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))


def piece_size(device: str) -> int:
    """How many numbers a piece has at most, on a kind of device, if a token has no more.

    A GPU's kernels cost a few microseconds to start, which larger pieces outweigh.
    """
    return 1 << 18 if device == "cpu" else 1 << 22


def norm_limit(z: Tensor, z_pos: Tensor, tau: float | Tensor, p: float = 1) -> Tensor:
    """The factor `[B, 1, n, 1]` that holds the p-norm of z to tau times that of z_pos, both `[B, H, n, D]`.

    Per token over all heads together, and with p = 1, as in the NAG paper (its section 4).
    """
    return _within(_norm(z_pos, p=p) * tau, _norm(z, p=p))


def join(out_1: Tensor, lse_1: Tensor, out_2: Tensor, lse_2: Tensor) -> Tensor:
    """Attention over both sets of keys, `[B, H, n, D]`, wide and not yet rounded."""
    share = torch.sigmoid(lse_2 - lse_1).unsqueeze(-1)
    return torch.addcmul(out_1 * (1 - share), out_2, share)


def _norm(x: Tensor, dtype: torch.dtype | None = None, p: float = 1) -> Tensor:
    return torch.linalg.vector_norm(x, p, dim=(1, 3), keepdim=True, dtype=dtype)


def _within(allowed: Tensor, norm: Tensor) -> Tensor:
    """The factor that holds `norm` to `allowed`."""
    return (allowed / norm.clamp(min=1e-6)).clamp(max=1)


def in_place(*tensors: Tensor) -> bool:
    """Whether results may be written over tensors: neither a gradient nor a compiler wants to know of it."""
    return not torch.compiler.is_compiling() and not any(x.requires_grad for x in tensors)
