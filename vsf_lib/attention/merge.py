"""Puts pieces of attention together by their log-sum-exps, in float32, rounding once.

Owns two formulas. Must not know kernels, regions or masks.

For keys split into two sets, with outputs O_1, O_2 and log-sum-exps L_1, L_2, attention over both is
(1 - s) O_1 + s O_2 with s = sigmoid(L_2 - L_1). Value sign flip is that formula with the second set's values
times -alpha and its logits minus beta (method's section 3.1; appendix B writes 1 - w as W).
"""

from __future__ import annotations

import torch
from torch import Tensor


def guide(
    base: Tensor,
    base_lse: Tensor,
    negative: Tensor,
    negative_lse: Tensor,
    alpha: float | Tensor,
    beta: float | Tensor,
) -> tuple[Tensor, Tensor]:
    """(1 - w) base - alpha w negative, with w = sigmoid(L_n - L_b - beta).

    base, negative `[B, H, n, D]`; log-sum-exps `[B, H, n]`; alpha a float or `[B, 1, 1, 1]`; beta a float or
    `[B, 1, 1]`. Returns the output, wide and not yet rounded, and w `[B, H, n]`. beta = inf gives w = 0 and
    base exactly.
    """
    w = torch.sigmoid((negative_lse - base_lse) - beta)
    share = w.unsqueeze(-1)
    return torch.addcmul(base * (1 - share), negative, share * alpha, value=-1), w


def join(out_1: Tensor, lse_1: Tensor, out_2: Tensor, lse_2: Tensor) -> Tensor:
    """Attention over both sets of keys, `[B, H, n, D]`, wide and not yet rounded."""
    share = torch.sigmoid(lse_2 - lse_1).unsqueeze(-1)
    return torch.addcmul(out_1 * (1 - share), out_2, share)
