"""Loading a model and drawing with it: device, dtype, offload, seeds, and what a picture may say of itself.

Owns the claim in the infotext: guidance is named only from the report of what it did. Pictures are drawn one
at a time, because a row of a batch differs in its last bits from the same picture alone. Knows no flag and no
file but the model's.
"""

from __future__ import annotations

import errno
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from vsf_lib import __version__
from vsf_lib.adapters import guided
from vsf_lib.adapters.predictions import check_scheduler
from vsf_lib.cli.heat import Trace
from vsf_lib.cli.model import INDEX, Folder, Model, inspect, read_index
from vsf_lib.cli.request import (
    DEVICE,
    DISTILLED,
    DTYPE,
    PARTS,
    PROGRAM,
    Request,
)
from vsf_lib.cli.single_file import FLUX, SD3
from vsf_lib.errors import GuidanceError, ModelError, SettingsError, is_out_of_memory, is_unreadable
from vsf_lib.metadata import COMPARISON, COMPARISON_VALUE, FINGERPRINT, Parameters, write_png
from vsf_lib.scenes.loading import load_pipeline
from vsf_lib.scenes.model import MAX_SEQUENCE_LENGTH
from vsf_lib.settings import Settings

_BIG = 4 * 2**30
"""Bytes of weights from which a CPU gets them in bfloat16, since float32 might not fit."""
_OFF = Settings(method="off")
_SLOW = 2**30
"""Bytes of weights from which loading shows its progress."""
_TRANSFORMERS = {SD3: "SD3Transformer2DModel", FLUX: "FluxTransformer2DModel"}
_SAMPLERS = {"FlowMatchEulerDiscreteScheduler": "Euler"}


@dataclass(frozen=True)
class Picture:
    """A finished picture, and how long drawing it took."""

    image: Image.Image
    parameters: Parameters
    seconds: float
    heatmap: Callable[[], tuple[Image.Image, Parameters]] | None = None
    """Draws the heat map that goes with it, if one was asked for, and says what that was made from."""

    @property
    def told(self) -> dict[str, Any]:
        """What `--json` says of it beside path, infotext and seconds."""
        return {}

    def write(self, path: Path, infotext: str) -> None:
        """Writes it; raises OutputError."""
        write_png(path, self.image, infotext)


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


def draw(
    request: Request, model: Model, folder: Folder, machine: Machine, *, quiet: bool
) -> Iterator[Picture]:
    """The pictures of a request, one after the other; the model is loaded before the first."""
    folder.size(request.size)  # again, because of models that had to be fetched
    pipe = load(folder, machine, quiet=quiet)
    if request.heatmap:
        check_scheduler(pipe)
    yield from draw_with(pipe, request, model, folder, machine)


def draw_with(
    pipe: Any, request: Request, model: Model, folder: Folder, machine: Machine, *, label: str | None = None
) -> Iterator[Picture]:
    """The same with a loaded model. A `label` is what a single picture's bar says before it goes away."""
    width, height = folder.size(request.size)
    call = _call(request, model, folder, (width, height))
    for number in range(request.batch):
        seed = request.seed + number
        start = time.perf_counter()
        count = f"{number + 1}/{request.batch}" if request.batch > 1 else ""
        images = []
        if request.compare:
            image, _ = _draw_one(pipe, call, seed, _OFF, f"{count} without".strip())
            images.append(image)
        name = label or (f"{count} with" if request.compare else count).strip()
        trace = Trace() if request.heatmap else None
        image, done = _draw_one(pipe, call, seed, request.settings, name, leave=label is None, trace=trace)
        images.append(image)
        parameters = Parameters(
            prompt=request.prompt,
            steps=request.steps,
            sampler=_sampler(pipe),
            cfg_scale=1.0 if folder.flux else request.guidance_scale,
            seed=seed,
            width=width,
            height=height,
            negative_prompt=request.cfg_negative,
            model=model.name,
            version=f"{PROGRAM}{__version__}",
            settings=done,
            extra=_extra(request, model, folder, machine),
        )
        yield Picture(
            image=_side_by_side(images),
            parameters=parameters,
            seconds=time.perf_counter() - start,
            heatmap=None if trace is None else partial(trace.draw, pipe, images, parameters),
        )


def _call(request: Request, model: Model, folder: Folder, size: tuple[int, int]) -> dict[str, Any]:
    """What the pipeline is called with for every picture of a request."""
    scale = request.distilled if folder.flux else request.guidance_scale
    return {
        "prompt": request.prompt,
        "negative_prompt": request.cfg_negative or None,
        "num_inference_steps": request.steps,
        "guidance_scale": scale,
        "width": size[0],
        "height": size[1],
        "max_sequence_length": MAX_SEQUENCE_LENGTH if model.built_in else folder.sequence_length,
        "output_type": "np",
    }


def _draw_one(
    pipe: Any,
    call: dict[str, Any],
    seed: int,
    settings: Settings,
    label: str,
    *,
    leave: bool = True,
    trace: Trace | None = None,
) -> tuple[Image.Image, Settings | None]:
    """One picture, and the settings that it was guided with: None unless the guidance's report says so.

    `trace` keeps what a heat map of the guided picture needs; the picture is the same with and without it.
    """
    pipe.set_progress_bar_config(desc=label or None, disable=None, leave=leave)  # None: on a terminal only
    with (
        guided(pipe, settings, record_share=trace is not None) as guidance,
        nullcontext() if trace is None else trace.watching(pipe, call["num_inference_steps"]),
    ):
        # Noise from the CPU, so that a seed is the same picture's beginning on every device.
        pixels = pipe(**call, generator=torch.Generator("cpu").manual_seed(seed)).images
    if not np.isfinite(pixels).all():
        raise ModelError(
            "the picture has values that are not finite, so it is spoilt: use --dtype bfloat16 or float32"
        )
    image: Image.Image = pipe.image_processor.numpy_to_pil(pixels)[0]
    if settings.method == "off":
        return image, None
    report = guidance.report
    if report is None or report.method != settings.method or not report.guided_steps:
        raise GuidanceError("guidance reports nothing that it did, so the picture cannot be called guided")
    if trace is not None:
        trace.report = report
    return image, settings


def _extra(request: Request, model: Model, folder: Folder, machine: Machine) -> dict[str, str]:
    extra = dict(machine.recorded)
    if model.parts:
        extra[PARTS] = model.parts
    if folder.flux and folder.distilled:
        extra[DISTILLED] = f"{request.distilled:g}"
    if request.compare:
        extra[COMPARISON] = COMPARISON_VALUE
    if fingerprint := model.fingerprint():
        extra[FINGERPRINT] = fingerprint
    return extra


def _sampler(pipe: Any) -> str:
    name = type(pipe.scheduler).__name__
    return _SAMPLERS.get(name, name)


def _side_by_side(images: list[Image.Image]) -> Image.Image:
    if len(images) == 1:
        return images[0]
    width, height = images[0].size
    sheet = Image.new("RGB", (width * len(images), height))
    for column, image in enumerate(images):
        sheet.paste(image, (column * width, 0))
    return sheet
