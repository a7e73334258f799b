"""A whole Stable Diffusion 3 pipeline of diffusers' and transformers' own classes, tiny and with random
weights.

Random weights of the usual size leave attention nearly uniform and gates nearly closed, so that nothing which
guidance does would be seen in the output; here they are drawn large enough that every part of a block
matters.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Img2ImgPipeline,
    StableDiffusion3InpaintPipeline,
    StableDiffusion3Pipeline,
)
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

WORDS = [
    "a",
    "red",
    "car",
    "on",
    "the",
    "field",
    "wheels",
    "roof",
    "house",
    "blue",
    "face",
    "with",
    "glasses",
    "boat",
    "sail",
    "and",
    "big",
    "small",
]
CLIP_LENGTH = 16
T5_LENGTH = 12
LAYERS = 3


def clip_tokenizer(length: int = CLIP_LENGTH) -> PreTrainedTokenizerFast:
    vocabulary = {word: i for i, word in enumerate(["<pad>", "<bos>", "<eos>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 1), ("<eos>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=length,
    )


def t5_tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=512,
    )


def clip_encoder(width: int, projection: int) -> CLIPTextModelWithProjection:
    return CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=len(WORDS) + 4,
            hidden_size=width,
            intermediate_size=2 * width,
            projection_dim=projection,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=CLIP_LENGTH,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
        )
    )


def make_pipeline(*, t5: bool = True, seed: int = 0, channels: int = 4, more: int = 0) -> Any:
    """A StableDiffusion3Pipeline in float32: 3 blocks, the first with dual attention, norms on q and k.

    `more` channels come in beside the latents' own, as in models made for inpainting.
    """
    torch.manual_seed(seed)
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=channels + more,
        num_layers=LAYERS,
        attention_head_dim=8,
        num_attention_heads=3,
        joint_attention_dim=40,
        caption_projection_dim=24,
        pooled_projection_dim=20,
        out_channels=channels,
        pos_embed_max_size=8,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    )
    vae = AutoencoderKL(
        block_out_channels=(8,),
        norm_num_groups=4,
        latent_channels=channels,
        layers_per_block=1,
        sample_size=8,
        down_block_types=("DownEncoderBlock2D",),
        up_block_types=("UpDecoderBlock2D",),
        use_quant_conv=False,
        use_post_quant_conv=False,
        shift_factor=0.1,
        scaling_factor=1.5,
    )
    encoders = {"text_encoder": clip_encoder(8, 8), "text_encoder_2": clip_encoder(16, 12)}
    encoder_3 = None
    if t5:
        encoder_3 = T5EncoderModel(
            T5Config(vocab_size=len(WORDS) + 3, d_model=40, d_kv=8, d_ff=64, num_layers=1, num_heads=2)
        )
    enliven(transformer, *encoders.values(), *([encoder_3] if t5 else []))
    pipe = StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae,
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        text_encoder_3=encoder_3,
        tokenizer_3=t5_tokenizer() if t5 else None,
        **encoders,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def enliven(*models: torch.nn.Module, tables: tuple[str, ...] = ("embed", "shared")) -> None:
    """Draws weights that keep the variance of what passes through, and biases and norms that are not idle.

    Weights with one of `tables` in their name are looked up, or meant to be large.
    """
    for model in models:
        for name, parameter in model.named_parameters():
            with torch.no_grad():
                if parameter.ndim >= 2:
                    fan_in = parameter[0].numel()
                    parameter.normal_(0, 1 if any(part in name for part in tables) else fan_in**-0.5)
                elif "norm" in name and name.endswith("weight"):
                    parameter.uniform_(1, 2)
                else:
                    parameter.normal_(0, 0.2)
        model.eval()


def latents(rows: int = 1, seed: int = 7) -> torch.Tensor:
    return torch.randn(rows, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def generate(pipe: Any, prompt: str | list[str] = "a red car on the field", **options: Any) -> torch.Tensor:
    """The final latents of a short generation, the same noise every time."""
    settings: dict[str, Any] = {
        "num_inference_steps": 4,
        "guidance_scale": 1.0,
        "max_sequence_length": T5_LENGTH,
        "height": 8,
        "width": 8,
        "output_type": "latent",
    } | options
    rows = (1 if isinstance(prompt, str) else len(prompt)) * settings.get("num_images_per_prompt", 1)
    return pipe(prompt, latents=latents(rows), **settings).images


def with_a_picture(pipe: Any, kind: type = StableDiffusion3Img2ImgPipeline) -> Any:
    """The same parts in a pipeline that begins from a picture."""
    other = kind(**pipe.components)
    other.set_progress_bar_config(disable=True)
    return other


def generate_from(pipe: Any, prompt: str | list[str] = "a red car on the field", **options: Any) -> Any:
    """As `generate`, from a picture, and where the pipeline takes one with a mask over its left half."""
    rows = 1 if isinstance(prompt, str) else len(prompt)
    settings: dict[str, Any] = {
        "image": torch.rand(rows, 3, 8, 8, generator=torch.Generator().manual_seed(5)),
        "strength": 0.5,
        "num_inference_steps": 4,
        "guidance_scale": 1.0,
        "max_sequence_length": T5_LENGTH,
        "generator": torch.Generator().manual_seed(6),
        "output_type": "latent",
    } | options
    if isinstance(pipe, StableDiffusion3InpaintPipeline):
        settings["mask_image"] = (torch.arange(8) < 4).float().expand(rows, 1, 8, 8)
        settings |= {"height": 8, "width": 8}
    return pipe(prompt, **settings).images
