"""The tiny Wan as the folder that users have, and a LoRA for it as its users get them."""

from __future__ import annotations

from pathlib import Path

import tiny_wan
import torch
from safetensors.torch import save_file

WIDTH = 24


def save(folder: Path, seed: int = 0) -> Path:
    """The folder of a whole pipeline."""
    tiny_wan.make_pipeline(seed).save_pretrained(folder)
    return folder


def save_lora(file: Path, seed: int = 0, layers: int = tiny_wan.LAYERS) -> Path:
    """A LoRA under the keys that Kijai's files have."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for layer in range(layers):
        for attention in ("self_attn", "cross_attn"):
            for part in "qkvo":
                stem = f"diffusion_model.blocks.{layer}.{attention}.{part}"
                weights[f"{stem}.lora_down.weight"] = torch.randn(4, WIDTH, generator=generator)
                weights[f"{stem}.lora_up.weight"] = torch.randn(WIDTH, 4, generator=generator) / 4
    save_file(weights, file)
    return file
