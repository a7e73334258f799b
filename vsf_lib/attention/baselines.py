"""The methods VSF is compared with: NASA and NAG, on joint and on cross-attention.

Owns their two formulas. In joint attention both need the image rows' attention over [I, P] (Z+) and over
[I, N] (Z-), and text rows stay with their own text: P over [I, P] as unguided, N over [I, N]. In
cross-attention Z+ looks at P alone and Z- at N alone, and there are no text rows. Must not know models.

Sources: NASA, Nguyen et al., "SNOOPI"; NAG, Chen et al., "Normalized Attention Guidance", section 4; the VSF
paper's section 4 for the settings it compares with.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn.functional import pad
from torch.nn.functional import scaled_dot_product_attention as sdpa

from .kernels import check_kernel_name
from .layout import (
    Strength,
    autocast,
    check_joint,
    check_qkv,
    lowest,
    mask_bias,
    new_output,
    read_mask,
    read_pair,
    read_regions,
    read_scalar,
    size,
    take,
    wide,
    within,
)
from .merge import in_place, norm_limit, pieces

Formula = Callable[[Tensor, Tensor], Tensor]
"""Z+ and Z- of the image rows, wide, to the guided Z."""


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
    formula = _nasa(q, alpha)
    return _joint(q, k, v, (image, positive, negative), negative_mask, kernel, formula)


def nasa_cross_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    negative: tuple[Tensor, Tensor],
    alpha: Strength,
    negative_mask: Tensor | None = None,
) -> Tensor:
    """Z = Z+ - alpha Z-; q and the result `[B, H, n_i, D]`, k and v `[B, H, n_p, D]`.

    negative: (K_N, V_N), `[B or 1, H, n_n, D]`; n_n may be 0. alpha as in `nasa_attention`.
    """
    return _cross(q, k, v, negative, negative_mask, _nasa(q, alpha))


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
    formula = _nag(q, phi, tau, alpha, p)
    return _joint(q, k, v, (image, positive, negative), negative_mask, kernel, formula)


def nag_cross_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    negative: tuple[Tensor, Tensor],
    phi: Strength,
    tau: Strength,
    alpha: Strength,
    p: float = 1,
    negative_mask: Tensor | None = None,
) -> Tensor:
    """NAG's formula; tensors as in `nasa_cross_attention`, strengths as in `nag_attention`."""
    return _cross(q, k, v, negative, negative_mask, _nag(q, phi, tau, alpha, p))


def _nasa(q: Tensor, alpha: Strength) -> Formula:
    a = read_scalar("alpha", alpha, q)
    return lambda z_pos, z_neg: z_pos - z_neg * a


def _nag(q: Tensor, phi: Strength, tau: Strength, alpha: Strength, p: float) -> Formula:
    phi, tau, a = read_scalar("phi", phi, q), read_scalar("tau", tau, q), read_scalar("alpha", alpha, q)

    def formula(z_pos: Tensor, z_neg: Tensor) -> Tensor:
        z = z_pos + (z_pos - z_neg) * phi
        return z * (norm_limit(z, z_pos, tau, p) * a) + z_pos * (1 - a)

    return formula


def _cross(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    negative: tuple[Tensor, Tensor],
    negative_mask: Tensor | None,
    formula: Formula,
) -> Tensor:
    """Z+ over P and Z- over N to the formula."""
    q, k, v, k_n, v_n = autocast(q, k, v, *negative)
    check_qkv(q, k, v)
    k_n, v_n = read_pair(q, k_n, v_n)
    mask = read_mask(negative_mask, q, k_n.shape[2])
    z_pos = sdpa(q, k, v)
    if k_n.shape[2] == 0:
        return z_pos
    z_neg = sdpa(q, k_n, v_n, attn_mask=mask_bias(mask, q))
    out = z_pos if in_place(z_pos, z_neg) else new_output(q)
    _apply(formula, out, z_pos, z_neg)
    return out


def _joint(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    slices: tuple[slice, slice, slice],
    negative_mask: Tensor | None,
    kernel: str,
    formula: Formula,
) -> Tensor:
    """Z+ and Z- to the formula on image rows; the text's rows to their places."""
    check_kernel_name(kernel)
    q, k, v = autocast(q, k, v)
    check_joint(q, k, v)
    regions = read_regions(q.shape[2], *slices)
    i, p, n = regions
    mask = read_mask(negative_mask, q, size(regions[2]))
    if size(regions[2]) == 0:  # no negative prompt: nothing to move away from
        return sdpa(q, k, v)
    z_pos = _see(q, k, v, i, p, None, kernel)
    z_neg = _see(q, k, v, i, n, mask_bias(mask, q), kernel)
    out = new_output(q)
    _apply(formula, out[:, :, i], z_pos[:, :, within(i, [p])], z_neg[:, :, within(i, [n])])
    out[:, :, p] = z_pos[:, :, within(p, [i])]
    out[:, :, n] = z_neg[:, :, within(n, [i])]
    return out


def _apply(formula: Formula, out: Tensor, z_pos: Tensor, z_neg: Tensor) -> None:
    """`formula` to `out`, piece by piece, wide in between and rounded once."""
    for tokens in pieces(z_pos):
        plus, minus = (z[:, :, tokens].to(wide(z.dtype)) for z in (z_pos, z_neg))
        out[:, :, tokens] = formula(plus, minus)


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
