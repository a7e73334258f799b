"""Value sign flip for joint attention (SD3.5 and Flux: image and text in one sequence).

Owns the exact form and the three-call form, and picks one, also for the formulas of variants.py. Must not
know models or where a model keeps its tokens.

Who sees whom, per head, logits q k / sqrt(D) (VSF paper, section 3.2 and Listing 1):

    query   I    P    N0   N1 (keys of N0, values -alpha v, logits - beta)
    I       yes  yes  no   yes
    P       yes  yes  no   no
    N0      yes  no   yes  no
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa

from .kernels import Kernel, attend, check_kernel_name, plan, side_kernel
from .layout import (
    Regions,
    Strength,
    autocast,
    check_joint,
    flip,
    mask_bias,
    new_output,
    read_alpha,
    read_beta,
    read_mask,
    read_regions,
    row_bias,
    size,
    split_alpha,
    split_beta,
    take,
    wide,
    within,
)
from .masked import masked_joint
from .merge import FLIP, Formula, combine, guide, join


def joint_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    image: slice,
    positive: slice,
    negative: slice,
    alpha: Strength,
    beta: Strength,
    negative_mask: Tensor | None = None,
    kernel: str = "auto",
    return_share: bool = False,
    formula: Formula = FLIP,
    fuse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Attention of `[B, H, L, D]` in which image tokens move away from the negative prompt.

    q, k, v: after norm and RoPE. image, positive, negative: slices that tile L in any order; the positive and
    the negative one may be empty. Fastest where I and P lie together ([N, P, I] or [I, P, N]), because the
    ordinary call is then a view of q, k and v.
    alpha: finite float, `[B]` or `[B, n_n]`. beta: the same; +inf switches everything, a row or a token off.
    negative_mask: bool `[B, n_n]`, True = real token; padding is hidden from I -> N1 and N0 -> N0.
    kernel: "auto", "exact", "three-call", "masked" or a name of kernels.KERNELS. `plan_kernel` tells what
    "auto" comes to.
    formula: how image rows are put together. Other ones than the paper's have names in variants.py; where
    there is no log-sum-exp they take a call for each piece and one for w, "masked" included.
    fuse: have torch.compile make one kernel of the merge (exact form).

    Returns `[B, H, L, D]` in the order of q, with `return_share` also w `[B, H, n_i]`: the share of an image
    token's attention that goes to N1. Where all is off, image and positive rows equal the unguided call bit
    by bit (exact form).
    """
    check_kernel_name(kernel)
    q, k, v = autocast(q, k, v)
    check_joint(q, k, v)
    regions = read_regions(q.shape[2], image, positive, negative)
    n_n = size(regions[2])
    mask = read_mask(negative_mask, q, n_n)
    alpha, beta = read_alpha(alpha, q, n_n), read_beta(beta, q, n_n, mask)
    if n_n == 0:  # PyTorch's CPU flash operator ends the process on an empty side
        out, w = sdpa(q, k, v), q.new_zeros(*q.shape[:2], size(regions[0]), dtype=wide(q.dtype))
        return (out, w) if return_share else out

    chosen = plan(q, k, v, kernel)
    if chosen.kernel is not None:
        out, w = _exact(chosen.kernel, q, k, v, regions, alpha, beta, mask, formula, fuse)
        return (out, w) if return_share else out
    if formula is not FLIP:
        out, w = _piece_by_piece(q, k, v, regions, alpha, beta, mask, formula)
        return (out, w) if return_share else out
    if chosen.form == "masked":
        return masked_joint(q, k, v, regions, alpha, beta, mask, return_share)
    return _three_call(q, k, v, regions, alpha, beta, mask, return_share)


def _exact(
    kernel: Kernel,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    regions: Regions,
    alpha: Strength,
    beta: Strength,
    mask: Tensor | None,
    formula: Formula = FLIP,
    fuse: bool = False,
) -> tuple[Tensor, Tensor]:
    """The mask-free form:

    O_b, L_b = attention(Q[I,P], K[I,P], V[I,P])   the unguided model's own call
    O_n, L_n = attention(Q[I], K[N], V[N])
    w        = sigmoid(L_n - beta - L_b[I])
    O_I      = (1 - w) O_b[I] - alpha w O_n
    O_P      = O_b[P]
    O_N      = attention(Q[N], K[I]) merged with attention(Q[N], K[N])

    Another `formula` changes the line of O_I alone, so it costs no call.

    One alpha or beta per row is a factor or a term in the merge and costs nothing. Tokens of different alpha
    scale V[N]. Tokens of different beta, and padding, need a bias on their logits, since one w per query
    cannot tell keys apart: it goes, as one row per picture, to the calls whose keys are N, on a kernel that
    takes a bias. (Carrying it in the values instead, as a factor exp(-beta), fails where a hidden token has
    the largest logit: the others underflow.)
    """
    i, p, n = regions
    row_alpha, v_n = split_alpha(alpha, v[:, :, n])
    row_beta, bias = split_beta(beta, q.dtype)
    hidden = mask_bias(mask, q)
    side = side_kernel(kernel, biased=False)

    ip = (i, p)
    base, base_lse = attend(kernel, take(q, ip), take(k, ip), take(v, ip))
    rows = within(i, [p])
    neg, neg_lse = attend(
        side if bias is None else side_kernel(kernel, biased=True), q[:, :, i], k[:, :, n], v_n, bias
    )
    out = new_output(q)
    w = guide(
        out[:, :, i],
        base[:, :, rows],
        base_lse[:, :, rows],
        neg,
        neg_lse,
        row_alpha,
        row_beta,
        formula,
        fuse=fuse,
    )
    del neg, neg_lse
    out[:, :, p] = base[:, :, within(p, [i])]
    q_n = q[:, :, n]
    if hidden is None and (i.stop == n.start or n.stop == i.start):
        out[:, :, n] = attend(side, q_n, take(k, (i, n)), take(v, (i, n)))[0]
    else:
        see_i = attend(side, q_n, k[:, :, i], v[:, :, i])
        see_n = attend(
            side if hidden is None else side_kernel(kernel, biased=True), q_n, k[:, :, n], v[:, :, n], hidden
        )
        out[:, :, n] = join(*see_i, *see_n)
    return out, w


