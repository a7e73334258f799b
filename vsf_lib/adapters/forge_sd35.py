"""SD3.5 in Forge's backend (MMDiTX): text first, then image, through one attention function of its module.

Owns that network's token order, the tensor layout of its attention function, and the recognition of it by
structure. Of the last block, whose text output is dropped, only image rows count; the second, image-only
attention of dual blocks passes through the same function and is told by its length. Knows no host module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from vsf_lib.adapters.forge_joint import JointNetwork
from vsf_lib.adapters.forge_network import Function, Size, Tap, find_tap
from vsf_lib.errors import GuidanceError


class ForgeSd35(JointNetwork):
    """See `forge_network.ForgeNetwork`."""

    title = "SD3.5"
    home = "backend.nn.mmditx"
    extrapolates = False

    def matches(self, model: nn.Module) -> bool:
        return isinstance(getattr(model, "joint_blocks", None), nn.ModuleList)

    def blocks(self, model: nn.Module) -> Mapping[str, nn.Module]:
        return {f"joint_blocks.{i}": block for i, block in enumerate(model.joint_blocks)}  # type: ignore[arg-type]

    def tap(self, model: nn.Module) -> Tap:
        return find_tap(model, "attention", ["q", "k", "v", "heads"])

    def size(self, model: nn.Module) -> Size:
        blocks: Any = model.joint_blocks
        attention = blocks[0].x_block.attn
        return Size(attention.num_heads, attention.head_dim, int(model.patch_size))  # type: ignore[arg-type]

    def lengths(
        self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], text: int
    ) -> tuple[int, int]:
        context = args[0] if args else kwargs["context"]
        x = args[1] if len(args) > 1 else kwargs["x"]
        return context.shape[1], x.shape[1]

    def attention(self, original: Function, attend: Callable[..., Tensor | None]) -> Function:
        def attention(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
            if mask is not None:
                raise GuidanceError("this model masks its attention, which guidance does not know")
            out = attend(*(_heads(x, heads) for x in (q, k, v)))
            return original(q, k, v, heads) if out is None else out.transpose(1, 2).flatten(2)

        return attention


def _heads(x: Tensor, heads: int) -> Tensor:
    """`[B, L, H D]`, or `[B, L, H, D]` as values come, to `[B, H, L, D]`."""
    return (x if x.ndim == 4 else x.unflatten(2, (heads, -1))).transpose(1, 2)


NETWORK = ForgeSd35()
