"""Flux as Forge and Forge Neo have it: text first, then image, in double-stream and single-stream blocks.

Owns that network's token order and the function that its attention ends in, after RoPE: N has the position of
all text there, which is none. Both kinds of block carry text, so both are guided; `Settings.blocks` "double"
leaves N unseen in the single ones. Knows no host module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from vsf_lib.adapters.forge_joint import JointNetwork
from vsf_lib.adapters.forge_network import Function, Size, Tap, find_tap
from vsf_lib.errors import GuidanceError

_PATCH = 2


class ForgeFlux(JointNetwork):
    """See `forge_network.ForgeNetwork`."""

    title = "Flux"
    home = "backend.nn.flux"
    extrapolates = True

    def matches(self, model: nn.Module) -> bool:
        # Chroma and Flux.2 have such blocks too, but modulate them from outside.
        doubles, singles = getattr(model, "double_blocks", None), getattr(model, "single_blocks", None)
        return (
            isinstance(doubles, nn.ModuleList)
            and isinstance(singles, nn.ModuleList)
            and len(doubles) > 0
            and len(singles) > 0
            and hasattr(doubles[0], "txt_mod")
            and hasattr(singles[0], "modulation")
        )

    def blocks(self, model: nn.Module) -> Mapping[str, nn.Module]:
        return {
            f"{kind}.{i}": block
            for kind in ("double_blocks", "single_blocks")
            for i, block in enumerate(getattr(model, kind))
        }

    def tap(self, model: nn.Module) -> Tap:
        return find_tap(
            model, "attention_function", ["q", "k", "v", "heads"], ["query", "key", "value", "heads"]
        )

    def size(self, model: nn.Module) -> Size:
        heads, channels = int(model.num_heads), int(model.hidden_size)  # type: ignore[arg-type]
        return Size(heads, channels // heads, _PATCH)

    def lengths(
        self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], text: int
    ) -> tuple[int, int]:
        if name.startswith("double_blocks"):
            img = kwargs["img"] if "img" in kwargs else args[0]
            txt = kwargs["txt"] if "txt" in kwargs else args[1]
            return txt.shape[1], img.shape[1]
        # A single block is not told where the text ends: it is as long as at the start.
        x = args[0] if args else kwargs["x"]
        return text, x.shape[1] - text

    def attention(self, original: Function, attend: Callable[..., Tensor | None]) -> Function:
        def attention_function(q: Tensor, k: Tensor, v: Tensor, heads: int, *args: Any, **kwargs: Any) -> Any:
            if kwargs.get("mask") is not None or (args and args[0] is not None):
                raise GuidanceError("this model masks its attention, which guidance does not know")
            out = attend(q, k, v) if kwargs.get("skip_reshape") else None
            if out is None:
                return original(q, k, v, heads, *args, **kwargs)
            return out.transpose(1, 2).flatten(2)

        return attention_function


NETWORK = ForgeFlux()
