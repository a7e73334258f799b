"""Loads the small models: quietly, in float32, and the Flux ones with what they share with the SD3.5 one.

Wan's comes with its LoRA for few steps.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from vsf_lib.errors import ModelError
from vsf_lib.program import program
from vsf_lib.scenes.model import FLUX_SHIFT, FOLDER, WAN_LORA, WAN_LORA_NAME


def load_pipeline(folder: Path, shared: Path = FOLDER) -> Any:
    """The pipeline in float32; a folder that holds a Flux transformer alone takes all else from `shared`."""
    from diffusers.utils.logging import disable_progress_bar

    flux = (folder / "config.json").is_file()
    whole = shared if flux else folder
    if not (whole / "model_index.json").is_file():
        raise ModelError(
            f"{whole} holds no trained model: run `{program('scenes train')}`, or check it out again"
        )
    disable_progress_bar()
    try:
        pipe = _load_flux(folder, shared) if flux else _load_sd3(folder)
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"the model in {folder} cannot be loaded ({reason}); check it out again") from error
    pipe.set_progress_bar_config(disable=True)
    return pipe


def load_video_pipeline(folder: Path) -> Any:
    """The small Wan in `folder`, in float32, with its LoRA; raises ModelError if it cannot be read."""
    from diffusers import WanPipeline
    from diffusers.utils.logging import disable_progress_bar

    if not (folder / "model_index.json").is_file():
        raise ModelError(f"{folder} holds no trained model: run `{program('scenes train --model wan')}`")
    disable_progress_bar()
    try:
        pipe = WanPipeline.from_pretrained(folder, torch_dtype=torch.float32, local_files_only=True)
        pipe.load_lora_weights(str(folder), weight_name=WAN_LORA, adapter_name=WAN_LORA_NAME)
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"the model in {folder} cannot be loaded ({reason}); check it out again") from error
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _load_sd3(folder: Path) -> Any:
    from diffusers import StableDiffusion3Pipeline

    return StableDiffusion3Pipeline.from_pretrained(folder, torch_dtype=torch.float32, local_files_only=True)


def _load_flux(folder: Path, shared: Path) -> Any:
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
    from transformers import CLIPTextModel, PreTrainedTokenizerFast, T5EncoderModel

    here: dict[str, Any] = {"local_files_only": True}
    return FluxPipeline(
        transformer=FluxTransformer2DModel.from_pretrained(folder, **here).float(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=FLUX_SHIFT),
        vae=AutoencoderKL.from_pretrained(shared / "vae", **here).float(),
        # The same CLIP that SD3 reads with a projection.
        text_encoder=CLIPTextModel.from_pretrained(shared / "text_encoder", **here).float(),
        tokenizer=PreTrainedTokenizerFast.from_pretrained(shared / "tokenizer"),
        text_encoder_2=T5EncoderModel.from_pretrained(shared / "text_encoder_3", **here).float(),
        tokenizer_2=PreTrainedTokenizerFast.from_pretrained(shared / "tokenizer_3"),
    )
