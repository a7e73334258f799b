"""Flux as Forge Neo's backend builds it, small: residuals in place, blocks that take `transformer_options`
or are replaced by patches, reference pictures behind the picture.

Our own writing after the facts of that host; `tests/forge` runs the same adapter in the real one.
"""

from __future__ import annotations

from typing import Any

import small_flux
import torch
from small_flux import PATCH, WIDTH, rotate, split
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


def attention_function(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    heads: int,
    mask: Tensor | None = None,
    attn_precision: Any = None,
    skip_reshape: bool = False,
    skip_output_reshape: bool = False,
    **kwargs: Any,
) -> Tensor:
    """`[B, H, L, D]` each; returns `[B, L, H D]`."""
    assert skip_reshape
    assert not skip_output_reshape
    assert "theirs" in kwargs["transformer_options"]
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return out.transpose(1, 2).flatten(2)


def attention(
    q: Tensor, k: Tensor, v: Tensor, pe: Tensor, mask: Tensor | None = None, transformer_options: Any = None
) -> Tensor:
    options = {"skip_reshape": True, "mask": mask, "transformer_options": transformer_options}
    return attention_function(rotate(q, pe), rotate(k, pe), v, q.shape[1], **options)


class DoubleBlock(small_flux.DoubleBlock):
    def forward(
        self,
        img: Tensor,
        txt: Tensor,
        vec: Tensor,
        pe: Tensor,
        attn_mask: Tensor | None = None,
        transformer_options: Any = None,
    ) -> tuple[Tensor, Tensor]:
        parts = []
        for stream, x in (("txt", txt), ("img", img)):
            shift = getattr(self, f"{stream}_mod")(vec)[:, None].chunk(3, dim=-1)[0]
            parts.append(split(getattr(self, f"{stream}_qkv")(F.layer_norm(x, (WIDTH,)) + shift)))
        q, k, v = (torch.cat(pair, dim=2) for pair in zip(*parts, strict=True))
        joint = attention(q, k, v, pe=pe, mask=attn_mask, transformer_options=transformer_options)
        n = txt.shape[1]
        for stream, x, attended in (("img", img, joint[:, n:]), ("txt", txt, joint[:, :n])):
            gate, gate_mlp = getattr(self, f"{stream}_mod")(vec)[:, None].chunk(3, dim=-1)[1:]
            x += gate * getattr(self, f"{stream}_proj")(attended)
            x += gate_mlp * getattr(self, f"{stream}_mlp")(F.layer_norm(x, (WIDTH,)))
        return img, txt


class SingleBlock(small_flux.SingleBlock):
    def forward(
        self,
        x: Tensor,
        vec: Tensor,
        pe: Tensor,
        attn_mask: Tensor | None = None,
        transformer_options: Any = None,
    ) -> Tensor:
        shift, gate = self.modulation(vec)[:, None].chunk(2, dim=-1)
        both = self.linear1(F.layer_norm(x, (WIDTH,)) + shift)
        q, k, v = split(both[..., : 3 * WIDTH])
        attended = attention(q, k, v, pe=pe, mask=attn_mask, transformer_options=transformer_options)
        x += gate * self.linear2(torch.cat([attended, F.gelu(both[..., 3 * WIDTH :])], dim=-1))
        return x


class SmallNeoFlux(nn.Module):
    """Latents `[B, 4, h, w]` and text `[B, n, 16]` to a velocity `[B, 4, h, w]`."""

    channels, text_width, pooled_width = 4, 16, 8

    def __init__(self, doubles: int = 2, singles: int = 2) -> None:
        super().__init__()
        self.img_in = nn.Linear(self.channels * PATCH**2, WIDTH)
        self.txt_in = nn.Linear(self.text_width, WIDTH)
        self.vector_in = nn.Linear(self.pooled_width, WIDTH)
        self.double_blocks = nn.ModuleList(DoubleBlock() for _ in range(doubles))
        self.single_blocks = nn.ModuleList(SingleBlock() for _ in range(singles))
        self.final_layer = nn.Linear(WIDTH, self.channels * PATCH**2)
        self.references: list[Tensor] = []
        """Pictures `[4, h, w]` to look at; the host keeps them apart from the call, too."""

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        context: Tensor,
        y: Tensor,
        guidance: Any = None,
        transformer_options: Any = None,
        **_: Any,
    ) -> Tensor:
        h, w = x.shape[-2:]
        options = {"theirs": None, **(transformer_options or {})}
        seen = [x, *(picture.to(x).expand(len(x), -1, -1, -1) for picture in self.references)]
        img = torch.cat(
            [self.img_in(F.unfold(each, PATCH, stride=PATCH).transpose(1, 2)) for each in seen], dim=1
        )
        txt, vec = self.txt_in(context), self.vector_in(y) + t.to(x)[:, None].sin()
        place = torch.arange(img.shape[1]).to(x)[None, :, None] * torch.linspace(1, 0.1, 4).to(x)
        pe = torch.cat([place.new_zeros(1, txt.shape[1], place.shape[2]), place], dim=1)
        replaced = options.get("patches_replace", {}).get("dit", {})
        for i, block in enumerate(self.double_blocks):
            given = {"img": img, "txt": txt, "vec": vec, "pe": pe, "transformer_options": options}
            if ("double_block", i) in replaced:
                original = {"original_block": lambda args, block=block: block(**args)}
                img, txt = replaced["double_block", i](given, original)
            else:
                img, txt = block(**given)
        joint = torch.cat([txt, img], dim=1)
        for block in self.single_blocks:
            joint = block(joint, vec=vec, pe=pe, transformer_options=options)
        n, n_i = txt.shape[1], h * w // PATCH**2
        out = self.final_layer(joint[:, n : n + n_i])
        return F.fold(out.transpose(1, 2), (h, w), PATCH, stride=PATCH)
