"""A Wan pipeline with its LoRAs, from files that are here; and what is refused before anything is loaded.

Owns how the parts become a pipeline, and the checks of folders. Runs in the worker process,
the only one that imports diffusers for this.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vsf_lib.errors import ModelError, is_out_of_memory, is_unreadable
from vsf_lib.program import program
from vsf_lib.scenes.model import MODELS, WAN, meant
from vsf_lib.video.builtin import model_path
from vsf_lib.video.download.catalogue import is_id
from vsf_lib.video.download.landing import INDEX, PIPELINE
from vsf_lib.video.job import VideoJob
from vsf_lib.video.lora import Lora, check_lora, check_loras
from vsf_lib.video.single_file import text_encoder as text_file
from vsf_lib.video.single_file import transformer as transformer_file
from vsf_lib.video.single_file import vae as vae_file
from vsf_lib.video.single_file.headers import SAFETENSORS, read_header
from vsf_lib.video.single_file.parts import is_file, look

if TYPE_CHECKING:
    import torch

_ROOM = 4 * 2**30
"""Bytes beside the weights: activations of 81 frames at 480p, and the VAE's in tiles."""
_PICTURES = "that is a built-in model of pictures, for {}. Otherwise "
_WEIGHTS = ("transformer", "vae", "text_encoder")
"""The parts of a pipeline that have files of weights."""
_OFFLOADS = {
    "none": "the whole model is on the GPU",
    "model": "one part at a time is on the GPU; the VAE works in tiles",
    "group": "one block at a time is on the GPU; the VAE works in tiles",
}


def key(job: VideoJob) -> tuple[Any, ...]:
    """What a loaded pipeline depends on: jobs with the same key can share it."""
    return (job.model, job.vae, job.loras, job.offload)


def check(job: VideoJob) -> str:
    """The source of the job's model; raises ModelError for what can be told to be wrong without loading."""
    source = check_model(job.model)
    look(job)
    check_loras(job.loras)
    return source


def load(
    job: VideoJob,
    device: torch.device,
    dtype: torch.dtype,
    chosen: Callable[[str], None] = lambda way: None,
) -> tuple[Any, str]:
    """A pipeline without text encoder, its LoRAs active, and where its parts are kept; raises ModelError.

    `chosen` is told that place as `place` does.
    """
    source = check(job)
    files = look(job)
    given: dict[str, Any] = {"text_encoder": None, "tokenizer": None}
    if files.vae is not None:
        with _told(f"the VAE {job.vae}"):
            given["vae"] = vae_file.load(files.vae, dtype)
    if files.transformer is not None:
        with _told(f"the transformer {job.model}"):
            given["transformer"] = transformer_file.load(files.transformer, dtype)
            pipe = _assembled(**given)
    else:
        pipe = _of_folder(source, dtype, **given)
    pipe.set_progress_bar_config(disable=True)
    add_loras(pipe, job.loras)
    return pipe, place(pipe, device, job.offload, chosen)


def load_text_encoder(job: VideoJob, dtype: torch.dtype) -> Any:
    """The pipeline with nothing but its text encoder and tokenizer, on the CPU; raises ModelError."""
    source = check(job)
    files = look(job)
    # These are loaded after the prompts are encoded; what is wrong with them is told before.
    if files.transformer is not None:
        with _told(f"the transformer {job.model}"):
            transformer_file.empty(files.transformer)
    if files.vae is not None:
        with _told(f"the VAE {job.vae}"):
            vae_file.check(files.vae)
    if files.text is None:
        return _of_folder(source, dtype, transformer=None, vae=None)
    with _told(f"the text encoder {job.text_encoder}"):
        encoder, tokenizer = text_file.load(files.text, dtype)
        return _assembled(text_encoder=encoder, tokenizer=tokenizer, transformer=None, vae=None)


@contextmanager
def _told(what: str, look_closer: Callable[[], str] = lambda: "") -> Iterator[None]:
    """What libraries raise about `what`, as ModelError; `look_closer` may know a better reason."""
    try:
        yield
    except Exception as error:  # see is_unreadable
        if is_out_of_memory(error) or not is_unreadable(error):
            raise
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(f"cannot load {what}: {look_closer() or lines[0][:300]}") from error


