"""One guided call of a denoiser: the negative that it has, the rows that it acts on, the layers it reached.

Owns what all layers of a call share, and the record of them. Knows no kind of attention, network or step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
from torch import Tensor

from vsf_lib.adapters.form import Form
from vsf_lib.attention import plan_kernel
from vsf_lib.settings import SHARING, Settings

if TYPE_CHECKING:
    from vsf_lib.adapters.compiled import Tally

T = TypeVar("T")

Recording = bool | Literal["layers"]
"""Whether the negative's share of attention is kept, and if so whether each layer's own too."""


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

    def keep(self, key: str, make: Callable[[], T]) -> T:
        """What `make` gave when this was first asked for in a generation: N is the same in every step."""
        if key not in self.kept:
            self.kept[key] = make()
        value: T = self.kept[key]
        return value


@dataclass
class GuidedCall:
    """What all layers of one denoiser call share; discarded after it."""

    settings: Settings
    batch: Batch
    kernel: str = "auto"
    fuse: bool = False
    """Whether the merge is compiled into one kernel."""
    record_share: Recording = False
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
    tally: Tally | None = None
    """What counts the layers of a compiled model."""
    _share: Tensor | None = None
    _layer_shares: list[Tensor] = field(default_factory=list)

    @property
    def n_n(self) -> int:
        return self.batch.negative.shape[1]

    def strength(self, on: float | Tensor, off: float) -> float | Tensor:
        """A strength for the attention functions: one number, or `[B]` where some rows stay unguided."""
        return on if self.batch.guided is None else torch.where(self.batch.guided, on, off)

    def tiled(self, times: int) -> GuidedCall:
        """The same call, its rows `times` over one behind the other; it fills the same record."""
        if times == 1:
            return self
        batch = self.batch
        rows = Batch(
            batch.negative.repeat(times, 1, 1),
            None if batch.mask is None else batch.mask.repeat(times, 1),
            None if batch.guided is None else batch.guided.repeat(times),
        )
        return replace(self, batch=rows)

    def keep(self, key: str, make: Callable[[], T]) -> T:
        """See `Batch.keep`."""
        return self.batch.keep(key, make)

    def reached(self, name: str, q: Tensor) -> None:
        """Takes note of a layer that was guided, with queries q."""
        if not self.kernels:  # the layers of one network are alike
            # NAG and NASA need no log-sum-exp, so PyTorch chooses for them, and for masked forms.
            exact = self.settings.method in SHARING if self.form is None else self.form.exact
            self.kernels.add(plan_kernel(q, self.kernel) if exact else "scaled_dot_product_attention")
        self.layers.add(name)

    def carried(self, name: str) -> None:
        """Takes note of a layer that has carried N along unseen."""
        self.silent.add(name)

    def add_share(self, share: Tensor) -> None:
        """Adds one layer's share of the negative `[B, H, n_i]`, as the mean over its heads."""
        mean = share.float().mean(dim=1)
        self._share = mean if self._share is None else self._share + mean
        if self.record_share == "layers":
            self._layer_shares.append(mean)

    def share(self) -> Tensor | None:
        """The negative's share of attention `[guided rows, n_i]`, mean over heads and layers, if recorded."""
        if self._share is None:
            return None
        return self._guided_rows(self._share / len(self.layers))

    def layer_share(self) -> Tensor | None:
        """The same of each layer, in the order in which they ran, `[layers, guided rows, n_i]`."""
        if not self._layer_shares:
            return None
        return torch.stack([self._guided_rows(share) for share in self._layer_shares])

    def _guided_rows(self, share: Tensor) -> Tensor:
        picked = self.batch.picked
        return share if picked is None else share.index_select(0, picked)
