"""Loading a model: device, dtype, offload, and fetching it first where it is on the hub.

Knows no flag and no file but the model's.
"""

from __future__ import annotations

import errno
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from vsf_lib.errors import ModelError, SettingsError, is_out_of_memory, is_unreadable
from vsf_lib.images.model import INDEX, Folder, Model, inspect, read_index
from vsf_lib.images.request import DEVICE, DTYPE, Request
from vsf_lib.images.single_file import FLUX, SD3
from vsf_lib.scenes.loading import load_pipeline

_BIG = 4 * 2**30
"""Bytes of weights from which a CPU gets them in bfloat16, since float32 might not fit."""
_SLOW = 2**30
"""Bytes of weights from which loading shows its progress."""
_TRANSFORMERS = {SD3: "SD3Transformer2DModel", FLUX: "FluxTransformer2DModel"}


@dataclass(frozen=True)
class Machine:
    """Where and in which precision to draw."""

    device: torch.device
    dtype: torch.dtype
    offload: str
    recorded: dict[str, str]
    """What the infotext must say of it: only what is not the choice of "auto" here."""


def choose_device(name: str) -> torch.device:
    """The device of that name, "auto" being the best one; ModelError where this machine lacks it."""
    kinds = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, there in kinds.items() if there))
    kind, _, number = name.partition(":")
    count = torch.cuda.device_count() if kind == "cuda" else int(kinds[kind])
    if int(number or 0) >= count:
        there = ", ".join(kind for kind, there in kinds.items() if there)
        raise ModelError(
            f"this machine has no {name} that PyTorch {torch.__version__} can use: it has {there}"
        )
    return torch.device(name)


def choose_machine(request: Request, model: Model) -> Machine:
    """Checks device, dtype and offload against this machine; raises SettingsError or ModelError."""
    best = choose_device("auto")
    device = choose_device(request.device)
    usual = _usual_dtype(device, model)
    dtype = usual if request.dtype == "auto" else getattr(torch, request.dtype)
    if request.offload != "none":
        if device.type == "cpu":
            raise SettingsError(
                f"--offload {request.offload} needs a GPU, but the device is cpu: leave it out"
            )
        if find_spec("accelerate") is None:
            raise SettingsError(
                f"--offload {request.offload} needs the package accelerate: pip install accelerate"
            )
    recorded = {}
    if device != best:
        recorded[DEVICE] = str(device)
    if dtype != usual:
        recorded[DTYPE] = str(dtype).removeprefix("torch.")
    return Machine(device, dtype, request.offload, recorded)


def half_dtype(device: torch.device) -> torch.dtype:
    """The 16-bit dtype that a GPU computes in natively."""
    if device.type == "cuda":
        # Not is_bf16_supported, which counts the emulation on cards before Ampere, slower than float16.
        native = torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        native = torch.backends.mps.is_macos_or_newer(14, 0)
    return torch.bfloat16 if native else torch.float16


def _usual_dtype(device: torch.device, model: Model) -> torch.dtype:
    if model.built_in:
        return torch.float32
    if device.type != "cpu":
        return half_dtype(device)
    # A model that is not here yet comes from the hub, and those are big.
    return torch.bfloat16 if model.folder is None or model.folder.weights > _BIG else torch.float32


def fetch(model: Model) -> Folder:
    """The model's folder, downloaded first if it is on the hub; raises ModelError with the remedy."""
    if model.folder is not None:
        return model.folder
    import diffusers
    from huggingface_hub import hf_hub_download

    try:
        # The smallest file first, so that gigabytes of another kind of model are not fetched for nothing.
        kind = read_index(Path(hf_hub_download(model.name, INDEX)))["_class_name"]
        path = getattr(diffusers, kind).download(model.name, use_safetensors=True)
    except ModelError:
        raise
    except Exception as error:  # the hub's client has no common base class across its versions
        raise ModelError(f"cannot get {model.name!r}: {why_not(error)}") from error
    return inspect(Path(path))


def why_not(error: BaseException | None) -> str:
    """What the hub's errors come down to: it tells "gated" and "not there" apart only deep in a chain."""
    names = set()
    while error is not None:
        names |= {cls.__name__ for cls in type(error).__mro__}
        if getattr(error, "errno", None) == errno.ENOSPC:
            return "the disk is full; HF_HOME names the folder that models are kept in"
        error = error.__cause__ or error.__context__
    if "GatedRepoError" in names:
        return "its licence must be accepted on its page, and then hf auth login run here"
    if "RepositoryNotFoundError" in names:
        return "there is no such folder here and no such model on Hugging Face (or hf auth login is needed)"
    if "EntryNotFoundError" in names and "LocalEntryNotFoundError" not in names:
        return "it is not a model in diffusers' format"
    return (
        "there is no such folder here, it was not downloaded before, and Hugging Face cannot be reached: go "
        "online, or pass the folder of a model"
    )


def load(folder: Folder, machine: Machine, *, quiet: bool) -> Any:
    """The pipeline on its device; raises ModelError if diffusers cannot make one of the folder."""
    import diffusers
    import transformers

    if quiet:
        for library in (diffusers.utils.logging, transformers.utils.logging):
            library.set_verbosity_error()
            if folder.weights < _SLOW or not sys.stderr.isatty():
                library.disable_progress_bar()
    try:
        given: dict[str, Any] = dict.fromkeys(folder.absent)
        if folder.file is not None:
            given["transformer"] = getattr(diffusers, _TRANSFORMERS[folder.pipeline]).from_single_file(
                str(folder.file.path),
                config=str(folder.path),
                subfolder="transformer",
                torch_dtype=machine.dtype,
                local_files_only=True,
            )
        if (folder.path / INDEX).is_file():
            pipe = getattr(diffusers, folder.pipeline).from_pretrained(
                folder.path,
                torch_dtype=machine.dtype,
                variant=folder.variant,
                use_safetensors=True,
                **given,
            )
        else:  # a small Flux transformer, whose other parts are the scenes model's
            pipe = load_pipeline(folder.path).to(machine.dtype)
    except Exception as error:  # see is_unreadable
        if is_out_of_memory(error) or not is_unreadable(error):
            raise
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        place = folder.path if folder.file is None else folder.file.path
        raise ModelError(f"cannot load the model in {place}: {reason}") from error
    if machine.offload == "model":
        pipe.enable_model_cpu_offload(device=machine.device)
    elif machine.offload == "sequential":
        pipe.enable_sequential_cpu_offload(device=machine.device)
    else:
        pipe.to(machine.device)
    return pipe
