"""A whole Flux pipeline of diffusers' and transformers' own classes, tiny and with random weights.

With guidance embedding it is built like Flux dev, without like schnell. See `tiny_sd3` for how weights are
drawn.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxImg2ImgPipeline,
    FluxPipeline,
    FluxTransformer2DModel,
)
from tiny_sd3 import CLIP_LENGTH, T5_LENGTH, WORDS, clip_tokenizer, enliven, t5_tokenizer
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

DOUBLES, SINGLES = 2, 3
TEXT_WIDTH, POOLED_WIDTH = 40, 20
CHANNELS = 16
"""Of a packed latent: four pixels of the autoencoder's four channels."""


def make_pipeline(*, dev: bool = False, seed: int = 0) -> Any:
    """A FluxPipeline in float32: 2 double-stream and 3 single-stream blocks of 3 heads."""
    torch.manual_seed(seed)
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=CHANNELS,
        num_layers=DOUBLES,
        num_single_layers=SINGLES,
        attention_head_dim=8,
        num_attention_heads=3,
        joint_attention_dim=TEXT_WIDTH,
        pooled_projection_dim=POOLED_WIDTH,
        guidance_embeds=dev,
        axes_dims_rope=(2, 2, 4),
    )
    vae = AutoencoderKL(
        block_out_channels=(8,),
        norm_num_groups=4,
        latent_channels=4,
        layers_per_block=1,
        sample_size=8,
        down_block_types=("DownEncoderBlock2D",),
        up_block_types=("UpDecoderBlock2D",),
        use_quant_conv=False,
        use_post_quant_conv=False,
        shift_factor=0.1,
        scaling_factor=1.5,
    )
    clip = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(WORDS) + 4,
            hidden_size=POOLED_WIDTH,
            intermediate_size=2 * POOLED_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=CLIP_LENGTH,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
        )
    )
    t5 = T5EncoderModel(
        T5Config(vocab_size=len(WORDS) + 3, d_model=TEXT_WIDTH, d_kv=8, d_ff=64, num_layers=1, num_heads=2)
    )
    enliven(transformer, clip, t5)
    pipe = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae,
        text_encoder=clip,
        tokenizer=clip_tokenizer(),
        text_encoder_2=t5,
        tokenizer_2=t5_tokenizer(),
        transformer=transformer,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def with_a_picture(pipe: Any) -> Any:
    """The same parts in a pipeline that begins from a picture."""
    other = FluxImg2ImgPipeline(**pipe.components)
    other.set_progress_bar_config(disable=True)
    return other


def latents(rows: int = 1, seed: int = 7) -> torch.Tensor:
    """Packed noise `[B, 16, C]`."""
    return torch.randn(rows, 16, CHANNELS, generator=torch.Generator().manual_seed(seed))


def generate(pipe: Any, prompt: str | list[str] = "a red car on the field", **options: Any) -> torch.Tensor:
    """The final latents of a short generation, the same noise every time."""
    settings: dict[str, Any] = {
        "num_inference_steps": 4,
        "guidance_scale": 3.5,
        "max_sequence_length": T5_LENGTH,
        "height": 8,
        "width": 8,
        "output_type": "latent",
    } | options
    rows = (1 if isinstance(prompt, str) else len(prompt)) * settings.get("num_images_per_prompt", 1)
    if isinstance(pipe, FluxImg2ImgPipeline):
        settings = {
            "image": torch.rand(rows, 3, 8, 8, generator=torch.Generator().manual_seed(5)),
            "strength": 0.5,
            "generator": torch.Generator().manual_seed(6),
        } | settings
    else:
        settings["latents"] = latents(rows)
    return pipe(prompt, **settings).images
