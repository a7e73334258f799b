"""A Wan pipeline with its LoRAs, from files that are here; and what is refused before anything is loaded.

Owns the checks of folders and LoRA files. Runs in the worker process, the only one that imports diffusers
for this.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vsf_lib.errors import ModelError
from vsf_lib.video.job import Lora, VideoJob

if TYPE_CHECKING:
    import torch

PIPELINE = "WanPipeline"
_ROOM = 4 * 2**30
"""Bytes beside the weights: activations of 81 frames at 480p, and the VAE's in tiles."""
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*\Z")


def key(job: VideoJob) -> tuple[Any, ...]:
    """What a loaded pipeline depends on: jobs with the same key can share it."""
    return (job.model, job.loras, job.offload)


def check(job: VideoJob) -> str:
    """The source of the job's model; raises ModelError for what can be told to be wrong without loading."""
    source = check_model(job.model)
    for lora in job.loras:
        check_lora(lora)
    return source


def load(job: VideoJob, device: torch.device, dtype: torch.dtype) -> tuple[Any, str]:
    """A pipeline without text encoder, its LoRAs active, and where its parts are kept; raises ModelError."""
    pipe = _part(job, dtype, text_encoder=None, tokenizer=None)
    pipe.set_progress_bar_config(disable=True)
    add_loras(pipe, job.loras)
    return pipe, place(pipe, device, job.offload)


def load_text_encoder(job: VideoJob, dtype: torch.dtype) -> Any:
    """The pipeline with nothing but its text encoder and tokenizer, on the CPU; raises ModelError."""
    return _part(job, dtype, transformer=None, vae=None)


def _part(job: VideoJob, dtype: torch.dtype, **without: None) -> Any:
    source = check(job)
    from diffusers import WanPipeline

    try:
        return WanPipeline.from_pretrained(
            source, torch_dtype=dtype, use_safetensors=True, local_files_only=True, **without
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        if source == job.model and not Path(source).exists():
            raise ModelError(
                f"{source} is not on this machine yet: fetch it with hf download {source}"
            ) from error
        raise ModelError(f"cannot load {job.model}: {str(error).splitlines()[0][:300]}") from error


def place(pipe: Any, device: torch.device, offload: str) -> str:
    """Puts the parts of `pipe` where they will work from; says which way was taken, nothing on a CPU."""
    if device.type == "cpu":
        pipe.to(device)
        return ""
    import torch

    if offload == "auto":
        offload = choose(_sizes(pipe), torch.cuda.mem_get_info(device)[0])
    if offload == "none":
        pipe.to(device)
        return "offload: none, the whole model is on the GPU"
    pipe.vae.enable_tiling()
    if offload == "model":
        pipe.enable_model_cpu_offload(device=device)
        return "offload: model, one part at a time is on the GPU; the VAE works in tiles"
    pipe.enable_group_offload(
        onload_device=device,
        offload_device=torch.device("cpu"),
        offload_type="block_level",
        num_blocks_per_group=1,
    )
    return "offload: group, one block at a time is on the GPU; the VAE works in tiles"


def choose(sizes: list[int], free: int) -> str:
    """The fastest way that fits parts of `sizes` bytes into `free` bytes, with room to work in."""
    room = free - _ROOM
    if sum(sizes) < room:
        return "none"
    return "model" if max(sizes) < room else "group"


def _sizes(pipe: Any) -> list[int]:
    parts = (pipe.transformer, pipe.vae)
    return [sum(p.numel() * p.element_size() for p in part.parameters()) for part in parts]


def check_model(model: str) -> str:
    """The folder of a diffusers pipeline, or a hub id that is cached; raises ModelError with the remedy."""
    path = Path(model).expanduser()
    if not path.is_dir():
        if path.exists() or not _HUB_ID.match(model):
            raise ModelError(
                f"there is no folder {model}: give the folder of a Wan model in diffusers' format"
            )
        return model
    try:
        index = json.loads((path / "model_index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{path} is no model in diffusers' format: its model_index.json is missing or damaged"
        ) from error
    kind = index.get("_class_name")
    if kind != PIPELINE:
        raise ModelError(f"{path} is a {kind}, but videos are made with a {PIPELINE}")
    return str(path)


def check_lora(lora: Lora) -> Path:
    """The file of a LoRA; raises ModelError unless it is a whole safetensors file."""
    from safetensors import SafetensorError, safe_open

    path = Path(lora.file).expanduser()
    if path.suffix.lower() != ".safetensors":
        raise ModelError(f"{path.name} is no .safetensors file: other formats can run code, so none is read")
    if not path.is_file():
        raise ModelError(f"there is no LoRA {path}")
    try:
        with safe_open(path, "np") as file:
            empty = not list(file.keys())
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path.name} is damaged or cut off: fetch it again ({error})") from error
    if empty:
        raise ModelError(f"{path.name} is empty")
    return path


def add_loras(pipe: Any, loras: tuple[Lora, ...]) -> None:
    """Loads and activates them; raises ModelError for keys that the model does not have."""
    if not loras:
        return
    names = []
    for number, lora in enumerate(loras):
        path = check_lora(lora)
        try:
            state = pipe.lora_state_dict(str(path))
        except (ValueError, KeyError, IndexError, RuntimeError, AttributeError) as error:
            raise ModelError(f"{path.name} is no LoRA for Wan: {str(error).splitlines()[0][:200]}") from error
        modules = {name for name, _ in pipe.transformer.named_modules()}
        unknown = sorted(key for key in state if _module_of(key) not in modules)
        if unknown:
            raise ModelError(
                f"{path.name} has {len(unknown)} keys that this model lacks, such as "
                f"{', '.join(unknown[:3])}: it is for another model or size"
            )
        name = f"lora{number}"
        try:
            pipe.load_lora_weights(state, adapter_name=name)
        except (ValueError, KeyError, RuntimeError) as error:
            raise ModelError(
                f"{path.name} does not fit this model: {str(error).splitlines()[0][:200]}"
            ) from error
        names.append(name)
    pipe.set_adapters(names, [lora.weight for lora in loras])


def _module_of(key: str) -> str:
    """`transformer.blocks.0.attn1.to_q.lora_A.weight` -> `blocks.0.attn1.to_q`."""
    path = key.removeprefix("transformer.").removeprefix("diffusion_model.")
    for ending in (".lora_A", ".lora_B", ".alpha", ".diff", ".diff_b"):
        path = path.split(ending)[0]
    return path
