"""One guided call of a denoiser: the negative that it has, the rows that it acts on, the layers it reached.

Owns what all layers of a call share, and the record of them. Knows no kind of attention, network or step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from vsf_lib.adapters.form import Form
from vsf_lib.attention import plan_kernel
from vsf_lib.settings import SHARING, Settings

T = TypeVar("T")


@dataclass
class Batch:
    """What the guided calls of one arrangement of rows share, to the end of a generation."""

    negative: Tensor
    """`[B, n_n, C]`, or `[1, n_n, C]` where all rows have the same one."""
    mask: Tensor | None = None
    """`[B, n_n]` bool, False on padding; None where there is none."""
    guided: Tensor | None = None
    """`[B]` bool, False on unconditional rows; None if every row is guided."""
    picked: Tensor | None = None
    """The guided rows as indices, where `guided` is given."""
    pooled: Tensor | None = None
    """The negative's pooled embedding `[B or 1, C]`, where the prompt's is moved away from it."""
    kept: dict[str, Any] = field(default_factory=dict)
    """See `GuidedCall.keep`."""


@dataclass
class GuidedCall:
    """What all layers of one denoiser call share; discarded after it."""

    settings: Settings
    batch: Batch
    kernel: str = "auto"
    record_share: bool = False
    form: Form | None = None
    """What stands in VSF's place, if anything does."""
    n_p: int = 0
    """How many tokens the prompt has, for layers that are handed one sequence of text and image."""
    layers: set[str] = field(default_factory=set)
    """The layers that were guided so far."""
    silent: set[str] = field(default_factory=set)
    """The layers that have carried N along unseen."""
    kernels: set[str] = field(default_factory=set)
    """What computed them."""
    _share: Tensor | None = None

    @property
    def n_n(self) -> int:
        return self.batch.negative.shape[1]

    def rows(self, on: float, off: float) -> float | Tensor:
        """A strength for the attention functions: one number, or `[B]` where some rows stay unguided."""
        return on if self.batch.guided is None else torch.where(self.batch.guided, on, off)

    def keep(self, key: str, make: Callable[[], T]) -> T:
        """What `make` gave when this was first asked for in a generation: N is the same in every step."""
        kept = self.batch.kept
        if key not in kept:
            kept[key] = make()
        value: T = kept[key]
        return value

    def reached(self, name: str, q: Tensor) -> None:
        """Takes note of a layer that was guided, with queries q."""
        if not self.kernels:  # the layers of one network are alike
            # NAG and NASA need no log-sum-exp, so PyTorch chooses for them, and for masked forms.
            exact = self.settings.method in SHARING if self.form is None else self.form.exact
            self.kernels.add(plan_kernel(q, self.kernel) if exact else "scaled_dot_product_attention")
        self.layers.add(name)

    def add_share(self, share: Tensor) -> None:
        """Adds one layer's share of the negative `[B, H, n_i]`, as the mean over its heads."""
        mean = share.float().mean(dim=1)
        self._share = mean if self._share is None else self._share + mean

    def share(self) -> Tensor | None:
        """The negative's share of attention `[guided rows, n_i]`, mean over heads and layers, if recorded."""
        if self._share is None:
            return None
        mean = self._share / len(self.layers)
        picked = self.batch.picked
        return mean if picked is None else mean.index_select(0, picked)
