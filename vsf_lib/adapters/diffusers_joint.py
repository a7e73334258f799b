"""Joint attention layers as diffusers builds them: the linear maps of image and text, each with its norm.

Owns the names of those maps. Knows no network's token order, no position and no guidance.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_IMAGE = (("to_q", "norm_q"), ("to_k", "norm_k"), ("to_v", None))
_TEXT = (("add_q_proj", "norm_added_q"), ("add_k_proj", "norm_added_k"), ("add_v_proj", None))


def image_heads(attn: Any, x: Tensor) -> list[Tensor]:
    """q, k and v `[B, H, n, D]` of image tokens `[B, n, C]`, or of all tokens where they share one stream."""
    return _heads(attn, x, _IMAGE)


def text_heads(attn: Any, x: Tensor) -> list[Tensor]:
    """q, k and v `[B, H, n, D]` of text tokens `[B, n, C]`."""
    return _heads(attn, x, _TEXT)


def joined(first: list[Tensor], second: list[Tensor]) -> list[Tensor]:
    """Two token sequences, each as q, k and v, behind one another."""
    return [torch.cat(pair, dim=2) for pair in zip(first, second, strict=True)]


def _heads(attn: Any, x: Tensor, parts: tuple[tuple[str, str | None], ...]) -> list[Tensor]:
    heads = []
    for linear, norm_name in parts:
        y = getattr(attn, linear)(x).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
        norm = getattr(attn, norm_name) if norm_name else None
        heads.append(y if norm is None else norm(y))
    return heads
