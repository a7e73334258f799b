"""A guided call's joint attention: which method or form acts on q, k and v, where, how strongly.

Owns the way from settings to the joint functions of `vsf_lib.attention`. Knows tokens as slices only: no
network, pipeline or step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TypedDict

from torch import Tensor

from vsf_lib.adapters.call import GuidedCall
from vsf_lib.adapters.compiled import TracedCall
from vsf_lib.adapters.form import Form
from vsf_lib.attention import joint_attention, nag_attention, nasa_attention, variant_attention

Call = GuidedCall | TracedCall

_Strength = Callable[["float | Tensor", float], "float | Tensor"]
"""What is passed for a strength: its value where guidance is on, and the one that switches it off."""


class _Regions(TypedDict):
    image: slice
    positive: slice
    negative: slice


def attend(
    call: Call,
    name: str,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    image: slice,
    positive: slice,
    negative: slice,
    silent: bool = False,
) -> Tensor:
    """The guided attention `[B, H, L, D]` of one layer; q, k and v after norm and position, N in them.

    With `silent` N is carried along unseen: image and text are as unguided, and the layer is not guided.
    """
    regions: _Regions = {"image": image, "positive": positive, "negative": negative}
    act = _METHODS[call.settings.method] if call.form is None else partial(_form, call.form)
    out = act(call, _silence if silent else call.strength, q, k, v, regions)
    if silent:
        call.carried(name)
    else:
        call.reached(name, q)
    return out


def _silence(on: float | Tensor, off: float) -> float:
    return off


def _sharing(
    attention: Callable[..., Tensor | tuple[Tensor, Tensor]],
    call: Call,
    strength: _Strength,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    regions: _Regions,
) -> Tensor:
    result = attention(
        q,
        k,
        v,
        **regions,
        alpha=call.settings.alpha,
        beta=strength(call.settings.beta, math.inf),
        negative_mask=call.batch.mask,
        kernel=call.kernel,
        fuse=call.fuse,
        return_share=call.record_share and strength is not _silence,
    )
    if isinstance(result, Tensor):
        return result
    out, share = result
    call.add_share(share)
    return out


def _form(
    form: Form, call: Call, strength: _Strength, q: Tensor, k: Tensor, v: Tensor, regions: _Regions
) -> Tensor:
    return form.attention(
        q,
        k,
        v,
        **regions,
        alpha=call.settings.alpha,
        beta=strength(call.settings.beta, math.inf),
        negative_mask=call.batch.mask,
        kernel=call.kernel,
    )


def _nag(call: Call, strength: _Strength, q: Tensor, k: Tensor, v: Tensor, regions: _Regions) -> Tensor:
    return nag_attention(
        q,
        k,
        v,
        **regions,
        phi=call.settings.nag_phi,
        tau=call.settings.nag_tau,
        alpha=strength(call.settings.nag_alpha, 0.0),
        negative_mask=call.batch.mask,
        kernel=call.kernel,
    )


def _nasa(call: Call, strength: _Strength, q: Tensor, k: Tensor, v: Tensor, regions: _Regions) -> Tensor:
    return nasa_attention(
        q,
        k,
        v,
        **regions,
        alpha=strength(call.settings.nasa_alpha, 0.0),
        negative_mask=call.batch.mask,
        kernel=call.kernel,
    )


_METHODS: dict[str, Callable[..., Tensor]] = {
    "vsf": partial(_sharing, joint_attention),
    "difference": partial(_sharing, partial(variant_attention, variant="difference")),
    "nag": _nag,
    "nasa": _nasa,
}
