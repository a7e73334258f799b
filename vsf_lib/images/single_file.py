"""One .safetensors file as a model, in the layout of its publishers: what it holds, told from its head.

Owns the reading of such a head and the names by which networks are told apart. Loads no weights.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vsf_lib.errors import ModelError

SUFFIX = ".safetensors"
SD3, FLUX = "StableDiffusion3Pipeline", "FluxPipeline"

_LARGEST_HEAD = 100_000_000
"""safetensors' own bound for the table at a file's beginning."""
_BLOCKS = {
    SD3: (("joint_blocks", "num_layers"),),
    FLUX: (("double_blocks", "num_layers"), ("single_blocks", "num_single_layers")),
}
_MARKS = {SD3: "joint_blocks.0.x_block.", FLUX: "double_blocks.0.txt_mod."}
_DISTILLED = "guidance_in.in_layer.weight"
_MORE = {"VAE": "first_stage_model|vae", "text encoders": "text_encoders|conditioner"}
_QUANTIZED = ("scale_weight", "scaled_fp8", "quant_state", "absmax")


@dataclass(frozen=True)
class SingleFile:
    """A file that holds a transformer."""

    path: Path
    pipeline: str
    size: int
    more: tuple[str, ...]
    """What it holds beside the transformer, which is not read."""
    blocks: Mapping[str, int]
    """How many blocks it has, by the name of the configuration's field."""
    distilled: bool

    def check(self, transformer: Mapping[str, Any], folder: Path) -> None:
        """Raises ModelError if the configuration in `folder` is of a transformer that is built otherwise."""
        for name, count in self.blocks.items():
            if transformer.get(name) != count:
                raise ModelError(
                    f"{self.path} has {count} blocks where {folder} says {name} {transformer.get(name)}: "
                    "name the parts of the model that the file was made from"
                )
        if self.pipeline == FLUX and bool(transformer.get("guidance_embeds")) != self.distilled:
            of, other = ("dev", "schnell") if self.distilled else ("schnell", "dev")
            raise ModelError(
                f"{self.path} is built like Flux {of}, but the parts in {folder} are {other}'s: name {of}'s"
            )


def inspect_file(path: Path) -> SingleFile:
    """Tells what a file holds; raises ModelError unless it is whole and holds a transformer that is known."""
    if path.suffix.lower() != SUFFIX:
        raise ModelError(
            f"{path} is a file, but the model must be a {SUFFIX} file, a folder in diffusers' format or a "
            "hub id"
        )
    tensors, size = read_head(path)
    names = {name.removeprefix("model.diffusion_model.") for name in tensors}
    kind = next((kind for kind, mark in _MARKS.items() if any(name.startswith(mark) for name in names)), None)
    if kind is None:
        raise ModelError(
            f"{path} holds neither Stable Diffusion 3.5 nor Flux.1 as they were published; a file in "
            "diffusers' format belongs into a folder with its configuration"
        )
    odd = next((name for name in names if name.rpartition(".")[2] in _QUANTIZED or name in _QUANTIZED), None)
    if odd is not None:
        raise ModelError(f"{path} is quantized ({odd}), which cannot be read here: use its 16 bit version")
    return SingleFile(
        path=path,
        pipeline=kind,
        size=size,
        more=tuple(
            title for title, parts in _MORE.items() if any(re.match(rf"({parts})\.", name) for name in names)
        ),
        blocks={field: _count(names, blocks) for blocks, field in _BLOCKS[kind]},
        distilled=_DISTILLED in names,
    )


def read_head(file: Path) -> tuple[dict[str, Any], int]:
    """The tensors that a safetensors file lists, and its bytes; raises ModelError unless it is as long as its
    own head says."""
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            start = stream.read(8)
            length = int.from_bytes(start, "little")
            head = stream.read(length) if length <= min(_LARGEST_HEAD, size) else b""
    except OSError as error:
        raise ModelError(f"cannot read {file}: {error.strerror or error}") from error
    if start.startswith(b"version "):
        raise ModelError(f"{file} is only a Git LFS pointer: run git lfs pull in the model's folder")
    try:
        tensors = {key: item for key, item in json.loads(head).items() if key != "__metadata__"}
        end = max(item["data_offsets"][1] for item in tensors.values())
    except (AttributeError, KeyError, IndexError, TypeError, ValueError):
        raise ModelError(f"{file} is damaged or cut off: copy or download it again") from None
    wanted = len(start) + length + end
    if size != wanted:
        raise ModelError(
            f"{file} is cut off or damaged: it has {size} bytes of {wanted}; copy or download it again"
        )
    return tensors, size


def _count(names: Collection[str], blocks: str) -> int:
    numbers = (re.match(rf"{blocks}\.(\d+)\.", name) for name in names)
    return len({found[1] for found in numbers if found})
