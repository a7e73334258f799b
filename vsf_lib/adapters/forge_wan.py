"""Wan in Forge Neo: each block's `cross_attn` looks at text, in image-to-video models at an image too.

Owns where that network's parts are and the tensor layout of its attention function, which the self-attention
and the attention over the image pass through as well. The host's batch is one video: its size is the number
of frames. Knows no host module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from vsf_lib.adapters.cross import Pair
from vsf_lib.adapters.forge_cross import CrossNetwork
from vsf_lib.adapters.forge_network import Function, Size, Tap, find_tap
from vsf_lib.errors import GuidanceError

_PATCH = 2


class ForgeWan(CrossNetwork):
    """See `forge_network.ForgeNetwork`."""

    title = "Wan"
    home = "backend.nn.wan"
    extrapolates = False
    one_text = True

    def matches(self, model: nn.Module) -> bool:
        # Others (Cosmos) have blocks with a `cross_attn`, but other names in it.
        blocks = getattr(model, "blocks", None)
        return (
            isinstance(blocks, nn.ModuleList)
            and len(blocks) > 0
            and hasattr(model, "text_embedding")
            and all(
                hasattr(getattr(blocks[0], "cross_attn", None), name) for name in ("q", "k", "v", "norm_k")
            )
        )

    def blocks(self, model: nn.Module) -> Mapping[str, nn.Module]:
        blocks: Any = model.blocks
        return {f"blocks.{i}.cross_attn": block.cross_attn for i, block in enumerate(blocks)}

    def tap(self, model: nn.Module) -> Tap:
        return find_tap(model, "attention_function", ["q", "k", "v", "heads"])

    def size(self, model: Any) -> Size:
        heads, channels = int(model.num_heads), int(model.dim)
        return Size(heads, channels // heads, _PATCH)

    def keys(self, layer: Any) -> nn.Module:
        norm: nn.Module = layer.norm_k
        return norm

    def embed(self, model: Any, text: Tensor) -> Tensor:
        embedded: Tensor = model.text_embedding(text)
        return embedded

    def keys_and_values(self, layer: Any, text: Tensor, heads: int) -> Pair:
        return _heads(layer.norm_k(layer.k(text)), heads), _heads(layer.v(text), heads)

    def attention(self, original: Function, attend: Callable[..., Tensor | None]) -> Function:
        def attention_function(q: Tensor, k: Tensor, v: Tensor, heads: int, *args: Any, **kwargs: Any) -> Any:
            out = None
            if not kwargs.get("skip_reshape"):
                out = attend(*(_heads(x, heads) for x in (q, k, v)), keys=k, heads=heads)
            if out is None:
                return original(q, k, v, heads, *args, **kwargs)
            if kwargs.get("mask") is not None or (args and args[0] is not None):
                raise GuidanceError("this model masks its attention, which guidance does not know")
            return out.transpose(1, 2).flatten(2)

        return attention_function


def _heads(x: Tensor, heads: int) -> Tensor:
    """`[B, n, H D]` to `[B, H, n, D]`; the norm is over all heads together."""
    return x.unflatten(2, (heads, -1)).transpose(1, 2)


NETWORK = ForgeWan()
