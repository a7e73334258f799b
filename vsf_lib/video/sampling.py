"""Frames from a loaded pipeline: the scheduler, the guidance, and stopping in between.

Owns what a video may say of itself: guidance is named only from the report of what it did.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from vsf_lib.adapters import guided
from vsf_lib.adapters.generation import Report
from vsf_lib.errors import GuidanceError
from vsf_lib.jobs.stopping import stoppable
from vsf_lib.video.job import VideoJob

if TYPE_CHECKING:
    from vsf_lib.video.texts import Texts


@dataclass(frozen=True)
class Watch:
    """What looks on while frames are made."""

    stopped: Callable[[], bool]
    step: Callable[[int, int, float | None, Tensor], None]
    """Called after each step with its number from 1, their count, the seconds left, and the latents."""
    stage: Callable[[str], None]
    more: int = 0
    """Steps that come after those of this video, in the next one of the same job."""


@dataclass(frozen=True)
class Made:
    """What came out."""

    frames: np.ndarray
    """`[n, h, w, 3]` uint8, as many as were asked for."""
    report: Report | None


def make(pipe: Any, job: VideoJob, texts: Texts, watch: Watch) -> Made:
    """Runs a pipeline without text encoder; raises Stopped, GuidanceError, or what the model raises."""
    from diffusers import UniPCMultistepScheduler

    pipe.scheduler = UniPCMultistepScheduler.from_config(
        pipe.scheduler.config,
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        flow_shift=job.effective_shift,
    )
    began: list[float] = []

    def after(_: Any, index: int, __: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        now = time.monotonic()
        began.append(now)
        done = index + 1
        each = (now - began[0]) / (len(began) - 1) if len(began) > 1 else None
        left = None if each is None else each * (job.steps - done + watch.more)
        watch.step(done, job.steps, left, tensors["latents"])
        if done == job.steps:
            watch.stage("decoding")
        return tensors

    device = pipe._execution_device
    unconditional = None if texts.unconditional is None else texts.unconditional.to(device)
    with ExitStack() as around:
        guidance = None
        if texts.negatives is not None:
            negatives = [negative.to(device) for negative in texts.negatives]
            guidance = around.enter_context(guided(pipe, job.settings, negative_embeddings=negatives))
        around.enter_context(stoppable(pipe.transformer.blocks, watch.stopped))
        video = pipe(
            prompt_embeds=texts.prompt.to(device),
            negative_prompt_embeds=unconditional,
            width=job.width,
            height=job.height,
            num_frames=job.made_frames,
            num_inference_steps=job.steps,
            guidance_scale=job.guidance_scale,
            generator=torch.Generator("cpu").manual_seed(job.seed),
            output_type="np",
            callback_on_step_end=after,
        ).frames[0]
    frames = (np.asarray(video) * 255).round().astype(np.uint8)[job.effective_drop :]
    if len(frames) != job.frames:
        raise GuidanceError(f"the model made {len(frames)} frames, but {job.frames} were asked for")
    return Made(frames, guidance.report if guidance is not None else None)