def _three_call(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    regions: Regions,
    alpha: Strength,
    beta: Strength,
    mask: Tensor | None,
    return_share: bool,
) -> Tensor | tuple[Tensor, Tensor]:
    """Three plain calls, for devices without a log-sum-exp and for gradients.

    N1 has the keys of N0, so image rows see the whole sequence as it lies, with V[N] flipped and beta as one
    row of bias. The text's rows see two regions each. w costs a fourth call, whose values are 1 on N and 0
    elsewhere.
    """
    i, p, n = regions
    flipped = torch.cat([v[:, :, : n.start], flip(alpha, v[:, :, n]), v[:, :, n.stop :]], dim=2)
    bias = _sequence_bias(row_bias(beta, q.dtype), q, n)
    guided = sdpa(q[:, :, i], k, flipped, attn_mask=bias)

    out = new_output(q)
    out[:, :, i] = guided
    if p.stop > p.start:
        out[:, :, p] = sdpa(q[:, :, p], take(k, (i, p)), take(v, (i, p)))
    out[:, :, n] = _negative_rows(q, k, v, regions, mask)
    return (out, _share(q, k, n, i, bias)) if return_share else out


def _piece_by_piece(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    regions: Regions,
    alpha: Strength,
    beta: Strength,
    mask: Tensor | None,
    formula: Formula,
) -> tuple[Tensor, Tensor]:
    """O_b, O_n and w by plain calls, for formulas that the sum over all keys is not."""
    i, p, n = regions
    ip = (i, p)
    base = sdpa(take(q, ip), take(k, ip), take(v, ip))
    row_alpha, v_n = split_alpha(alpha, v[:, :, n])
    bias = row_bias(beta, q.dtype)
    # One beta for all of N says nothing about which of its tokens to look at.
    neg = sdpa(q[:, :, i], k[:, :, n], v_n, attn_mask=bias if isinstance(bias, Tensor) else None)
    w = _share(q, k, n, i, _sequence_bias(bias, q, n))

    out = new_output(q)
    combine(out[:, :, i], base[:, :, within(i, [p])], neg, w, row_alpha, formula)
    out[:, :, p] = base[:, :, within(p, [i])]
    out[:, :, n] = _negative_rows(q, k, v, regions, mask)
    return out, w


def _negative_rows(q: Tensor, k: Tensor, v: Tensor, regions: Regions, mask: Tensor | None) -> Tensor:
    """N0's own attention over [I, N], by a plain call."""
    i, _, n = regions
    see = take(k, (i, n)), take(v, (i, n))
    hidden = mask_bias(mask, q)
    if hidden is not None:
        rows = within(n, [i])
        hidden = torch.nn.functional.pad(hidden, (rows.start, see[0].shape[2] - rows.stop))
    return sdpa(q[:, :, n], *see, attn_mask=hidden)


def _share(q: Tensor, k: Tensor, n: slice, i: slice, bias: Tensor | None) -> Tensor:
    """w `[B, H, n_i]`, wide, by a plain call whose values are 1 on N and 0 elsewhere."""
    is_n = q.new_zeros(1, 1, q.shape[2], q.shape[3])
    is_n[:, :, n] = 1
    return sdpa(q[:, :, i], k, is_n.expand_as(q), attn_mask=bias)[..., 0].to(wide(q.dtype))


def _sequence_bias(bias: Tensor | float, q: Tensor, n: slice) -> Tensor | None:
    """A bias on N as a bias `[B or 1, 1, 1, L]` on the whole sequence; None where it is nothing."""
    if isinstance(bias, float) and bias == 0:
        return None
    rows = bias.shape[0] if isinstance(bias, Tensor) else 1
    row = q.new_zeros(rows, 1, 1, q.shape[2])
    row[..., n] = bias
    return row
