"""Trains the small Wan: drawing first, on the ways that the scenes model takes, then moving scenes.

A single frame is all that the first stage knows. It begins with what it can take over from the scenes model,
and its targets are that model's velocities, which are the same for the same noise: it learns in a fraction of
the time that rendered scenes would take. The second stage is rectified flow on latents of rendered keyframes,
now and then still on single frames as before, so that it does not forget.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import WanTransformer3DModel
from torch import Tensor, nn
from transformers import UMT5EncoderModel

from vsf_lib.errors import ModelError
from vsf_lib.scenes.motion import KEYFRAMES, moving_caption
from vsf_lib.scenes.training import wan, wan_adopt
from vsf_lib.scenes.training.common import in_parallel, learn, render_all, restore, resume
from vsf_lib.scenes.training.distil import Field, integrate
from vsf_lib.scenes.training.flow import CAPTIONS_EACH, random_sigmas
from vsf_lib.scenes.training.traces import Traces, load_teacher, traces_file
from vsf_lib.scenes.training.wan_vae import encode_frames, moving_scenes

MUON = 10.0
"""Muon's learning rate by Adam's: see flux_distil.py."""
DROPPED = 0.1
"""The share of empty captions, for guidance by two passes."""
SINGLE_FRAMES = 4
"""So many single frames take hardly longer than one video of five."""
STILLS_EVERY = 4
"""Steps of which one is on single frames."""


@dataclass
class Learners:
    """What is trained."""

    transformer: WanTransformer3DModel
    encoder: UMT5EncoderModel

    @classmethod
    def build(cls, teacher: Path) -> Learners:
        """A transformer that knows nothing, and a text encoder that knows the words but not the verbs."""
        return cls(wan.build(), wan.build_text_encoder(load_teacher(teacher).t5))

    @classmethod
    def load(cls, folder: Path, name: str, teacher: Path) -> Learners:
        """As a stage left them; raises ModelError if it has not run."""
        if not (folder / name).exists():
            raise ModelError(f"there is no {name} in {folder}: run the stage that makes it first")
        learners = cls.build(teacher)
        restore(folder / name, learners.modules())
        return learners

    def modules(self) -> list[nn.Module]:
        """Both."""
        return [self.transformer, self.encoder]


def begin(
    folder: Path,
    teacher: Path,
    *,
    steps: int,
    batch: int,
    learning_rate: float = 2e-3,
    workers: int = 1,
    compiled: bool = False,
    seed: int = 71,
) -> None:
    """Writes `folder/wan-begun.pt`: transformer and text encoder that draw single frames.

    Needs `traces.pt`. An interrupted run goes on from its last checkpoint.
    """
    in_parallel(workers, _begin, folder, teacher, steps, batch, learning_rate, compiled, seed)


def _begin(
    rank: int,
    workers: int,
    folder: Path,
    teacher: Path,
    steps: int,
    batch: int,
    learning_rate: float,
    compiled: bool,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    learners = Learners.build(teacher)
    traces = Traces.load(traces_file(folder, None))
    wan_adopt.adopt(learners.transformer, load_teacher(teacher), traces)
    captions = wan.Captions([[text] for text in traces.captions])
    file = folder / "wan-begun.pt"
    start, rng = resume(file, learners.modules(), seed, rank)
    transformer = wan.plain(learners.transformer, compiled=compiled)

    def loss_at(step: int) -> Tensor:
        return traced_loss(learners.encoder, transformer, traces, captions, rng, batch // workers)

    learn(
        file,
        learners.modules(),
        loss_at,
        rank=rank,
        steps=steps,
        learning_rate=learning_rate,
        start=start,
        times=MUON,
    )


def prepare(folder: Path, teacher: Path, count: int, seed: int = 73) -> None:
    """Writes `folder/wan-latents.pt`: latents float16 `[count, 32, 5, 8, 8]` and their captions."""
    scenes = moving_scenes(count, seed)
    rng = random.Random(seed)
    frames = render_all([key for moving in scenes for key in moving.keyframes()])
    latents = encode_frames(load_teacher(teacher).vae, frames).unflatten(0, (count, KEYFRAMES))
    captions = [[moving_caption(moving, rng) for _ in range(CAPTIONS_EACH)] for moving in scenes]
    torch.save(
        {"latents": latents.transpose(1, 2).half().contiguous(), "captions": captions},
        folder / "wan-latents.pt",
    )


def go_on(
    folder: Path,
    teacher: Path,
    *,
    steps: int,
    batch: int,
    learning_rate: float = 1e-3,
    workers: int = 1,
    compiled: bool = False,
    seed: int = 75,
) -> None:
    """Writes `folder/wan-flow.pt`: the model that moves, from that of `begin`.

    Needs `wan-latents.pt` and `traces.pt`. `batch` is that of whole videos; one step in `STILLS_EVERY` is on
    `SINGLE_FRAMES` times as many single frames.
    """
    in_parallel(workers, _go_on, folder, teacher, steps, batch, learning_rate, compiled, seed)


def _go_on(
    rank: int,
    workers: int,
    folder: Path,
    teacher: Path,
    steps: int,
    batch: int,
    learning_rate: float,
    compiled: bool,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    data = torch.load(folder / "wan-latents.pt", weights_only=True)
    learners = Learners.load(folder, "wan-begun.pt", teacher)
    file = folder / "wan-flow.pt"
    start, rng = resume(file, learners.modules(), seed, rank)
    captions = wan.Captions(data["captions"])
    traces = Traces.load(traces_file(folder, None))
    traced = wan.Captions([[text] for text in traces.captions])
    transformer = wan.plain(learners.transformer, compiled=compiled)

    def loss_at(step: int) -> Tensor:
        if step % STILLS_EVERY == 0:
            size = SINGLE_FRAMES * batch // workers
            return traced_loss(learners.encoder, transformer, traces, traced, rng, size)
        which, ids, _ = captions.batch(rng, batch // workers, DROPPED)
        return flow_loss(transformer, data["latents"][which].float(), wan.encode(learners.encoder, ids))

    learn(
        file,
        learners.modules(),
        loss_at,
        rank=rank,
        steps=steps,
        learning_rate=learning_rate,
        start=start,
        decay=0.9985,
        times=MUON,
    )


def traced_loss(
    encoder: UMT5EncoderModel,
    transformer: WanTransformer3DModel,
    traces: Traces,
    captions: wan.Captions,
    rng: np.random.Generator,
    size: int,
) -> Tensor:
    """How far the velocities of `size` single frames are from the scenes model's, on its own ways."""
    which, ids, empty = captions.batch(rng, size, DROPPED)
    at = torch.randint(traces.blank.shape[1], (len(which),))
    wanted = wan.fold(traces.velocity(which, at, (~empty).float()))
    state = wan.fold(traces.states[which, at].float())
    guessed = wan.velocity(transformer, state[:, :, None], traces.sigmas[which, at], wan.encode(encoder, ids))
    return (guessed - wanted[:, :, None]).square().mean()


