"""The masked form: one call over [sequence, N1] with a mask of every query against every key.

Owns the slow and literal reading of the table in `joint`. It is the last resort and the yardstick of
benchmarks (the paper's own cost): it allocates L * (L + n_n) numbers and keeps attention off the fast
kernels. Must not know kernels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa

from .layout import Regions, Strength, flip, lowest, mask_bias, row_bias, size, wide


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
    batch, heads, length, width = q.shape
    bias = joint_bias(q, regions, beta, mask)
    keys, values = with_flipped(k, v, regions[2], alpha)
    out = sdpa(q, keys, values, attn_mask=bias)
    if not return_share:
        return out
    is_n1 = q.new_zeros(1, 1, length + size(regions[2]), width)
    is_n1[:, :, length:] = 1
    w = sdpa(q, keys, is_n1.expand(batch, heads, -1, -1), attn_mask=bias)
    return out, w[:, :, regions[0], 0].to(wide(q.dtype))


def joint_bias(q: Tensor, regions: Regions, beta: Strength, mask: Tensor | None) -> Tensor:
    """The mask of every query against every key of [sequence, N1], `[B or 1, 1, L, L + n_n]`."""
    i, p, n = regions
    batch, _, length, _ = q.shape
    rows = 1 if _uniform(beta, mask) else batch
    bias = q.new_full((rows, 1, length, length + size(regions[2])), lowest(q.dtype))
    bias[:, :, i, i] = 0
    bias[:, :, i, p] = 0
    bias[:, :, i, length:] = row_bias(beta, q.dtype)
    bias[:, :, p, i] = 0
    bias[:, :, p, p] = 0
    bias[:, :, n, i] = 0
    padding = mask_bias(mask, q)
    bias[:, :, n, n] = 0 if padding is None else padding
    return bias


def with_flipped(k: Tensor, v: Tensor, n: slice, alpha: Strength) -> tuple[Tensor, Tensor]:
    """Keys and values of [sequence, N1], `[B, H, L + n_n, D]`."""
    return torch.cat([k, k[:, :, n]], dim=2), torch.cat([v, flip(alpha, v[:, :, n])], dim=2)


def _uniform(beta: Strength, mask: Tensor | None) -> bool:
    return mask is None and not isinstance(beta, Tensor)
