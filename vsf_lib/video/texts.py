"""The prompts of a job, encoded before anything else is loaded: the text encoder is the largest part of Wan.

Owns the text encoder's short life, and what is kept of it: the embeddings of the last job.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vsf_lib.adapters import encode_negatives
from vsf_lib.jobs.stopping import Stopped, stoppable
from vsf_lib.video.job import VideoJob
from vsf_lib.video.loading import load_text_encoder

LENGTH = 512
"""Tokens to which Wan's prompts are padded."""


@dataclass(frozen=True)
class Texts:
    """Embeddings on the CPU."""

    prompt: Tensor
    """`[1, 512, C]`."""
    unconditional: Tensor | None
    """`[1, 512, C]` for classifier-free guidance; None where that is off."""
    negatives: list[Tensor] | None
    """One `[n, C]`; None where nothing is guided."""


def key(job: VideoJob) -> tuple[Any, ...]:
    """What the embeddings depend on."""
    settings = job.settings
    said = (settings.negative_prompt, settings.negative_form, settings.method == "off")
    return (job.text_encoder or job.model, job.prompt, *said, job.guidance_scale > 1)


@torch.no_grad()
def encode(job: VideoJob, dtype: torch.dtype, stopped: Callable[[], bool]) -> Texts:
    """Loads the text encoder, encodes and drops it; raises ModelError, PromptError, Stopped."""
    pipe = load_text_encoder(job, dtype)
    try:
        pipe.to(_device(pipe))
        with stoppable(pipe.text_encoder.encoder.block, stopped):
            if stopped():
                raise Stopped
            prompt, unconditional = pipe.encode_prompt(
                prompt=job.prompt,
                negative_prompt="" if job.acts else job.settings.negative_prompt,
                do_classifier_free_guidance=job.guidance_scale > 1,
                max_sequence_length=LENGTH,
            )
            negatives = None
            if job.acts:
                negatives = encode_negatives(pipe, job.settings, max_sequence_length=LENGTH)
        return Texts(
            prompt.cpu(),
            None if unconditional is None else unconditional.cpu(),
            None if negatives is None else [negative.cpu() for negative in negatives],
        )
    finally:
        del pipe
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _device(pipe: Any) -> torch.device:
    """The GPU where the encoder fits beside what is there already, else the CPU: slow, but it has room."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    size = sum(p.numel() * p.element_size() for p in pipe.text_encoder.parameters())
    free, _ = torch.cuda.mem_get_info()
    return torch.device("cuda" if size * 1.2 < free else "cpu")
