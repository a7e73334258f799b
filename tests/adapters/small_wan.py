"""A Wan of diffusers' and transformers' own classes, small and random, as the folder that users have; a LoRA.

Weights are drawn larger than usual, so that the prompts change the picture.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from safetensors.torch import save_file
from tiny_sd3 import WORDS, t5_tokenizer
from transformers import UMT5Config, UMT5EncoderModel

LAYERS, HEADS, HEAD_WIDTH = 2, 2, 12
WIDTH = HEADS * HEAD_WIDTH


def save(folder: Path, seed: int = 0) -> Path:
    """The folder of a whole pipeline with 8 pixels a latent and 4 frames a latent, as the real one."""
    torch.manual_seed(seed)
    transformer = WanTransformer3DModel(
        num_attention_heads=HEADS,
        attention_head_dim=HEAD_WIDTH,
        in_channels=16,
        out_channels=16,
        text_dim=20,
        freq_dim=16,
        ffn_dim=48,
        num_layers=LAYERS,
        rope_max_seq_len=32,
    )
    text_encoder = UMT5EncoderModel(
        UMT5Config(
            vocab_size=len(WORDS) + 3, d_model=20, d_kv=5, d_ff=24, num_layers=2, num_heads=4,
            pad_token_id=0, eos_token_id=1,
        )
    )  # fmt: skip
    vae = AutoencoderKLWan(
        base_dim=8,
        z_dim=16,
        dim_mult=[1, 1, 2, 2],
        num_res_blocks=1,
        scale_factor_spatial=8,
        scale_factor_temporal=4,
    )
    with torch.no_grad():
        for name, parameter in (*transformer.named_parameters(), *text_encoder.named_parameters()):
            if parameter.ndim > 1:
                parameter.normal_(0, (1.5 if "attn2" in name else 1) / parameter[0].numel() ** 0.5)
        for block in transformer.blocks:
            block.scale_shift_table.normal_(0, 0.5)
        text_encoder.shared.weight.normal_()
    pipe = WanPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=text_encoder.eval(),
        vae=vae.eval(),
        scheduler=UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
        transformer=transformer.eval(),
    )
    pipe.save_pretrained(folder)
    return folder


def save_lora(file: Path, seed: int = 0, layers: int = LAYERS) -> Path:
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
