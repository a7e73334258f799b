"""Variants of value sign flip that its exact form makes free: other formulas on the same kernel calls.

Owns the choice of formula. None of these is in the paper, and none may be called VSF. "difference" did best
where they were measured (docs/evidence.md) and is a method of its own; the others stand here for benchmarks.
With O_b, O_n and w as in `joint`:

    flip         (1 - w) O_b - alpha w O_n      the paper's, here only to be limited
    undiluted            O_b - alpha w O_n
    difference           O_b - alpha w (O_n - O_b)

The paper's form takes the share w of the ordinary output away wherever an image token looks at the negative;
the undiluted one keeps all of it, and the difference leaves alone what both have in common. `limit` is NAG's
third step (Chen et al., section 4): per token over all heads together, the 1-norm of the result is at most
`limit` times that of O_b.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from .cross import cross_attention
from .joint import joint_attention
from .layout import Strength, read_scalar
from .merge import FLIP, Formula

VARIANTS = ("flip", "undiluted", "difference")


def variant_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    variant: str,
    image: slice,
    positive: slice,
    negative: slice,
    alpha: Strength,
    beta: Strength,
    limit: float | None = None,
    negative_mask: Tensor | None = None,
    kernel: str = "auto",
    return_share: bool = False,
    fuse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Attention of `[B, H, L, D]` with another formula on image rows; all else as in `joint_attention`.

    variant: one of VARIANTS. limit: 1 or more, or None for no limit. alpha: of "difference" a float or `[B]`
    only, since tokens of different alpha have no one difference. Where all is off, image and positive rows
    equal the unguided call bit by bit, as VSF's do.
    """
    return joint_attention(
        q,
        k,
        v,
        image=image,
        positive=positive,
        negative=negative,
        alpha=alpha,
        beta=beta,
        negative_mask=negative_mask,
        kernel=kernel,
        return_share=return_share,
        fuse=fuse,
        formula=_formula(variant, alpha, q, limit),
    )


def variant_cross_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    variant: str,
    negative: tuple[Tensor, Tensor],
    alpha: Strength,
    beta: Strength,
    limit: float | None = None,
    negative_mask: Tensor | None = None,
    kernel: str = "auto",
    return_share: bool = False,
    fuse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """`cross_attention` with another formula; variant, alpha and limit as in `variant_attention`."""
    return cross_attention(
        q,
        k,
        v,
        negative=negative,
        alpha=alpha,
        beta=beta,
        negative_mask=negative_mask,
        kernel=kernel,
        return_share=return_share,
        fuse=fuse,
        formula=_formula(variant, alpha, q, limit),
    )


def _formula(variant: str, alpha: Strength, q: Tensor, limit: float | None) -> Formula:
    return Formula(_keep(variant, alpha, q), _read_limit(limit))


def _keep(variant: str, alpha: Strength, q: Tensor) -> Callable[[Tensor], Tensor] | None:
    if variant == "flip":
        return FLIP.keep
    if variant == "undiluted":
        return None
    if variant == "difference":
        a = read_scalar("alpha of a difference", alpha, q)
        return lambda w: 1 + w * a
    raise ValueError(f"unknown variant {variant!r}; known are {', '.join(VARIANTS)}")


def _read_limit(limit: float | None) -> float | None:
    if limit is not None and not 1 <= limit < math.inf:  # NaN compares as false
        raise ValueError(f"limit must be 1 or more, or None for no limit, not {limit}")
    return limit
