"""Flux as Forge's backend builds it, small: RoPE, double and single blocks, text first and without position.

Our own writing after the facts of that host; `tests/forge` runs the same adapter in the real one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

HEADS, WIDTH = 2, 16
PATCH = 2


def attention_function(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    heads: int,
    mask: Tensor | None = None,
    attn_precision: Any = None,
    skip_reshape: bool = False,
) -> Tensor:
    """`[B, H, L, D]` each; returns `[B, L, H D]`."""
    assert skip_reshape
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return out.transpose(1, 2).flatten(2)


def attention(q: Tensor, k: Tensor, v: Tensor, pe: Tensor) -> Tensor:
    return attention_function(rotate(q, pe), rotate(k, pe), v, q.shape[1], skip_reshape=True)


def rotate(x: Tensor, pe: Tensor) -> Tensor:
    """Pairs of channels turned by the angles `pe` `[B, L, D / 2]`."""
    a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
    sin, cos = pe.sin()[:, None], pe.cos()[:, None]
    return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)


def split(qkv: Tensor) -> list[Tensor]:
    return list(qkv.unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4).unbind(0))


class DoubleBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        for stream in ("img", "txt"):
            setattr(self, f"{stream}_mod", nn.Linear(WIDTH, 3 * WIDTH))
            setattr(self, f"{stream}_qkv", nn.Linear(WIDTH, 3 * WIDTH))
            setattr(self, f"{stream}_proj", nn.Linear(WIDTH, WIDTH))
            setattr(self, f"{stream}_mlp", nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU()))

    def forward(self, img: Tensor, txt: Tensor, vec: Tensor, pe: Tensor) -> tuple[Tensor, Tensor]:
        parts = []
        for stream, x in (("txt", txt), ("img", img)):
            shift = getattr(self, f"{stream}_mod")(vec)[:, None].chunk(3, dim=-1)[0]
            parts.append(split(getattr(self, f"{stream}_qkv")(F.layer_norm(x, (WIDTH,)) + shift)))
        joint = attention(*(torch.cat(pair, dim=2) for pair in zip(*parts, strict=True)), pe=pe)
        out = []
        for stream, x, attended in (
            ("img", img, joint[:, txt.shape[1] :]),
            ("txt", txt, joint[:, : txt.shape[1]]),
        ):
            gate, gate_mlp = getattr(self, f"{stream}_mod")(vec)[:, None].chunk(3, dim=-1)[1:]
            x = x + gate * getattr(self, f"{stream}_proj")(attended)
            out.append(x + gate_mlp * getattr(self, f"{stream}_mlp")(F.layer_norm(x, (WIDTH,))))
        return out[0], out[1]


class SingleBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.modulation = nn.Linear(WIDTH, 2 * WIDTH)
        self.linear1, self.linear2 = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: Tensor, vec: Tensor, pe: Tensor) -> Tensor:
        shift, gate = self.modulation(vec)[:, None].chunk(2, dim=-1)
        both = self.linear1(F.layer_norm(x, (WIDTH,)) + shift)
        attended = attention(*split(both[..., : 3 * WIDTH]), pe=pe)
        return x + gate * self.linear2(torch.cat([attended, F.gelu(both[..., 3 * WIDTH :])], dim=-1))


class SmallFlux(nn.Module):
    """Latents `[B, 4, h, w]` and text `[B, n, 16]` to a velocity `[B, 4, h, w]`."""

    channels, text_width, pooled_width = 4, 16, 8
    num_heads, hidden_size = HEADS, WIDTH

    def __init__(self, doubles: int = 2, singles: int = 2) -> None:
        super().__init__()
        self.img_in = nn.Linear(self.channels * PATCH**2, WIDTH)
        self.txt_in = nn.Linear(self.text_width, WIDTH)
        self.vector_in = nn.Linear(self.pooled_width, WIDTH)
        self.double_blocks = nn.ModuleList(DoubleBlock() for _ in range(doubles))
        self.single_blocks = nn.ModuleList(SingleBlock() for _ in range(singles))
        self.final_layer = nn.Linear(WIDTH, self.channels * PATCH**2)
        self.uses = lambda block: True
        """Which blocks run; a cache skips some."""

    def forward(
        self, x: Tensor, t: Tensor, context: Tensor, y: Tensor, guidance: Any = None, **_: Any
    ) -> Tensor:
        h, w = x.shape[-2:]
        img = self.img_in(F.unfold(x, PATCH, stride=PATCH).transpose(1, 2))
        txt, vec = self.txt_in(context), self.vector_in(y) + t.to(x)[:, None].sin()
        place = torch.arange(img.shape[1]).to(x)[None, :, None] * torch.linspace(
            1, 0.1, WIDTH // HEADS // 2
        ).to(x)
        pe = torch.cat([place.new_zeros(1, txt.shape[1], place.shape[2]), place], dim=1)
        for block in self.double_blocks:
            if self.uses(block):
                img, txt = block(img=img, txt=txt, vec=vec, pe=pe)
        joint = torch.cat([txt, img], dim=1)
        for block in self.single_blocks:
            if self.uses(block):
                joint = block(joint, vec=vec, pe=pe)
        out = self.final_layer(joint[:, txt.shape[1] :])
        return F.fold(out.transpose(1, 2), (h, w), PATCH, stride=PATCH)
