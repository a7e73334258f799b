"""Wan 2.1's VAE from one file or folder: its own tensor names or diffusers', and its sizes.

Owns the renaming. torch and diffusers are imported where weights are read.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vsf_lib.errors import ModelError
from vsf_lib.video.single_file import kinds, weights
from vsf_lib.video.single_file.headers import SAFETENSORS, read_header
from vsf_lib.video.single_file.transformer import CHANNELS
from vsf_lib.video.single_file.weights import Part

if TYPE_CHECKING:
    import torch
    from torch import nn

_CLASS = "AutoencoderKLWan"
_PREFIXES = ("", "model.", "vae.", "first_stage_model.")
_STAGE = 4
"""Wan's decoder counts on: three residual blocks and one upsampling are one of diffusers' blocks."""
_RESIDUAL = {"0": "norm1", "2": "conv1", "3": "norm2", "6": "conv2"}
_HEAD = {"0": "norm_out", "2": "conv_out"}
_TOP = {"conv1": "quant_conv", "conv2": "post_quant_conv"}


def look(given: str | Path) -> Part | Path:
    """The VAE in a file, by its header, or its folder; raises ModelError for what cannot be used."""
    path = Path(given).expanduser()
    if path.is_dir():
        return _folder(path)
    if path.suffix.lower() != SAFETENSORS and path.exists():
        raise ModelError(
            f"the VAE {path.name} is no {SAFETENSORS} file: other formats can run code, so none is read; get "
            "wan_2.1_vae.safetensors (Comfy-Org/Wan_2.1_ComfyUI_repackaged has it)"
        )
    header = read_header(path)
    for prefix in _PREFIXES:
        if f"{prefix}decoder.head.2.weight" in header.tensors:
            names = weights.match(header, prefix, _renamed)
        elif f"{prefix}decoder.mid_block.resnets.0.norm1.gamma" in header.tensors:
            names = weights.match(header, prefix, str)
        else:
            continue
        shapes = {name: header.tensors[names[name]].shape for name in names}
        try:
            config = {
                "base_dim": shapes["encoder.conv_in.weight"][0],
                "z_dim": shapes["post_quant_conv.weight"][0],
            }
        except (KeyError, IndexError) as error:
            raise ModelError(f"{path.name} lacks tensors of a Wan VAE, such as {error}") from error
        if config["z_dim"] != CHANNELS:
            raise ModelError(
                f"{path.name} is a VAE for latents of {config['z_dim']} channels (Wan 2.2's has 48), but Wan "
                f"2.1's have {CHANNELS}: use wan_2.1_vae.safetensors"
            )
        return Part(header, prefix, config, names)
    raise ModelError(f"{path.name} is {kinds.told(header)}, but the VAE has to be Wan 2.1's")


def check(part: Part | Path) -> None:
    """Raises ModelError unless a file has all that the network needs."""
    if isinstance(part, Part):
        _empty(part)


def load(part: Part | Path, dtype: torch.dtype) -> Any:
    """The VAE on the CPU; raises ModelError, or what diffusers raises for a folder."""
    from diffusers import AutoencoderKLWan

    if isinstance(part, Part):
        return weights.fill(_empty(part), part, dtype)
    return AutoencoderKLWan.from_pretrained(
        str(part), torch_dtype=dtype, use_safetensors=True, local_files_only=True
    )


def _empty(part: Part) -> nn.Module:
    from diffusers import AutoencoderKLWan

    return weights.empty(part, lambda: AutoencoderKLWan(**part.config))


def _folder(path: Path) -> Path:
    """The VAE's own folder: `path`, or the one in a whole pipeline."""
    folder = path / "vae" if (path / "vae" / "config.json").is_file() else path
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("_class_name")
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(
            f"{path} is no VAE in diffusers' format: its config.json is missing or damaged"
        ) from error
    if kind != _CLASS:
        raise ModelError(f"{folder} is a {kind}, but the VAE has to be an {_CLASS}")
    return folder


def _renamed(name: str) -> str:
    """Wan's own name to diffusers'; a name that is neither stays, and is found out later."""
    side, _, rest = name.partition(".")
    if side in _TOP:
        return f"{_TOP[side]}.{rest}"
    rest = re.sub(r"\.residual\.(\d+)\.", lambda found: f".{_RESIDUAL.get(found[1], found[1])}.", rest)
    rest = rest.replace(".shortcut.", ".conv_shortcut.")
    rest = re.sub(r"^conv1\.", "conv_in.", rest)
    rest = re.sub(r"^head\.(\d+)\.", lambda found: f"{_HEAD.get(found[1], found[1])}.", rest)
    rest = re.sub(r"^middle\.1\.", "mid_block.attentions.0.", rest)
    rest = re.sub(r"^middle\.([02])\.", lambda found: f"mid_block.resnets.{int(found[1]) // 2}.", rest)
    rest = re.sub(r"^downsamples\.", "down_blocks.", rest)
    rest = re.sub(r"^upsamples\.(\d+)\.", _upsample, rest)
    return f"{side}.{rest}"


def _upsample(found: re.Match[str]) -> str:
    block, place = divmod(int(found[1]), _STAGE)
    inner = "upsamplers.0" if place == _STAGE - 1 else f"resnets.{place}"
    return f"up_blocks.{block}.{inner}."
