"""Drawing with a model: seeds, and what a picture may say of itself.

Owns the claim in the infotext: guidance is named only from the report of what it did. Pictures are drawn one
at a time, because a row of a batch differs in its last bits from the same picture alone. Knows no flag and no
file but what it is told to write.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from vsf_lib import __version__
from vsf_lib.adapters import guided
from vsf_lib.adapters.predictions import check_scheduler
from vsf_lib.errors import GuidanceError, ModelError
from vsf_lib.images.heat import Trace
from vsf_lib.images.loading import Machine, load
from vsf_lib.images.model import Folder, Model
from vsf_lib.images.request import DISTILLED, PARTS, PROGRAM, Request
from vsf_lib.jobs.stopping import stoppable
from vsf_lib.metadata import COMPARISON, COMPARISON_VALUE, FINGERPRINT, Parameters, write_png
from vsf_lib.scenes.model import MAX_SEQUENCE_LENGTH
from vsf_lib.settings import Settings

_OFF = Settings(method="off")
_SAMPLERS = {"FlowMatchEulerDiscreteScheduler": "Euler"}


@dataclass(frozen=True)
class Picture:
    """A finished picture, and how long drawing it took."""

    image: Image.Image
    parameters: Parameters
    seconds: float
    heatmap: Callable[[], tuple[Image.Image, Parameters]] | None = None
    """Draws the heat map that goes with it, if one was asked for, and says what that was made from."""
    parts: tuple[Image.Image, ...] = ()
    """The pictures that `image` is made of, from the left: guided, or unguided and guided."""

    @property
    def told(self) -> dict[str, Any]:
        """What `--json` says of it beside path, infotext and seconds."""
        return {}

    def write(self, path: Path, infotext: str) -> None:
        """Writes it; raises OutputError."""
        write_png(path, self.image, infotext)


class Watch:
    """What looks on while pictures are drawn; this one leaves it to diffusers' bars."""

    def step(self, done: int, steps: int) -> None:
        """So many of a picture's steps are done."""

    def stopped(self) -> bool:
        """Whether to raise Stopped at the next block of the network."""
        return False


NOBODY = Watch()


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
    pipe: Any,
    request: Request,
    model: Model,
    folder: Folder,
    machine: Machine,
    *,
    label: str | None = None,
    watch: Watch = NOBODY,
    without: Image.Image | None = None,
) -> Iterator[Picture]:
    """The same with a loaded model. A `label` is what a single picture's bar says before it goes away.

    `without` is the unguided picture to compare with, where it was drawn before.
    """
    width, height = folder.size(request.size)
    call = _call(request, model, folder, (width, height))
    for number in range(request.batch):
        seed = request.seed + number
        start = time.perf_counter()
        count = f"{number + 1}/{request.batch}" if request.batch > 1 else ""
        images = []
        if request.compare:
            if without is None:
                without, _ = _draw_one(pipe, call, seed, _OFF, f"{count} without".strip(), watch=watch)
            images.append(without)
            without = None  # another seed's is another picture
        name = label or (f"{count} with" if request.compare else count).strip()
        trace = Trace() if request.heatmap else None
        image, done = _draw_one(
            pipe, call, seed, request.settings, name, leave=label is None, trace=trace, watch=watch
        )
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
            parts=tuple(images),
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
    watch: Watch = NOBODY,
) -> tuple[Image.Image, Settings | None]:
    """One picture, and the settings that it was guided with: None unless the guidance's report says so.

    `trace` keeps what a heat map of the guided picture needs; the picture is the same with and without it.
    """
    pipe.set_progress_bar_config(desc=label or None, disable=None, leave=leave)  # None: on a terminal only
    steps = call["num_inference_steps"]

    def after(_: Any, index: int, __: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        watch.step(index + 1, steps)
        return tensors

    with (
        guided(pipe, settings, record_share=trace is not None) as guidance,
        nullcontext() if trace is None else trace.watching(pipe, steps),
        stoppable(_blocks(pipe), watch.stopped),
    ):
        # Noise from the CPU, so that a seed is the same picture's beginning on every device.
        noise = torch.Generator("cpu").manual_seed(seed)
        pixels = pipe(**call, generator=noise, callback_on_step_end=after).images
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


def _blocks(pipe: Any) -> list[Any]:
    network = pipe.transformer
    return [*network.transformer_blocks, *getattr(network, "single_transformer_blocks", ())]


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