def _of_folder(source: str, dtype: torch.dtype, **parts: Any) -> Any:
    """The pipeline in a folder or in the hub's cache, with `parts` instead of its own."""
    wanted = [part for part in _WEIGHTS if part not in parts]
    folder = _folder(source, wanted)
    with _told(source, lambda: _damaged(folder, wanted)):
        from diffusers import WanPipeline

        return WanPipeline.from_pretrained(
            str(folder), torch_dtype=dtype, use_safetensors=True, local_files_only=True, **parts
        )


def _folder(source: str, wanted: list[str]) -> Path:
    """Where a pipeline lies; raises ModelError for a hub id that is not here, or not all of it."""
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import try_to_load_from_cache

    remedy = "fetch it with --download, or in the page under “Download models”"
    index = try_to_load_from_cache(source, INDEX)
    if not isinstance(index, str):
        raise ModelError(f"{source} is not on this machine yet: {remedy}")
    folder = Path(index).parent
    for part in wanted:
        if not any((folder / part).glob(f"*{SAFETENSORS}")):
            raise ModelError(f"the {part} of {source} is not on this machine yet: {remedy}")
    return folder


def _damaged(folder: Path, wanted: list[str]) -> str:
    """Which file of a pipeline cannot be read, and whose it is; nothing if all can."""
    for part in wanted:
        for file in sorted((folder / part).glob(f"*{SAFETENSORS}")):
            try:
                read_header(file)
            except ModelError as error:
                return f"of its {part}, {error}"
    return ""


def _assembled(**parts: Any) -> Any:
    from diffusers import UniPCMultistepScheduler, WanPipeline

    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    return WanPipeline(scheduler=scheduler, **parts)


def place(
    pipe: Any, device: torch.device, offload: str, chosen: Callable[[str], None] = lambda way: None
) -> str:
    """Puts the parts of `pipe` where they will work from; says which way was taken, nothing on a CPU.

    `chosen` is told the way, or nothing on a CPU, before the first part moves, which may be too large.
    """
    if device.type == "cpu":
        chosen("")
        pipe.to(device)
        return ""
    import torch

    if offload == "auto":
        offload = choose(_sizes(pipe), torch.cuda.mem_get_info(device)[0])
    chosen(offload)
    arrange(pipe, device, offload)
    return f"offload: {offload}, {_OFFLOADS[offload]}"


def arrange(pipe: Any, device: torch.device, offload: str) -> None:
    """Has the parts of `pipe` come to `device` in one of the ways of `Offload`, but "auto"."""
    import torch

    if offload == "none":
        pipe.to(device)
        return
    pipe.vae.enable_tiling()
    if offload == "model":
        pipe.enable_model_cpu_offload(device=device)
        return
    pipe.vae.to(device)  # small beside the transformer
    # Of the part: the pipeline's own is newer than the oldest diffusers that is used.
    pipe.transformer.enable_group_offload(
        onload_device=device,
        offload_device=torch.device("cpu"),
        offload_type="block_level",
        num_blocks_per_group=1,
    )


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
    """The folder of a diffusers pipeline, a hub id that is cached, or a transformer's file, of which `look`
    tells more; raises ModelError with the remedy."""
    if not model.strip():
        raise ModelError(f"the model has no name: give {WAN}, a folder, a file or an id of the hub")
    path = model_path(model)
    if is_file(model):
        return str(path)
    if not path.is_dir():
        if path.exists() or not is_id(model):
            hint = _PICTURES.format(program("generate")) if model in MODELS else meant(model, [WAN])
            raise ModelError(
                f"there is no folder {model}: {hint}give the folder of a Wan model in "
                "diffusers' format, or the file of a transformer"
            )
        return model
    try:
        index = json.loads((path / INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{path} is no model in diffusers' format: its model_index.json is missing or damaged"
        ) from error
    kind = index.get("_class_name")
    if kind != PIPELINE:
        raise ModelError(f"{path} is a {kind}, but videos are made with a {PIPELINE}")
    return str(path)


def add_loras(pipe: Any, loras: tuple[Lora, ...]) -> None:
    """Loads and activates them; raises ModelError for keys that the model does not have."""
    if not loras:
        return
    names = []
    for number, lora in enumerate(loras):
        path = check_lora(lora)
        try:
            state = pipe.lora_state_dict(str(path), weight_name=path.name)  # or it asks the hub
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
