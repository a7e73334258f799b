"""SD3.5 as Forge's backend builds it, small: text first, one attention function in the module, dual blocks.

Our own writing after the facts of that host; `tests/forge` runs the same adapter in the real one.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

HEADS, WIDTH = 3, 24
PATCH = 2


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    """q, k `[B, L, H D]`, v `[B, L, H, D]`; returns `[B, L, H D]`."""
    q, k = (x.unflatten(2, (heads, -1)).transpose(1, 2) for x in (q, k))
    out = F.scaled_dot_product_attention(q, k, v.transpose(1, 2), attn_mask=mask)
    return out.transpose(1, 2).flatten(2)


class Stream(nn.Module):
    """One of the two streams of a block: image or text."""

    def __init__(self, *, last: bool = False, dual: bool = False) -> None:
        super().__init__()
        self.last, self.dual = last, dual
        self.attn = SimpleNamespace(num_heads=HEADS, head_dim=WIDTH // HEADS)
        self.norm = nn.LayerNorm(WIDTH, elementwise_affine=False)
        self.modulation = nn.Linear(WIDTH, 4 * WIDTH)
        self.qkv = nn.ModuleList(nn.Linear(WIDTH, 3 * WIDTH) for _ in range(1 + dual))
        self.out = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(1 + dual))
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))

    def heads(self, x: Tensor, c: Tensor, which: int) -> tuple[Tensor, Tensor, Tensor]:
        shift, scale = self.modulation(c)[:, None].chunk(4, dim=-1)[:2]
        q, k, v = self.qkv[which](self.norm(x) * (1 + scale) + shift).chunk(3, dim=-1)
        return q, k, v.unflatten(2, (HEADS, -1))

    def after(self, x: Tensor, c: Tensor, *attended: Tensor) -> Tensor:
        gate, gate_mlp = self.modulation(c)[:, None].chunk(4, dim=-1)[2:]
        for out, y in zip(self.out, attended, strict=True):
            x = x + gate * out(y)
        return x + gate_mlp * self.mlp(self.norm(x))


class JointBlock(nn.Module):
    def __init__(self, *, last: bool, dual: bool) -> None:
        super().__init__()
        self.context_block, self.x_block = Stream(last=last), Stream(dual=dual)

    def forward(self, context: Tensor, x: Tensor, c: Tensor) -> tuple[Tensor | None, Tensor]:
        text, image = self.context_block.heads(context, c, 0), self.x_block.heads(x, c, 0)
        joint = attention(*(torch.cat(pair, dim=1) for pair in zip(text, image, strict=True)), HEADS)
        text_out, image_out = joint[:, : context.shape[1]], joint[:, context.shape[1] :]
        attended = [image_out]
        if self.x_block.dual:
            attended.append(attention(*self.x_block.heads(x, c, 1), HEADS))
        after = None if self.context_block.last else self.context_block.after(context, c, text_out)
        return after, self.x_block.after(x, c, *attended)


class SmallMMDiT(nn.Module):
    """Latents `[B, 4, h, w]` and text `[B, n, 16]` to a velocity `[B, 4, h, w]`."""

    channels, text_width, pooled_width = 4, 16, 8
    patch_size = PATCH

    def __init__(self, blocks: int = 3) -> None:
        super().__init__()
        self.x_embedder = nn.Linear(self.channels * PATCH**2, WIDTH)
        self.context_embedder = nn.Linear(self.text_width, WIDTH)
        self.y_embedder = nn.Linear(self.pooled_width, WIDTH)
        self.joint_blocks = nn.ModuleList(
            JointBlock(last=i == blocks - 1, dual=i == 0) for i in range(blocks)
        )
        self.final_layer = nn.Linear(WIDTH, self.channels * PATCH**2)

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        y: Tensor,
        context: Tensor,
        control: Any = None,
        transformer_options: dict[str, Any] | None = None,
    ) -> Tensor:
        h, w = x.shape[-2:]
        c = self.y_embedder(y) + t.to(x)[:, None].sin()
        x = self.x_embedder(F.unfold(x, PATCH, stride=PATCH).transpose(1, 2))
        context = self.context_embedder(context)
        skipped = (transformer_options or {}).get("skip_layers", ())
        for i, block in enumerate(self.joint_blocks):
            if i not in skipped:
                context, x = block(context, x, c=c)
        return F.fold(self.final_layer(x).transpose(1, 2), (h, w), PATCH, stride=PATCH)
