"""The methods that are timed, by name, what each is given, and the kernels that VSF can take.

Owns the names. Times and calls nothing.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from vsf_lib.attention.kernels import KERNELS, OUTSIDE_KERNELS, plan
from vsf_lib.bench.speed.shapes import Shape

UNPADDED = "-unpadded"
USUAL = ("none", "vsf", "vsf-masked", "difference", "nag", "nasa", "cfg")
"""The names of `bench scenes`, and the masked form, as published. "none" is the unguided call once more."""
METHODS = (*USUAL, f"nag{UNPADDED}", f"nasa{UNPADDED}")
"""With NAG and NASA on a negative that is not padded like the prompt."""
SCALED = ("none", "vsf", "nag")
"""What a scaling measures."""

_FUSED = "+fused"
_FUSING = ("cuda",)
"""Where the merge is timed fused, too: elsewhere it would compile for longer than the rest takes."""

OF_VSF = ("vsf", "vsf-masked", "difference")
"""Those that need no more than VSF's own work."""

ALPHA, BETA = 3.3, 0.2
"""The paper's for SD3.5; no time depends on them."""


def negatives_of(method: str, shape: Shape, n_n: int) -> int:
    """How many negative tokens `method` is given: NAG and NASA pad them like the prompt, as published."""
    return shape.text if method in ("nag", "nasa") else n_n


def vsf_kernels(q: Tensor, k: Tensor, v: Tensor, *, joint: bool) -> list[tuple[str, bool]]:
    """The kernels that VSF can take for these tensors, each with whether it is the one that it does take."""
    chosen = plan(q, k, v)
    usual = chosen.form if chosen.kernel is None else chosen.kernel.name
    here = [kernel.name for kernel in (*KERNELS, *OUTSIDE_KERNELS) if kernel.device == q.device.type]
    names = [name for name in here if _fits(name, q, k, v)]
    if chosen.kernel is not None and q.device.type in _FUSING:
        names.append(usual + _FUSED)
    # In cross-attention the three-call form is the masked one, so it counts only where it is all there is.
    if joint or usual not in names:
        names.append("three-call")
    return [(name, name == usual) for name in names]


def kernel_options(name: str) -> dict[str, Any]:
    """What attention functions and `guided` take for a kernel of `vsf_kernels`."""
    return {"kernel": name.removesuffix(_FUSED), "fuse": name.endswith(_FUSED)}


def _fits(name: str, q: Tensor, k: Tensor, v: Tensor) -> bool:
    try:
        plan(q, k, v, name)
    except ValueError:
        return False
    return True