def flow_loss(transformer: WanTransformer3DModel, clean: Tensor, text: Tensor) -> Tensor:
    """|v(x_sigma) - (noise - clean)|^2 with x_sigma = (1 - sigma) clean + sigma noise, at random sigmas."""
    sigma = random_sigmas(len(clean), shift=wan.SHIFT)
    noise = torch.randn_like(clean)
    s = sigma.view(-1, 1, 1, 1, 1)
    guessed = wan.velocity(transformer, (1 - s) * clean + s * noise, sigma, text)
    return (guessed - (noise - clean)).square().mean()


def guided(transformer: WanTransformer3DModel, text: Tensor, empty: Tensor, scale: float) -> Field:
    """The velocity with classifier-free guidance `scale`; 1 is without, and one pass."""

    def velocity(x: Tensor, sigma: Tensor) -> Tensor:
        if scale == 1:
            return wan.velocity(transformer, x, sigma.expand(len(x)), text)
        both = torch.cat([empty.expand_as(text), text])
        v = wan.velocity(transformer, x.repeat(2, 1, 1, 1, 1), sigma.expand(2 * len(x)), both)
        blank, told = v.chunk(2)
        return blank + scale * (told - blank)

    return velocity


@torch.inference_mode()
def sample(
    learners: Learners, captions: wan.Captions, scenes: Tensor, noise: Tensor, *, steps: int, scale: float
) -> Tensor:
    """Latents `[n, 32, T, 8, 8]` from `noise` for the first captions of `scenes`; needs `wan.plain`."""
    text, empty = (wan.encode(learners.encoder, ids) for ids in (captions.first(scenes), captions.empty()))
    return integrate(guided(learners.transformer, text, empty, scale), noise, wan.wan_sigmas(steps))
