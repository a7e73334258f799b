"""The methods VSF is compared with: NASA and NAG, on joint attention.

Owns their two formulas. Both need attention of the image rows over [I, P] (Z+) and over [I, N] (Z-); text
rows stay with their own text: P over [I, P] as unguided, N over [I, N]. Must not know models.

Sources: NASA, Nguyen et al., "SNOOPI"; NAG, Chen et al., "Normalized Attention Guidance", section 4; the VSF
paper's section 4 for the settings it compares with.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.functional import scaled_dot_product_attention as sdpa

from .kernels import check_kernel_name
from .layout import (
    Strength,
    autocast,
    check_qkv,
    lowest,
    mask_bias,
    new_output,
    read_mask,
    read_regions,
    read_scalar,
    take,
    wide,
    within,
)


def nasa_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    image: slice,
    positive: slice,
    negative: slice,
    alpha: Strength,
    negative_mask: Tensor | None = None,
    kernel: str = "auto",
) -> Tensor:
    """Z = Z+ - alpha Z- on image rows; q, k, v and the result `[B, H, L, D]`.

    alpha: float or `[B]`; 0 switches a row off exactly. Other arguments as in `joint_attention`; no
    log-sum-exp is needed, so every `kernel` but "masked" means plain calls of F.scaled_dot_product_attention.
    """
    a = read_scalar("alpha", alpha, q)
    return _combine(
        q,
        k,
        v,
        (image, positive, negative),
        negative_mask,
        kernel,
        lambda z_pos, z_neg: z_pos - z_neg * a,
    )


def nag_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    image: slice,
    positive: slice,
    negative: slice,
    phi: Strength,
    tau: Strength,
    alpha: Strength,
    p: float = 1,
    negative_mask: Tensor | None = None,
    kernel: str = "auto",
) -> Tensor:
    """Normalised attention guidance on image rows; q, k, v and the result `[B, H, L, D]`.

        Zt = Z+ + phi (Z+ - Z-)
        Zt = Zt min(1, tau ||Z+|| / ||Zt||)      the p-norm of a token over all heads together
        Z  = alpha Zt + (1 - alpha) Z+

    phi, tau, alpha: floats or `[B]`; alpha = 0 switches a row off exactly. (NAG's code calls phi + 1 its
    scale.) p: 1 as in the paper, 2 as in the authors' Flux code. `kernel` as in `nasa_attention`.
    """
    phi, tau, a = read_scalar("phi", phi, q), read_scalar("tau", tau, q), read_scalar("alpha", alpha, q)

    def combine(z_pos: Tensor, z_neg: Tensor) -> Tensor:
        z = z_pos + (z_pos - z_neg) * phi
        norm_pos = torch.linalg.vector_norm(z_pos, p, dim=(1, 3), keepdim=True)
        norm = torch.linalg.vector_norm(z, p, dim=(1, 3), keepdim=True)
        limit = (norm_pos * tau / norm.clamp(min=1e-6)).clamp(max=1)
        return z * (limit * a) + z_pos * (1 - a)

    return _combine(q, k, v, (image, positive, negative), negative_mask, kernel, combine)


def _combine(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    slices: tuple[slice, slice, slice],
    negative_mask: Tensor | None,
    kernel: str,
    combine: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Z+ and Z- to the formula, in float32 on image rows; the text's rows to their places."""
    check_kernel_name(kernel)
    q, k, v = autocast(q, k, v)
    check_qkv(q, k, v)
    if q.shape != k.shape:
        raise ValueError(
            f"joint attention needs q and k of one length, got {list(q.shape)} and {list(k.shape)}"
        )
    regions = read_regions(q.shape[2], *slices)
    i, p, n = regions
    mask = read_mask(negative_mask, q, regions.n_n)
    if regions.n_n == 0:  # no negative prompt: nothing to move away from
        return sdpa(q, k, v)
    z_pos = _see(q, k, v, i, p, None, kernel)
    z_neg = _see(q, k, v, i, n, mask_bias(mask, q), kernel)
    z = combine(z_pos[:, :, within(i, [p])].to(wide(q.dtype)), z_neg[:, :, within(i, [n])].to(wide(q.dtype)))
    out = new_output(q)
    out[:, :, i] = z
    out[:, :, p] = z_pos[:, :, within(p, [i])]
    out[:, :, n] = z_neg[:, :, within(n, [i])]
    return out


def _see(
    q: Tensor, k: Tensor, v: Tensor, i: slice, text: slice, hidden: Tensor | None, kernel: str
) -> Tensor:
    """Attention of [I, text] over itself; `hidden` `[B, 1, 1, n]` is a bias on the text's keys."""
    parts = (i, text)
    if kernel == "masked":
        # No copies of q, k and v: the rest of the sequence is hidden instead, and its rows are dropped.
        row = q.new_full((q.shape[0], 1, 1, q.shape[2]), lowest(q.dtype))
        row[..., i] = 0
        row[..., text] = 0 if hidden is None else hidden
        return take(sdpa(q, k, v, attn_mask=row.expand(-1, -1, q.shape[2], -1)), parts)
    if hidden is not None:
        at, n = within(text, [i]), i.stop - i.start + text.stop - text.start
        hidden = pad(hidden, (at.start, n - at.stop))
    return sdpa(take(q, parts), take(k, parts), take(v, parts), attn_mask=hidden)
