"""Wan's transformer from one file: its own tensor names or diffusers', its sizes, what is refused by name.

Owns the renaming and the sizes. Text-to-video of Wan 2.1 only: what needs an image, a second transformer or
other latents cannot be made by the pipeline here. torch and diffusers are imported where weights are read.
"""

from __future__ import annotations

import json
import re
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vsf_lib.errors import ModelError
from vsf_lib.video.single_file import kinds, weights
from vsf_lib.video.single_file.headers import Header, read_header
from vsf_lib.video.single_file.weights import Part

if TYPE_CHECKING:
    import torch
    from torch import nn

CHANNELS = 16
"""Of Wan 2.1's latents."""
_HEAD = 128
"""Channels of an attention head, in all published sizes; no tensor tells it."""
_PREFIXES = ("", "model.diffusion_model.", "diffusion_model.")

_TOP = {
    "text_embedding.0": "condition_embedder.text_embedder.linear_1",
    "text_embedding.2": "condition_embedder.text_embedder.linear_2",
    "time_embedding.0": "condition_embedder.time_embedder.linear_1",
    "time_embedding.2": "condition_embedder.time_embedder.linear_2",
    "time_projection.1": "condition_embedder.time_proj",
    "head.head": "proj_out",
    "head.modulation": "scale_shift_table",
}
_ATTENTION = {"self_attn": "attn1", "cross_attn": "attn2"}
_PROJECTION = {"q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0", "norm_q": "norm_q", "norm_k": "norm_k"}
_BLOCK = {
    **{f"{a}.{p}": f"{_ATTENTION[a]}.{_PROJECTION[p]}" for a in _ATTENTION for p in _PROJECTION},
    "norm3": "norm2",
    "ffn.0": "ffn.net.0.proj",
    "ffn.2": "ffn.net.2",
    "modulation": "scale_shift_table",
}
_OTHERS = (
    ("an image-to-video model", r"\bimg_emb\.|\.k_img\.|\bimage_embedder\.|\.add_k_proj\."),
    ("a VACE model", r"\bvace_"),
    ("an Animate model", r"\b(motion_encoder|face_adapter)\."),
    ("a speech-to-video model", r"\b(audio_injector|casual_audio_encoder|audio_proj)\."),
    ("a camera or control model", r"\b(control_adapter|ref_conv)\."),
)
_HALF = re.compile(r"(high|low)[ _-]?noise", re.IGNORECASE)


def look(path: Path) -> Part:
    """The sizes of the transformer in a file, by its header; raises ModelError for what cannot be used."""
    header = read_header(path)
    prefix = next(
        (prefix for prefix in _PREFIXES if f"{prefix}patch_embedding.weight" in header.tensors), None
    )
    if prefix is None or kinds.TRANSFORMER not in kinds.kinds(header.tensors):
        raise ModelError(
            f"{path.name} is {kinds.told(header)}, but the model has to be a Wan 2.1 transformer"
        )
    own = f"{prefix}head.head.weight" in header.tensors
    names = weights.match(header, prefix, _renamed if own else str)
    _refuse(header, prefix)
    try:
        part = Part(
            header, prefix, _config({name: header.tensors[names[name]].shape for name in names}), names
        )
    except (KeyError, IndexError, ValueError) as error:
        raise ModelError(f"{path.name} lacks tensors of a Wan transformer, such as {error}") from error
    _refuse_channels(path, part.config)
    return part


def check_reader(part: Part) -> None:
    """Raises ModelError where the package for the file is missing."""
    if part.header.gguf and find_spec("gguf") is None:
        raise ModelError(
            f"{part.header.path.name} is a GGUF file, and the package gguf that reads it is missing: install "
            "it (pip install gguf), or use a .safetensors file"
        )


def empty(part: Part) -> nn.Module:
    """The network without weights; raises ModelError unless the file fits it and can be read."""
    from diffusers import WanTransformer3DModel

    check_reader(part)
    return weights.empty(part, lambda: WanTransformer3DModel(**part.config))


