"""The forms of attention that the benchmarks run in VSF's place, by name.

Owns the names. What each is stands in `vsf_lib.attention.variants` and `vsf_lib.attention.ablations`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vsf_lib.adapters import Form
from vsf_lib.adapters.form import JointForm
from vsf_lib.attention import joint_attention, variant_attention
from vsf_lib.attention.ablations import (
    embedding_flip_attention,
    no_duplicate_attention,
    no_duplicate_no_mask_attention,
    no_mask_attention,
    released_attention,
)

LIMIT = 1.0
"""Of the norm-limited forms: no growth at all. Larger ones do nothing here: at alpha 4 and beta 1 at most one
image token in a thousand of the small models exceeds 1.1 times the norm of O_b; NAG allows 2.5."""


def _alone(attention: Callable[..., Tensor | tuple[Tensor, Tensor]]) -> JointForm:
    """The same function, of which the share is never asked."""

    def without_share(*qkv: Tensor, **options: Any) -> Tensor:
        out = attention(*qkv, **options)
        return out if isinstance(out, Tensor) else out[0]

    return without_share


def variant(name: str, kind: str, limit: float | None = None) -> Form:
    """A variant of the exact form, of `kind` in attention.VARIANTS."""
    return Form(name, _alone(partial(variant_attention, variant=kind, limit=limit)))


def _twice(negative: Tensor, alpha: float) -> Tensor:
    return negative.repeat_interleave(2, dim=0)


def _negated(negative: Tensor, alpha: float) -> Tensor:
    return -alpha * negative


UNDILUTED = variant("undiluted", "undiluted")
LIMITED = variant("norm-limited", "flip", LIMIT)
UNDILUTED_LIMITED = variant("undiluted, limited", "undiluted", LIMIT)
VARIANTS = (UNDILUTED, LIMITED, UNDILUTED_LIMITED)
"""Those that are no methods, as "difference" is."""

RELEASED = Form("released form", released_attention, _twice, exact=False)
NO_MASK = Form("no mask", no_mask_attention, exact=False)
NO_DUPLICATE = Form("no duplicate", no_duplicate_attention, exact=False)
NO_DUPLICATE_NO_MASK = Form("no duplicate, no mask", no_duplicate_no_mask_attention, exact=False)
EMBEDDING_FLIP = Form("whole-embedding flip", embedding_flip_attention, _negated, exact=False)
ABLATIONS = (NO_MASK, NO_DUPLICATE, NO_DUPLICATE_NO_MASK, EMBEDDING_FLIP)


def weighted(name: str, factors: Sequence[float]) -> Form:
    """VSF with one factor on alpha per token of the negative, as `(wheels:1.5)` could mean it."""

    def attention(q: Tensor, k: Tensor, v: Tensor, *, alpha: float, **others: Any) -> Tensor:
        per_token = alpha * torch.tensor(factors, device=q.device).expand(q.shape[0], -1)
        return _alone(joint_attention)(q, k, v, alpha=per_token, **others)

    return Form(name, attention)
