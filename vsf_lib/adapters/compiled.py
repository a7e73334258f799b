"""Guidance inside of a model that torch.compile has made faster.

Owns what a layer is handed there in the place of a `GuidedCall`, and the proof that it ran. A compiled graph
is made once and runs without Python, so that what a call notes there would be noted once: what a layer needs
are numbers that a graph takes in (strengths as tensors, since a graph is made anew for each Python number),
and what it notes is added to a tensor of its own, read once at the end of a generation. Knows no network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from vsf_lib.adapters.call import Batch, GuidedCall
from vsf_lib.attention import plan_kernel
from vsf_lib.errors import GuidanceError
from vsf_lib.settings import SHARING, Settings


def uncompiled(model: Any) -> Any:
    """The module that `torch.compile(model)` has wrapped, or the one that was given."""
    return getattr(model, "_orig_mod", model)


def is_compiled(model: nn.Module) -> bool:
    """Whether the model, or a part of it, is compiled in any of the three ways that there are."""
    return any(
        hasattr(module, "_orig_mod") or compiled_call(module) is not None for module in model.modules()
    )


def compiled_call(module: nn.Module) -> Any:
    """What `module.compile()` has put into the place of its call; None where nothing is."""
    return getattr(module, "_compiled_call_impl", None)


@dataclass(frozen=True, eq=False)
class Strengths:
    """The settings that act on attention, each a tensor `[]` on the model's device."""

    method: str
    alpha: Tensor
    beta: Tensor
    nag_phi: Tensor
    nag_tau: Tensor
    nag_alpha: Tensor
    nasa_alpha: Tensor

    @staticmethod
    def of(settings: Settings, device: torch.device) -> Strengths:
        names = ("alpha", "beta", "nag_phi", "nag_tau", "nag_alpha", "nasa_alpha")
        numbers = torch.tensor([float(getattr(settings, name)) for name in names]).to(device)
        return Strengths(settings.method, *(number.clone() for number in numbers))


@dataclass(eq=False)
class TracedCall:
    """What one layer has for all calls of one arrangement of rows in a generation.

    As far as attention goes the same as a `GuidedCall`, but for the length of N, which layers read off their
    own tensors: a graph is made anew for each number and each size of what is reached through the model, as
    this is. For the same reason what all layers have alike is alike in all of them.
    """

    settings: Strengths
    batch: Batch
    kernel: str
    rows: int
    n_p: int
    n_i: int
    """How many image tokens, for layers that are handed one sequence of text and image."""
    tally: Tensor
    """`[]`, int32: how often the layer has run."""
    record_share: bool = False
    fuse: bool = False  # the graph that this is in fuses the merge
    form: None = None

    def strength(self, on: float | Tensor, off: float) -> float | Tensor:
        """See `GuidedCall.strength`."""
        return on if self.batch.guided is None else torch.where(self.batch.guided, on, off)

    def reached(self, name: str, q: Tensor) -> None:
        self.tally.add_(1)

    def carried(self, name: str) -> None:
        self.tally.add_(1)

    def add_share(self, share: Tensor) -> None:
        raise NotImplementedError


def padded(batch: Batch, rows: int, pair: tuple[Tensor, Tensor]) -> tuple[Batch, tuple[Tensor, Tensor]]:
    """N's keys and values `[B or 1, H, n, D]` of one of few lengths, and the mask `[rows, n]` that hides what
    was added: see `TracedCall`."""
    n_n = pair[0].shape[2]
    more = max(8, 1 << (n_n - 1).bit_length()) - n_n
    mask = batch.mask
    if mask is None:
        mask = torch.ones(rows, n_n, dtype=torch.bool, device=pair[0].device)
    k, v = (pad(x, (0, 0, 0, more)) for x in pair)
    return replace(batch, mask=pad(mask, (0, more))), (k, v)


class Tally:
    """The traced calls of one arrangement of rows, and how often they should have run."""

    def __init__(self, call: GuidedCall, layers: Mapping[str, Any], text: Tensor, n_i: int) -> None:
        """`layers` by name, of which the first tells how wide heads are; `text` is the prompt's."""
        self._calls = 0
        strengths = Strengths.of(call.settings, text.device)
        self.traced = {
            name: TracedCall(
                strengths,
                call.batch,
                call.kernel,
                len(text),
                call.n_p,
                n_i,
                torch.zeros((), dtype=torch.int32, device=text.device),
            )
            for name in layers
        }
        layer: Any = next(iter(layers.values()))
        q = text.new_empty(1, 1, 64, layer.inner_dim // layer.heads)
        exact = call.settings.method in SHARING
        self._kernel = plan_kernel(q, call.kernel) if exact else "scaled_dot_product_attention"

    def count(self, call: GuidedCall, silent: set[str]) -> None:
        """Takes note of a call that has returned; that its layers ran is believed until `check`."""
        self._calls += 1
        call.silent |= silent
        call.layers |= self.traced.keys() - silent
        call.kernels.add(f"{self._kernel}, compiled")

    def check(self) -> None:
        """Raises GuidanceError unless every layer ran in every call; waits for the device."""
        ran = torch.stack([traced.tally for traced in self.traced.values()]).tolist()
        missed = [name for name, times in zip(self.traced, ran, strict=True) if times != self._calls]
        if missed:
            raise GuidanceError(
                f"{len(missed)} of {len(ran)} layers did not run guided in each of {self._calls} calls, the "
                f"first is {missed[0]}: the compiled model kept a graph of its own "
                "(torch.compiler.set_stance?); load the pipeline without compiling it"
            )