def load(part: Part, dtype: torch.dtype) -> nn.Module:
    """The transformer on the CPU; raises ModelError. Of a GGUF file the blocks' maps stay quantised."""
    network = empty(part)
    # What diffusers keeps in float32 when it loads a folder, so that a file gives the same video.
    exact = getattr(network, "_keep_in_fp32_modules", None) or ()
    if part.header.gguf:
        return _load_gguf(part, dtype, network)
    return weights.fill(network, part, dtype, exact)


def _load_gguf(part: Part, dtype: torch.dtype, network: nn.Module) -> nn.Module:
    from diffusers import GGUFQuantizationConfig, WanTransformer3DModel
    from diffusers.models.model_loading_utils import load_gguf_checkpoint
    from diffusers.quantizers.gguf.utils import GGUFParameter, dequantize_gguf_tensor
    from torch import float32, nn

    read = load_gguf_checkpoint(str(part.header.path))
    maps = {f"{name}.weight" for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    state: dict[str, Any] = {}
    for name, source in part.names.items():
        tensor = read.pop(source)
        if isinstance(tensor, GGUFParameter) and not (name in maps and name.startswith("blocks.")):
            # The others are small, and the network asks some of them for their type.
            tensor = dequantize_gguf_tensor(tensor).to(float32)
        state[source.removeprefix(part.prefix)] = tensor  # diffusers 0.34 renames whatever it is given
    with tempfile.TemporaryDirectory() as folder:
        described = {"_class_name": WanTransformer3DModel.__name__, **part.config}
        (Path(folder) / "config.json").write_text(json.dumps(described), encoding="utf-8")
        return WanTransformer3DModel.from_single_file(
            state,
            config=folder,
            local_files_only=True,
            quantization_config=GGUFQuantizationConfig(compute_dtype=dtype),
            torch_dtype=dtype,
        )


def _renamed(name: str) -> str:
    """Wan's own name to diffusers'; a name that is neither stays, and is found out later."""
    stem, dot, end = name.rpartition(".")
    if not dot or end not in ("weight", "bias"):
        stem, dot, end = name, "", ""
    block = re.match(r"blocks\.\d+\.", stem)
    if block is None:
        return _TOP.get(stem, stem) + dot + end
    inner = stem.removeprefix(block[0])
    return block[0] + _BLOCK.get(inner, inner) + dot + end


def _config(shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    width, channels, *patch = shapes["patch_embedding.weight"]
    text, time = (
        shapes[f"condition_embedder.{part}_embedder.linear_1.weight"][1] for part in ("text", "time")
    )
    area = patch[0] * patch[1] * patch[2]
    layers = 1 + max(int(name.split(".")[1]) for name in shapes if name.startswith("blocks."))
    if width % _HEAD:
        raise ValueError(f"patch_embedding.weight with a multiple of {_HEAD} channels (it has {width})")
    return {
        "patch_size": patch,
        "num_attention_heads": width // _HEAD,
        "attention_head_dim": _HEAD,
        "in_channels": channels,
        "out_channels": shapes["proj_out.weight"][0] // area,
        "text_dim": text,
        "freq_dim": time,
        "ffn_dim": shapes["blocks.0.ffn.net.0.proj.weight"][0],
        "num_layers": layers,
        "cross_attn_norm": "blocks.0.norm2.weight" in shapes,
    }


def _refuse(header: Header, prefix: str) -> None:
    names = "\n".join(name for name in header.tensors if name.startswith(prefix))
    for kind, sign in _OTHERS:
        if re.search(sign, names):
            raise ModelError(
                f"{header.path.name} is {kind} of Wan, but videos are made from text alone here: use a "
                "text-to-video (T2V) model of Wan 2.1"
            )
    if _HALF.search(header.path.name):
        raise ModelError(
            f"{header.path.name} is by its name one half of Wan 2.2, whose videos need both (high and low "
            "noise): use Wan 2.1"
        )


def _refuse_channels(path: Path, config: dict[str, Any] | Any) -> None:
    taken, given = config["in_channels"], config["out_channels"]
    if (taken, given) == (CHANNELS, CHANNELS):
        return
    kind = "Wan 2.2's small model (TI2V)" if given == 48 else "an image-to-video or control model of Wan"
    raise ModelError(
        f"{path.name} takes {taken} channels and gives {given}, where Wan 2.1's text-to-video models have "
        f"{CHANNELS}: it seems to be {kind}; use a T2V model of Wan 2.1"
    )
