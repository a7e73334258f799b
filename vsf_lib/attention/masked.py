"""The masked form: one call over [sequence, N1] with a mask of every query against every key.

Owns the slow and literal reading of the table in `joint`. It is the last resort and the yardstick of
benchmarks (the paper's own cost): it allocates L * (L + n_n) numbers and keeps attention off the fast
kernels. Must not know kernels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa

from .layout import Regions, Strength, flip, lowest, mask_bias, row_bias, wide


def masked_joint(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    regions: Regions,
    alpha: Strength,
    beta: Strength,
    mask: Tensor | None,
    return_share: bool,
) -> Tensor | tuple[Tensor, Tensor]:
    """q, k, v `[B, H, L, D]`; returns `[B, H, L, D]`, with `return_share` also w `[B, H, n_i]`."""
    i, p, n = regions
    batch, heads, length, width = q.shape
    hidden = lowest(q.dtype)
    bias = q.new_full((1 if _uniform(beta, mask) else batch, 1, length, length + regions.n_n), hidden)
    bias[:, :, i, i] = 0
    bias[:, :, i, p] = 0
    bias[:, :, i, length:] = row_bias(beta, q.dtype)
    bias[:, :, p, i] = 0
    bias[:, :, p, p] = 0
    bias[:, :, n, i] = 0
    padding = mask_bias(mask, q)
    bias[:, :, n, n] = 0 if padding is None else padding

    keys = torch.cat([k, k[:, :, n]], dim=2)
    out = sdpa(q, keys, torch.cat([v, flip(alpha, v[:, :, n])], dim=2), attn_mask=bias)
    if not return_share:
        return out
    is_n1 = q.new_zeros(1, 1, length + regions.n_n, width)
    is_n1[:, :, length:] = 1
    w = sdpa(q, keys, is_n1.expand(batch, heads, -1, -1), attn_mask=bias)
    return out, w[:, :, i, 0].to(wide(q.dtype))


def _uniform(beta: Strength, mask: Tensor | None) -> bool:
    return mask is None and not isinstance(beta, Tensor)
