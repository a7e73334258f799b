"""One guided call of a denoiser with joint attention: which method acts on q, k and v, where, how strongly.

Owns the way from settings to the functions of `vsf_lib.attention`, and the record of the layers that were
guided. Knows tokens as slices only: no network, pipeline or step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypedDict

import torch
from torch import Tensor

from vsf_lib.attention import joint_attention, nag_attention, nasa_attention, plan_kernel
from vsf_lib.settings import Settings

_Strength = Callable[[float, float], "float | Tensor"]
"""What is passed for a strength: its value where guidance is on, and the one that switches it off."""


class _Regions(TypedDict):
    image: slice
    positive: slice
    negative: slice


@dataclass
class GuidedCall:
    """What all layers of one denoiser call share; discarded after it."""

    settings: Settings
    n_n: int
    guided_rows: Tensor | None
    """`[B]` bool, False on unconditional rows; None if every row is guided."""
    negative_mask: Tensor | None
    """`[B, n_n]` bool, False on padding."""
    picked: Tensor | None = None
    """The guided rows as indices, where `guided_rows` is given."""
    kernel: str = "auto"
    record_share: bool = False
    layers: set[str] = field(default_factory=set)
    """The layers that were guided so far."""
    kernels: set[str] = field(default_factory=set)
    """What computed them."""
    _share: Tensor | None = None

    def attend(
        self,
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

        With `silent` N is carried along unseen: image and text are as unguided, and no layer is counted.
        """
        if not self.kernels:  # the layers of one network are alike
            self.kernels.add(_kernel_name(self, q))
        regions: _Regions = {"image": image, "positive": positive, "negative": negative}
        strength = _silence if silent else self.rows
        out = _METHODS[self.settings.method](self, strength, q, k, v, regions)
        if not silent:
            self.layers.add(name)
        return out

    def rows(self, on: float, off: float) -> float | Tensor:
        """A strength for the attention functions: one number, or `[B]` where some rows stay unguided."""
        if self.guided_rows is None:
            return on
        return torch.where(self.guided_rows, on, off)

    def add_share(self, share: Tensor) -> None:
        """Adds one layer's share of the negative `[B, H, n_i]`, as the mean over its heads."""
        mean = share.float().mean(dim=1)
        self._share = mean if self._share is None else self._share + mean

    def share(self) -> Tensor | None:
        """The negative's share of attention `[guided rows, n_i]`, mean over heads and layers, if recorded."""
        if self._share is None:
            return None
        mean = self._share / len(self.layers)
        return mean if self.picked is None else mean.index_select(0, self.picked)


def _silence(on: float, off: float) -> float:
    return off


def _vsf(call: GuidedCall, strength: _Strength, q: Tensor, k: Tensor, v: Tensor, regions: _Regions) -> Tensor:
    result = joint_attention(
        q,
        k,
        v,
        **regions,
        alpha=call.settings.alpha,
        beta=strength(call.settings.beta, math.inf),
        negative_mask=call.negative_mask,
        kernel=call.kernel,
        return_share=call.record_share and strength is not _silence,
    )
    if isinstance(result, Tensor):
        return result
    out, share = result
    call.add_share(share)
    return out


def _nag(call: GuidedCall, strength: _Strength, q: Tensor, k: Tensor, v: Tensor, regions: _Regions) -> Tensor:
    return nag_attention(
        q,
        k,
        v,
        **regions,
        phi=call.settings.nag_phi,
        tau=call.settings.nag_tau,
        alpha=strength(call.settings.nag_alpha, 0.0),
        negative_mask=call.negative_mask,
        kernel=call.kernel,
    )


def _nasa(
    call: GuidedCall, strength: _Strength, q: Tensor, k: Tensor, v: Tensor, regions: _Regions
) -> Tensor:
    return nasa_attention(
        q,
        k,
        v,
        **regions,
        alpha=strength(call.settings.nasa_alpha, 0.0),
        negative_mask=call.negative_mask,
        kernel=call.kernel,
    )


def _kernel_name(call: GuidedCall, q: Tensor) -> str:
    # NAG and NASA need no log-sum-exp, so PyTorch chooses for them.
    return plan_kernel(q, call.kernel) if call.settings.method == "vsf" else "scaled_dot_product_attention"


_METHODS = {"vsf": _vsf, "nag": _nag, "nasa": _nasa}
