"""Value sign flip for cross-attention (Wan: video tokens look at text tokens).

Owns the exact form and its one-call fallback. Must not know models; where the negative's keys and values come
from is the caller's business.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.functional import scaled_dot_product_attention as sdpa

from .kernels import attend, check_kernel_name, plan, side_kernel
from .layout import (
    Strength,
    autocast,
    check_qkv,
    flip,
    new_output,
    read_alpha,
    read_beta,
    read_mask,
    read_pair,
    row_bias,
    split_alpha,
    split_beta,
    wide,
)
from .merge import FLIP, Formula, combine, guide


def cross_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    negative: tuple[Tensor, Tensor],
    alpha: Strength,
    beta: Strength,
    negative_mask: Tensor | None = None,
    kernel: str = "auto",
    return_share: bool = False,
    formula: Formula = FLIP,
    fuse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Attention of q `[B, H, n_i, D]` over k, v `[B, H, n_p, D]`, moved away from the negative prompt.

        O_b, L_b = attention(Q, K, V)       the unguided model's own call
        O_n, L_n = attention(Q, K_N, V_N)
        w        = sigmoid(L_n - beta - L_b)
        O        = (1 - w) O_b - alpha w O_n

    negative: (K_N, V_N), `[B or 1, H, n_n, D]`; n_n may be 0. alpha, beta, negative_mask, kernel,
    return_share and fuse as in `joint_attention`. Where there is no log-sum-exp, "three-call" and "masked"
    both mean one call over [P, N] with flipped values and one row of bias: text is short, so joining the keys
    is cheap.
    Nobody but the queries looks at N. formula: as in `joint_attention`; without a log-sum-exp another one
    takes a call for each piece and one for w.

    Returns `[B, H, n_i, D]`, with `return_share` also w `[B, H, n_i]`.
    """
    check_kernel_name(kernel)
    q, k, v, k_n, v_n = autocast(q, k, v, *negative)
    check_qkv(q, k, v)
    batch, heads, n_i, _ = q.shape
    k_n, v_n = read_pair(q, k_n, v_n)
    n_n = k_n.shape[2]
    mask = read_mask(negative_mask, q, n_n)
    alpha, beta = read_alpha(alpha, q, n_n), read_beta(beta, q, n_n, mask)
    if n_n == 0:
        out, w = sdpa(q, k, v), q.new_zeros(batch, heads, n_i, dtype=wide(q.dtype))
        return (out, w) if return_share else out

    chosen = plan(q, k, v, kernel)
    if chosen.kernel is None:
        if formula is FLIP:
            return _one_call(q, k, v, k_n, v_n, alpha, beta, return_share)
        guided, w = _piece_by_piece(q, k, v, k_n, v_n, alpha, beta, formula)
        return (guided, w) if return_share else guided
    row_alpha, v_n = split_alpha(alpha, v_n)
    row_beta, bias = split_beta(beta, q.dtype)
    base, base_lse = attend(chosen.kernel, q, k, v)
    neg, neg_lse = attend(side_kernel(chosen.kernel, biased=bias is not None), q, k_n, v_n, bias)
    w = guide(base, base, base_lse, neg, neg_lse, row_alpha, row_beta, formula, fuse=fuse)
    return (base, w) if return_share else base


def _one_call(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    k_n: Tensor,
    v_n: Tensor,
    alpha: Strength,
    beta: Strength,
    return_share: bool,
) -> Tensor | tuple[Tensor, Tensor]:
    keys, row = torch.cat([k, k_n], dim=2), _row(row_bias(beta, q.dtype), q, k, k_n)
    out = sdpa(q, keys, torch.cat([v, flip(alpha, v_n)], dim=2), attn_mask=row)
    return (out, _share(q, keys, k_n, row)) if return_share else out


def _piece_by_piece(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    k_n: Tensor,
    v_n: Tensor,
    alpha: Strength,
    beta: Strength,
    formula: Formula,
) -> tuple[Tensor, Tensor]:
    """O_b, O_n and w by plain calls, for formulas that the sum over all keys is not."""
    row_alpha, v_n = split_alpha(alpha, v_n)
    bias = row_bias(beta, q.dtype)
    # One beta for all of N says nothing about which of its tokens to look at.
    neg = sdpa(q, k_n, v_n, attn_mask=bias if isinstance(bias, Tensor) else None)
    w = _share(q, torch.cat([k, k_n], dim=2), k_n, _row(bias, q, k, k_n))
    out = new_output(q)
    combine(out, sdpa(q, k, v), neg, w, row_alpha, formula)
    return out, w


def _row(bias: Tensor | float, q: Tensor, k: Tensor, k_n: Tensor) -> Tensor | None:
    """A bias on N as a bias `[B or 1, 1, 1, n_p + n_n]` on [P, N]; None where it is nothing."""
    n_p, n_n = k.shape[2], k_n.shape[2]
    if isinstance(bias, Tensor):
        return pad(bias.expand(-1, -1, -1, n_n), (n_p, 0))
    return pad(q.new_full((1, 1, 1, n_n), bias), (n_p, 0)) if bias != 0 else None


def _share(q: Tensor, keys: Tensor, k_n: Tensor, row: Tensor | None) -> Tensor:
    """w `[B, H, n_i]`, wide, by a plain call whose values are 1 on N, the end of `keys`, and 0 elsewhere."""
    n_n = k_n.shape[2]
    is_n = pad(q.new_ones(1, 1, n_n, q.shape[3]), (0, 0, keys.shape[2] - n_n, 0)).expand_as(keys)
    return sdpa(q, keys, is_n, attn_mask=row)[..., 0].to(wide(q.dtype))
