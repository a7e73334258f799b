"""Wan's text encoder UMT5 from one file or folder: Hugging Face's tensor names or Wan's own, and its sizes.

Owns the renaming; its tokenizer is the module `tokenizer`'s. torch and transformers are imported
where weights are read.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vsf_lib.errors import ModelError
from vsf_lib.video.single_file import kinds, weights
from vsf_lib.video.single_file import tokenizer as tokenizer_file
from vsf_lib.video.single_file.headers import SAFETENSORS, Header, read_header
from vsf_lib.video.single_file.tokenizer import Source
from vsf_lib.video.single_file.weights import Part

if TYPE_CHECKING:
    import torch
    from torch import nn

_PREFIXES = ("", "text_encoders.umt5xxl.transformer.", "text_encoder.")
_EMBEDDING = ("shared.weight", "encoder.embed_tokens.weight")
_TOP = {"token_embedding": "shared", "norm": "encoder.final_layer_norm"}
_BLOCK = {
    **{f"attn.{letter}": f"layer.0.SelfAttention.{letter}" for letter in "qkvo"},
    "pos_embedding.embedding": "layer.0.SelfAttention.relative_attention_bias",
    "norm1": "layer.0.layer_norm",
    "norm2": "layer.1.layer_norm",
    "ffn.gate.0": "layer.1.DenseReluDense.wi_0",
    "ffn.fc1": "layer.1.DenseReluDense.wi_1",
    "ffn.fc2": "layer.1.DenseReluDense.wo",
}
_FIRST = "encoder.block.0.layer"
_BLOCK_NUMBER = re.compile(r"encoder\.block\.(\d+)\.")


@dataclass(frozen=True)
class Text:
    """A text encoder, as a file or a folder, and where its tokenizer comes from."""

    encoder: Part | Path
    tokenizer: Source


def look(given: str) -> Text:
    """The text encoder in a file, by its header, or its folder; raises ModelError for what cannot be used."""
    path = Path(given).expanduser()
    if path.is_dir():
        folder = _folder(path)
        return Text(folder, tokenizer_file.of_folder(folder))
    if path.suffix.lower() != SAFETENSORS and path.exists():
        raise ModelError(
            f"the text encoder {path.name} is no {SAFETENSORS} file, and no other is read here: get "
            "umt5_xxl_fp16.safetensors or umt5_xxl_fp8_e4m3fn_scaled.safetensors "
            "(Comfy-Org/Wan_2.1_ComfyUI_repackaged has them)"
        )
    header = read_header(path)
    for prefix in _PREFIXES:
        if f"{prefix}token_embedding.weight" in header.tensors:
            names = weights.match(header, prefix, _renamed)
        elif any(prefix + name in header.tensors for name in _EMBEDDING):
            names = weights.match(header, prefix, str)
        else:
            continue
        if kinds.TEXT_ENCODER in kinds.kinds(header.tensors):
            return Text(_part(header, prefix, names), tokenizer_file.of_file(header))
    raise ModelError(f"{path.name} is {kinds.told(header)}, but the text encoder has to be UMT5-XXL")


def check(text: Text) -> None:
    """Raises ModelError unless a file has all that the network needs."""
    if isinstance(text.encoder, Part):
        _empty(text.encoder)


def load(text: Text, dtype: torch.dtype) -> tuple[Any, Any]:
    """The encoder on the CPU and its tokenizer; raises ModelError, or what transformers raises."""
    from transformers import UMT5EncoderModel

    if isinstance(text.encoder, Part):
        network = _empty(text.encoder)
        tokenizer = tokenizer_file.load(text.tokenizer, text.encoder.config["vocab_size"])
        return weights.fill(network, text.encoder, dtype), tokenizer
    encoder = UMT5EncoderModel.from_pretrained(
        str(text.encoder), torch_dtype=dtype, use_safetensors=True, local_files_only=True
    )
    return encoder, tokenizer_file.load(text.tokenizer, encoder.config.vocab_size)


def _empty(part: Part) -> nn.Module:
    from transformers import UMT5Config, UMT5EncoderModel

    return weights.empty(part, lambda: UMT5EncoderModel(UMT5Config(**part.config)))


def _part(header: Header, prefix: str, names: dict[str, str]) -> Part:
    for name in _EMBEDDING:  # one tensor with two names, of which a file may have either
        names.setdefault(name, names.get(_EMBEDDING[0], names.get(_EMBEDDING[1], "")))
    shapes = {name: header.tensors[source].shape for name, source in names.items()}
    try:
        tokens, width = shapes[_EMBEDDING[0]]
        heads = shapes[f"{_FIRST}.0.SelfAttention.relative_attention_bias.weight"]
        config = {
            "vocab_size": tokens,
            "d_model": width,
            "d_kv": shapes[f"{_FIRST}.0.SelfAttention.q.weight"][0] // heads[1],
            "d_ff": shapes[f"{_FIRST}.1.DenseReluDense.wi_0.weight"][0],
            "num_layers": 1 + max(int(found[1]) for found in map(_BLOCK_NUMBER.match, shapes) if found),
            "num_heads": heads[1],
            "relative_attention_num_buckets": heads[0],
        }
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise ModelError(
            f"{header.path.name} lacks tensors of a UMT5 text encoder, such as {error}"
        ) from error
    return Part(header, prefix, config, names)


def _folder(path: Path) -> Path:
    """The text encoder's own folder: `path`, or the one in a whole pipeline."""
    folder = path / "text_encoder" if (path / "text_encoder" / "config.json").is_file() else path
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(
            f"{path} is no text encoder in diffusers' format: its config.json is missing or damaged"
        ) from error
    if kind != "umt5":
        raise ModelError(f"{folder} is of the type {kind}, but the text encoder has to be a umt5")
    return folder


def _renamed(name: str) -> str:
    """Wan's own name to Hugging Face's; a name that is neither stays, and is found out later."""
    stem, dot, end = name.rpartition(".")
    block = re.match(r"blocks\.(\d+)\.", stem)
    if block is None:
        return _TOP.get(stem, stem) + dot + end
    inner = stem.removeprefix(block[0])
    return f"encoder.block.{block[1]}." + _BLOCK.get(inner, inner) + dot + end
