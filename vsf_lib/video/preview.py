"""A glance at a video that is still noise: its latents as colours, without the VAE."""

from __future__ import annotations

import base64
import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor

_LONGEST = 320


def picture(latents: Tensor) -> str:
    """A JPEG, base64, of the middle frame of `[1, C, n, h, w]`.

    The three directions in which the latents vary most are taken for brightness and colours: no decoder and
    no table of a certain model is needed, and edges and movement show.
    """
    x = latents[0, :, latents.shape[2] // 2].float().cpu()
    channels, height, width = x.shape
    flat = x.reshape(channels, -1)
    flat = flat - flat.mean(dim=1, keepdim=True)
    _, vectors = torch.linalg.eigh(flat @ flat.T)
    parts = vectors[:, -3:].flip(1).T @ flat
    parts = parts / parts.abs().quantile(0.98, dim=1, keepdim=True).clamp_min(1e-6)
    # One sign for each direction, or the colours flip from step to step.
    parts = parts * torch.where(parts.mean(dim=1, keepdim=True) < 0, -1.0, 1.0)
    y, u, v = (
        parts.reshape(-1, height, width)[:3]
        if len(parts) >= 3
        else parts.expand(3, -1).reshape(3, height, width)
    )
    rgb = torch.stack([y + 0.6 * v, y - 0.2 * u - 0.3 * v, y + 0.6 * u], dim=-1)
    image = Image.fromarray(((rgb * 0.5 + 0.5).clamp(0, 1) * 255).numpy().astype(np.uint8))
    scale = max(1, min(8, _LONGEST // max(height, width)))
    image = image.resize((width * scale, height * scale), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return base64.b64encode(buffer.getvalue()).decode()
