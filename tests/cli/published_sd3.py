"""A diffusers SD3 transformer's weights under the names that its publishers give them, for single files."""

from __future__ import annotations

import re

import torch
from torch import Tensor

_TOP = {
    "pos_embed.pos_embed": "pos_embed",
    "pos_embed.proj": "x_embedder.proj",
    "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
    "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
    "context_embedder": "context_embedder",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    "proj_out": "final_layer.linear",
}
_BLOCK = {
    "norm1.linear": "x_block.adaLN_modulation.1",
    "norm1_context.linear": "context_block.adaLN_modulation.1",
    "attn.norm_q": "x_block.attn.ln_q",
    "attn.norm_k": "x_block.attn.ln_k",
    "attn.norm_added_q": "context_block.attn.ln_q",
    "attn.norm_added_k": "context_block.attn.ln_k",
    "attn.to_out.0": "x_block.attn.proj",
    "attn.to_add_out": "context_block.attn.proj",
    "attn2.norm_q": "x_block.attn2.ln_q",
    "attn2.norm_k": "x_block.attn2.ln_k",
    "attn2.to_out.0": "x_block.attn2.proj",
    "ff.net.0.proj": "x_block.mlp.fc1",
    "ff.net.2": "x_block.mlp.fc2",
    "ff_context.net.0.proj": "context_block.mlp.fc1",
    "ff_context.net.2": "context_block.mlp.fc2",
}
_QKV = {
    "x_block.attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "context_block.attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "x_block.attn2.qkv": ("attn2.to_q", "attn2.to_k", "attn2.to_v"),
}


def published(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same weights under the published names."""
    layers = 1 + max(int(key.split(".")[1]) for key in weights if key.startswith("transformer_blocks."))
    out: dict[str, Tensor] = {}
    for key, value in weights.items():
        block = re.match(r"transformer_blocks\.(\d+)\.(.+)\.(weight|bias)$", key)
        if block is None:
            stem, _, end = key.rpartition(".")
            name = _TOP[key] if key in _TOP else f"{_TOP[stem]}.{end}"
            last = name.startswith("final_layer.adaLN")
        elif block[2] in _BLOCK:
            name = f"joint_blocks.{block[1]}.{_BLOCK[block[2]]}.{block[3]}"
            last = int(block[1]) == layers - 1 and block[2] == "norm1_context.linear"
        else:
            continue
        # What modulates an end comes as shift and scale there, and the other way round in diffusers.
        out[name] = torch.cat(value.chunk(2)[::-1]) if last else value
    for i in range(layers):
        for name, parts in _QKV.items():
            for end in ("weight", "bias"):
                keys = [f"transformer_blocks.{i}.{part}.{end}" for part in parts]
                if keys[0] in weights:
                    out[f"joint_blocks.{i}.{name}.{end}"] = torch.cat([weights[key] for key in keys])
    return {f"model.diffusion_model.{name}": value.contiguous() for name, value in out.items()}
