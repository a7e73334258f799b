"""A whole Wan pipeline of diffusers' and transformers' own classes, tiny and with random weights."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from diffusers import (
    AutoencoderKLWan,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
    WanPipeline,
    WanTransformer3DModel,
)
from tiny_sd3 import WORDS, enliven, t5_tokenizer
from transformers import UMT5Config, UMT5EncoderModel

LAYERS = 3
TEXT_LENGTH = 12
CHANNELS = 4
HEIGHT, WIDTH, FRAMES = 32, 48, 5
TOKENS = 2 * 2 * 3  # two latent frames of 4 x 6, in patches of 2 x 2


def _vae() -> Any:
    options: dict[str, Any] = {
        "base_dim": 3,
        "z_dim": CHANNELS,
        "dim_mult": [1, 1, 1, 1],
        "num_res_blocks": 1,
        "temperal_downsample": [False, True, True],
        "latents_mean": [0.0] * CHANNELS,
        "latents_std": [1.0] * CHANNELS,
        "scale_factor_spatial": 8,
        "scale_factor_temporal": 4,
    }
    known = inspect.signature(AutoencoderKLWan.__init__).parameters  # not the last two in diffusers 0.34
    return AutoencoderKLWan(**{name: value for name, value in options.items() if name in known})


def _parts(seed: int, *, width: int, **image: Any) -> dict[str, Any]:
    torch.manual_seed(seed)
    transformer = WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=width,
        out_channels=CHANNELS,
        text_dim=16,
        freq_dim=8,
        ffn_dim=32,
        num_layers=LAYERS,
        rope_max_seq_len=32,
        **image,
    )
    encoder = UMT5EncoderModel(
        UMT5Config(vocab_size=len(WORDS) + 3, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    )
    vae = _vae()
    enliven(transformer, encoder, vae, tables=("shared",))
    return {
        "transformer": transformer,
        "text_encoder": encoder,
        "tokenizer": t5_tokenizer(),
        "vae": vae,
        "scheduler": UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
    }


def make_pipeline(seed: int = 0) -> Any:
    """A WanPipeline in float32 with 3 blocks."""
    pipe = WanPipeline(**_parts(seed, width=CHANNELS))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def make_image_pipeline(seed: int = 0) -> Any:
    """A WanImageToVideoPipeline whose transformer looks at an image's features beside the text."""
    parts = _parts(seed, width=2 * CHANNELS + 4, image_dim=10, added_kv_proj_dim=24)
    pipe = WanImageToVideoPipeline(image_encoder=None, image_processor=None, **parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def latents(rows: int = 1, seed: int = 7) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, CHANNELS, 2, HEIGHT // 8, WIDTH // 8, generator=generator)


def generate(
    pipe: Any, prompt: str | list[str] | None = "a red car on the field", **options: Any
) -> torch.Tensor:
    """The final latents of a short generation, the same noise every time."""
    prompts = 1 if isinstance(prompt, str) else len(prompt or options["prompt_embeds"])
    rows = prompts * options.get("num_videos_per_prompt", 1)
    settings: dict[str, Any] = {
        "num_inference_steps": 4,
        "guidance_scale": 1.0,
        "max_sequence_length": TEXT_LENGTH,
        "height": HEIGHT,
        "width": WIDTH,
        "num_frames": FRAMES,
        "output_type": "latent",
        "latents": latents(rows),
    } | options
    return pipe(prompt=prompt, **settings).frames
