"""Puts pieces of attention together by their log-sum-exps, in float32, rounding once.

Owns the formulas. Must not know kernels, regions or masks.

For keys split into two sets, with outputs O_1, O_2 and log-sum-exps L_1, L_2, attention over both is
(1 - s) O_1 + s O_2 with s = sigmoid(L_2 - L_1). Value sign flip is that formula with the second set's values
times -alpha and its logits minus beta (method's section 3.1; appendix B writes 1 - w as W). Its variants
differ from it in how much of the first set's output they keep, and in a limit on the result.
"""

from __future__ import annotations

from collections.abc import Callable
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
    base: Tensor,
    base_lse: Tensor,
    negative: Tensor,
    negative_lse: Tensor,
    alpha: float | Tensor,
    beta: float | Tensor,
    formula: Formula = FLIP,
) -> tuple[Tensor, Tensor]:
    """(1 - w) base - alpha w negative, or another formula, with w = sigmoid(L_n - L_b - beta).

    base, negative `[B, H, n, D]`; log-sum-exps `[B, H, n]`; alpha a float or `[B, 1, 1, 1]`; beta a float or
    `[B, 1, 1]`. Returns the output, wide and not yet rounded, and w `[B, H, n]`. beta = inf gives w = 0 and
    base exactly. What lies in `base` is lost: where it is wide already, the output takes its place.
    """
    w = torch.sigmoid((negative_lse - base_lse) - beta)
    return combine(base, negative, w, alpha, formula, overwrite=True), w


def combine(
    base: Tensor,
    negative: Tensor,
    w: Tensor,
    alpha: float | Tensor,
    formula: Formula,
    *,
    overwrite: bool = False,
) -> Tensor:
    """`formula` of O_b and O_n `[B, H, n, D]` at the share w `[B, H, n]`, in w's dtype, not yet rounded.

    `overwrite` may put it into `base`, which must then carry no gradient.
    """
    share = w.unsqueeze(-1)
    factor = None if formula.keep is None else formula.keep(share)
    # The limit compares with O_b, so that has to be kept.
    if overwrite and formula.limit is None and base.dtype == w.dtype:
        kept = base if factor is None else base.mul_(factor)
    else:
        kept = base.to(w.dtype, copy=True) if factor is None else base * factor
    out = kept.addcmul_(negative, share * alpha, value=-1)
    if formula.limit is None:
        return out
    return out * norm_limit(out, base.to(w.dtype), formula.limit)


def norm_limit(z: Tensor, z_pos: Tensor, tau: float | Tensor, p: float = 1) -> Tensor:
    """The factor `[B, 1, n, 1]` that holds the p-norm of z to tau times that of z_pos, both `[B, H, n, D]`.

    Per token over all heads together, and with p = 1, as in the NAG paper (its section 4).
    """
    norm_pos = torch.linalg.vector_norm(z_pos, p, dim=(1, 3), keepdim=True)
    norm = torch.linalg.vector_norm(z, p, dim=(1, 3), keepdim=True)
    return (norm_pos * tau / norm.clamp(min=1e-6)).clamp(max=1)


def join(out_1: Tensor, lse_1: Tensor, out_2: Tensor, lse_2: Tensor) -> Tensor:
    """Attention over both sets of keys, `[B, H, n, D]`, wide and not yet rounded."""
    share = torch.sigmoid(lse_2 - lse_1).unsqueeze(-1)
    return torch.addcmul(out_1 * (1 - share), out_2, share)
