"""A guided call's cross-attention: which method acts on q, on P's and on N's keys and values, how strongly.

Owns the way from settings to the cross functions of `vsf_lib.attention`. Knows no network, pipeline or step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from torch import Tensor

from vsf_lib.adapters.call import GuidedCall
from vsf_lib.adapters.compiled import TracedCall
from vsf_lib.attention import (
    cross_attention,
    nag_cross_attention,
    nasa_cross_attention,
    variant_cross_attention,
)

Call = GuidedCall | TracedCall
Pair = tuple[Tensor, Tensor]


def attend(call: Call, name: str, q: Tensor, k: Tensor, v: Tensor, negative: Pair) -> Tensor:
    """The guided attention `[B, H, n_i, D]` of one layer; `negative` is N's keys and values, after norm."""
    out = _METHODS[call.settings.method](call, q, k, v, negative)
    call.reached(name, q)
    return out


def _sharing(
    attention: Callable[..., Tensor | tuple[Tensor, Tensor]],
    call: Call,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    negative: Pair,
) -> Tensor:
    result = attention(
        q,
        k,
        v,
        negative=negative,
        alpha=call.settings.alpha,
        beta=call.strength(call.settings.beta, math.inf),
        negative_mask=call.batch.mask,
        kernel=call.kernel,
        fuse=call.fuse,
        return_share=bool(call.record_share),
    )
    if isinstance(result, Tensor):
        return result
    out, share = result
    call.add_share(share)
    return out


def _nag(call: Call, q: Tensor, k: Tensor, v: Tensor, negative: Pair) -> Tensor:
    return nag_cross_attention(
        q,
        k,
        v,
        negative=negative,
        phi=call.settings.nag_phi,
        tau=call.settings.nag_tau,
        alpha=call.strength(call.settings.nag_alpha, 0.0),
        negative_mask=call.batch.mask,
    )


def _nasa(call: Call, q: Tensor, k: Tensor, v: Tensor, negative: Pair) -> Tensor:
    return nasa_cross_attention(
        q,
        k,
        v,
        negative=negative,
        alpha=call.strength(call.settings.nasa_alpha, 0.0),
        negative_mask=call.batch.mask,
    )


_METHODS: dict[str, Callable[..., Tensor]] = {
    "vsf": partial(_sharing, cross_attention),
    "difference": partial(_sharing, partial(variant_cross_attention, variant="difference")),
    "nag": _nag,
    "nasa": _nasa,
}
