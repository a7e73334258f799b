"""Wan as Forge Neo's backend builds it, small: self-attention and attention across to text (and to an image)
pass through one attention function of the module.

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
    skip_output_reshape: bool = False,
    **kwargs: Any,
) -> Tensor:
    """`[B, L, H D]` each, as is what it returns."""
    assert not skip_reshape
    q, k, v = (x.unflatten(2, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)


def attention(*args: Any, **kwargs: Any) -> Tensor:
    return attention_function(*args, **kwargs)


class SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        for name in ("q", "k", "v", "o"):
            setattr(self, name, nn.Linear(WIDTH, WIDTH))
        self.norm_q, self.norm_k = nn.RMSNorm(WIDTH), nn.RMSNorm(WIDTH)

    def forward(self, x: Tensor, transformer_options: Any = None) -> Tensor:
        q, k = self.norm_q(self.q(x)), self.norm_k(self.k(x))
        options = {"heads": HEADS, "transformer_options": transformer_options}
        return self.o(attention(q, k, self.v(x), **options))


class TextAttention(SelfAttention):
    def forward(self, x: Tensor, context: Tensor, **_: Any) -> Tensor:
        q, k, v = self.norm_q(self.q(x)), self.norm_k(self.k(context)), self.v(context)
        return self.o(attention_function(q, k, v, heads=HEADS))


class TextAndImageAttention(SelfAttention):
    def __init__(self) -> None:
        super().__init__()
        self.k_img, self.v_img = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.norm_k_img = nn.RMSNorm(WIDTH)

    def forward(self, x: Tensor, context: Tensor, context_img_len: int) -> Tensor:
        image, text = context[:, :context_img_len], context[:, context_img_len:]
        q, k, v = self.norm_q(self.q(x)), self.norm_k(self.k(text)), self.v(text)
        k_image, v_image = self.norm_k_img(self.k_img(image)), self.v_img(image)
        of_image = attention_function(q, k_image, v_image, heads=HEADS)
        return self.o(attention_function(q, k, v, heads=HEADS) + of_image)


class Block(nn.Module):
    def __init__(self, cross: type[SelfAttention]) -> None:
        super().__init__()
        self.self_attn, self.cross_attn = SelfAttention(), cross()
        self.modulation = nn.Parameter(torch.randn(1, 6, WIDTH))
        self.ffn = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH))

    def forward(
        self,
        x: Tensor,
        e: Tensor,
        context: Tensor,
        context_img_len: int | None = None,
        transformer_options: Any = None,
    ) -> Tensor:
        shift, scale, gate, shift_2, scale_2, gate_2 = (self.modulation + e).chunk(6, dim=1)
        y = self.self_attn(F.layer_norm(x, (WIDTH,)) * (1 + scale) + shift, transformer_options)
        x = x + y * gate
        x = x + self.cross_attn(F.layer_norm(x, (WIDTH,)), context, context_img_len=context_img_len)
        return x + self.ffn(F.layer_norm(x, (WIDTH,)) * (1 + scale_2) + shift_2) * gate_2


class SmallWan(nn.Module):
    """Latents `[B, 4, F, h, w]` and text `[B, n, 16]` to a velocity of the same shape.

    With `image` the tokens of an image stand before the text's: three, or as many as the text has.
    """

    channels, text_width = 4, 16

    def __init__(self, blocks: int = 3, *, image: bool = False, image_tokens: int = 3) -> None:
        super().__init__()
        self.patch_embedding = nn.Linear(self.channels * PATCH**2, WIDTH)
        self.text_embedding = nn.Sequential(
            nn.Linear(self.text_width, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH)
        )
        self.time_projection = nn.Linear(WIDTH, 6 * WIDTH)
        self.blocks = nn.ModuleList(
            Block(TextAndImageAttention if image else TextAttention) for _ in range(blocks)
        )
        self.head = nn.Linear(WIDTH, self.channels * PATCH**2)
        self.image = nn.Parameter(torch.randn(1, image_tokens, WIDTH)) if image else None

    def forward(
        self, x: Tensor, t: Tensor, context: Tensor, transformer_options: Any = None, **_: Any
    ) -> Tensor:
        b, _, f, h, w = x.shape
        patches = F.unfold(x.transpose(1, 2).flatten(0, 1), PATCH, stride=PATCH)  # [B F, C 4, L]
        tokens = patches.unflatten(0, (b, f)).transpose(2, 3).flatten(1, 2)
        out = self.patch_embedding(tokens)
        e = self.time_projection(t.to(x)[:, None].sin().expand(-1, WIDTH)).unflatten(1, (6, WIDTH))
        context, n_image = self.text_embedding(context), None
        if self.image is not None:
            n_image = self.image.shape[1]
            context = torch.cat([self.image.expand(b, -1, -1), context], dim=1)
        options = {} if transformer_options is None else transformer_options
        for i, block in enumerate(self.blocks):
            options["block_index"] = i
            out = block(out, e=e, context=context, context_img_len=n_image, transformer_options=options)
        out = self.head(out).unflatten(1, (f, -1)).flatten(0, 1).transpose(1, 2)
        return F.fold(out, (h, w), PATCH, stride=PATCH).unflatten(0, (b, f)).transpose(1, 2)
