"""What a guided call of the small Wan must give: one row at a time, in float64, every logit written out.

Shares nothing with the code under test: each layer's attention over text is replaced by a forward of its own.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from small_wan import HEADS
from torch import Tensor, nn

from vsf_lib.settings import Settings


@torch.no_grad()
def guided_row(
    model: nn.Module, args: dict[str, Any], row: int, negative: Tensor | None, settings: Settings
) -> Tensor:
    """The velocity `[4, F, h, w]` of one row of a call; `negative` `[n, C]` None for one that is unguided."""
    model = copy.deepcopy(model).double()
    embedded = None if negative is None else model.text_embedding(negative[None].double())
    for block in model.blocks:
        layer = block.cross_attn
        layer.forward = lambda x, context, context_img_len=None, layer=layer: _cross(
            layer, x, context, context_img_len, embedded, settings
        )
    return model(
        args["input"][row : row + 1].double(),
        args["timestep"][row : row + 1].double(),
        context=args["c"]["c_crossattn"][row : row + 1].double(),
    )[0]


def _cross(
    layer: Any, x: Tensor, context: Tensor, n_image: int | None, negative: Tensor | None, settings: Settings
) -> Tensor:
    image, text = (context[:, :n_image], context[:, n_image:]) if n_image else (None, context)
    q = _split(layer.norm_q(layer.q(x)))
    k, v = _split(layer.norm_k(layer.k(text))), _split(layer.v(text))
    if negative is None:
        out = _softmax(_logits(q, k)) @ v
    else:
        k_n, v_n = _split(layer.norm_k(layer.k(negative))), _split(layer.v(negative))
        weights = _softmax(torch.cat([_logits(q, k), _logits(q, k_n) - settings.beta], dim=-1))
        n = k.shape[2]
        if settings.method == "difference":
            ordinary, of_n = _softmax(_logits(q, k)) @ v, _softmax(_logits(q, k_n)) @ v_n
            share = weights[..., n:].sum(-1, keepdim=True)
            out = ordinary - settings.alpha * share * (of_n - ordinary)
        else:
            out = weights[..., :n] @ v - settings.alpha * weights[..., n:] @ v_n
    if image is not None:
        k, v = _split(layer.norm_k_img(layer.k_img(image))), _split(layer.v_img(image))
        out = out + _softmax(_logits(q, k)) @ v
    return layer.o(out.transpose(1, 2).flatten(2))


def _split(x: Tensor) -> Tensor:
    return x.unflatten(2, (HEADS, -1)).transpose(1, 2)


def _logits(q: Tensor, k: Tensor) -> Tensor:
    return q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5


def _softmax(logits: Tensor) -> Tensor:
    raised = (logits - logits.amax(-1, keepdim=True)).exp()
    return raised / raised.sum(-1, keepdim=True)
