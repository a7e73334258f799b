"""Another attention in the place of VSF's, under a name of its own: for benchmarks.

Owns what a guidance must know of such a form. Knows tensors only: no network, pipeline or step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from vsf_lib.errors import SettingsError
from vsf_lib.settings import GUIDING

JointForm = Callable[..., Tensor]
"""q, k and v to the guided `[B, H, L, D]`, with the keyword arguments of `attention.joint_attention` from
`image` to `kernel`."""


@dataclass(frozen=True)
class Form:
    """A form of joint attention that `guided` can run with the settings of method "vsf".

    Alpha, beta, start, end and all that concerns the negative embedding mean what they mean for VSF. What is
    drawn with a form is not VSF's, so reports carry the form's own name.
    """

    name: str
    attention: JointForm
    embed: Callable[[Tensor, float], Tensor] | None = None
    """A negative embedding `[n, C]` and alpha to what enters the network `[m, C]`, or None for no change."""
    exact: bool = True
    """Whether it runs on the kernels of VSF's exact form; otherwise by plain masked calls."""

    def __post_init__(self) -> None:
        if not self.name or self.name in GUIDING:
            raise SettingsError(f"a form is named {self.name!r}, which is a method's name: give it its own")
