"""What a guided call of the small Forge networks must give: one row at a time, in float64, with masks.

Written from the table of who sees whom. Shares nothing with the code under test: the attention function of
the network's module is replaced by hand around the call.
"""

from __future__ import annotations

import copy
import sys
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from vsf_lib.settings import Settings


@torch.no_grad()
def guided_row(
    model: nn.Module,
    args: dict[str, Any],
    row: int,
    negative: Tensor | None,
    settings: Settings,
    shares: list[Tensor] | None = None,
) -> Tensor:
    """The velocity `[4, h, w]` of one row of a call; `negative` `[n, C]` None for a row that is unguided.

    `shares` is given the weight `[H, n_i]` of N1 in each layer that is guided.
    """
    model = copy.deepcopy(model).double()
    text, pooled = (args["c"][name][row : row + 1].double() for name in ("c_crossattn", "y"))
    n_n = 0 if negative is None else len(negative)
    if negative is not None:
        text = torch.cat([negative[None].double(), text], dim=1)
    blocks = []

    def note(module: nn.Module, *_: Any) -> None:
        blocks.append(type(module).__name__)

    for block in model.modules():
        if type(block).__name__ in ("JointBlock", "DoubleBlock", "SingleBlock"):
            block.register_forward_pre_hook(note)

    def masked(q: Tensor, k: Tensor, v: Tensor, heads: int, *_: Any, **__: Any) -> Tensor:
        if q.ndim == 3:
            q, k = (x.unflatten(2, (heads, -1)).transpose(1, 2) for x in (q, k))
            v = v.transpose(1, 2)
        length = q.shape[2]
        n_i = args["input"].shape[-1] * args["input"].shape[-2] // 4
        if length == n_i or n_n == 0:  # image alone, or no negative
            out = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1) @ v
            return out.transpose(1, 2).flatten(2)
        unseen = settings.blocks == "double" and blocks[-1] == "SingleBlock"
        pictures = length - text.shape[1]  # this one and those that it may look at
        return _joint(q, k, v, n_n, pictures, settings, unseen, shares).transpose(1, 2).flatten(2)

    module = sys.modules[type(model).__module__]
    name = "attention_function" if hasattr(module, "attention_function") else "attention"
    with patch.object(module, name, masked):
        return model(
            args["input"][row : row + 1].double(),
            args["timestep"][row : row + 1].double(),
            context=text,
            y=pooled,
        )[0]


def _joint(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    n_n: int,
    n_i: int,
    settings: Settings,
    unseen: bool,
    shares: list[Tensor] | None,
) -> Tensor:
    """Columns [N0, P, I, N1]; who may look where as in the method's table."""
    length = q.shape[2]
    n, p, i = slice(0, n_n), slice(n_n, length - n_i), slice(length - n_i, length)
    keys = torch.cat([k, k[:, :, n]], dim=2)
    values = torch.cat([v, -settings.alpha * v[:, :, n]], dim=2)
    bias = torch.full((length, length + n_n), -torch.inf, dtype=q.dtype)
    flipped = slice(length, length + n_n)
    bias[i, i] = bias[i, p] = bias[p, i] = bias[p, p] = bias[n, n] = bias[n, i] = 0
    bias[i, flipped] = -torch.inf if unseen else -settings.beta
    logits = q @ keys.transpose(-1, -2) / q.shape[-1] ** 0.5 + bias
    out = logits.softmax(-1) @ values
    if shares is not None and not unseen:
        shares.append(logits[0, :, i].softmax(-1)[..., flipped].sum(-1))
    if settings.method == "difference" and not unseen:
        # O_b - alpha w (O_n - O_b), with w the weight of N1.
        w = logits[:, :, i].softmax(-1)[..., flipped].sum(-1, keepdim=True)
        ordinary = logits[:, :, i, :length].softmax(-1) @ v
        of_n = logits[:, :, i, flipped].softmax(-1) @ v[:, :, n]
        out[:, :, i] = ordinary - settings.alpha * w * (of_n - ordinary)
    return out
