"""The picture that a diffusers pipeline expects at each step, without another pass through the model.

Owns the watch on the scheduler: rectified flow says x = (1 - sigma) x0 + sigma noise and v = noise - x0, so
that x0 = x - sigma v. Reads what passes and changes nothing. Knows no guidance.
"""

from __future__ import annotations

import functools
from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from PIL import Image
from torch import Tensor

from vsf_lib.errors import ModelError


@dataclass(frozen=True)
class Prediction:
    """What one step expected."""

    step: int
    """From 0."""
    sigma: float
    """How much of the step's input was noise, 0 to 1."""
    latents: Tensor
    """x0 in float32, as the pipeline carries its latents."""


@dataclass
class Predictions:
    """What was seen so far; `taken` may be read once the pipeline has returned."""

    _sigmas: list[Tensor] = field(default_factory=list)
    _seen: list[tuple[int, Tensor]] = field(default_factory=list)

    def add(self, step: int, sigma: Tensor, latents: Tensor) -> None:
        """Takes note of a step; `sigma` stays on its device, because reading it would wait for it."""
        self._sigmas.append(sigma)
        self._seen.append((step, latents))

    def taken(self) -> list[Prediction]:
        """One for each step that was watched, in their order."""
        return [
            Prediction(step, float(sigma), latents)
            for sigma, (step, latents) in zip(self._sigmas, self._seen, strict=True)
        ]


def check_scheduler(pipe: Any) -> None:
    """Raises ModelError if this scheduler's steps do not tell what picture they expect."""
    if not isinstance(pipe.scheduler, FlowMatchEulerDiscreteScheduler):
        raise ModelError(
            f"the scheduler is a {type(pipe.scheduler).__name__}, but what picture a step expects is known "
            "for FlowMatchEulerDiscreteScheduler only: use a model that comes with that one"
        )


@contextmanager
def watch_predictions(pipe: Any, steps: Container[int]) -> Iterator[Predictions]:
    """Takes note of what `steps` of the pipeline's next call expect; raises ModelError as `check_scheduler`.

    It looks at the scheduler's own arguments. The latents of two steps, which a callback would be given, tell
    v only up to their rounding over the difference of the sigmas.
    """
    check_scheduler(pipe)
    scheduler, predictions = pipe.scheduler, Predictions()
    original = scheduler.step

    @functools.wraps(original)
    def step(model_output: Tensor, timestep: Any, sample: Tensor, *args: Any, **kwargs: Any) -> Any:
        result = original(model_output, timestep, sample, *args, **kwargs)
        at = int(scheduler.step_index) - 1  # it counts on at the end of a step
        number = at - (scheduler.begin_index or 0)
        if number in steps:
            sigma = scheduler.sigmas[at].to(sample.device)
            predictions.add(number, sigma, sample.float() - sigma * model_output.float())
        return result

    scheduler.step = step
    try:
        yield predictions
    finally:
        if scheduler.__dict__.get("step") is step:
            del scheduler.step


@torch.no_grad()
def decode(pipe: Any, latents: Tensor, width: int, height: int) -> Image.Image:
    """The picture of one picture's latents, decoded as the pipeline does at its end."""
    if hasattr(pipe, "_unpack_latents"):  # Flux carries patches as tokens
        latents = pipe._unpack_latents(latents, height, width, pipe.vae_scale_factor)
    config = pipe.vae.config
    latents = latents / config.scaling_factor + (config.shift_factor or 0.0)
    pixels = pipe.vae.decode(latents.to(pipe.vae.dtype), return_dict=False)[0]
    image: Image.Image = pipe.image_processor.postprocess(pixels, output_type="pil")[0]
    return image
