"""Two stages that make the small Flux models out of the small SD3.5 model's teacher.

`flux-dev`: a transformer of Flux's architecture learns the velocities that the teacher has with guidance by
two passes, at many scales, the scale being an input: guidance distillation, as the real one's is called.
`flux-schnell`: a copy of that at one scale learns to go in four steps where the teacher goes in many.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vsf_lib.scenes.training import flow, flux
from vsf_lib.scenes.training.common import (
    Average,
    Checkpoint,
    PlainAttention,
    in_parallel,
    logger,
    muon_and_adam,
    restore,
    run_steps,
)
from vsf_lib.scenes.training.distil import guided, path
from vsf_lib.scenes.training.networks import CLIP_LENGTH, T5_LENGTH, Networks
from vsf_lib.scenes.training.text import LONG, Captions
from vsf_lib.scenes.training.text import encode as encode_sd3

FEW = 4
"""The steps that flux-schnell is made for."""
FINER = 2
"""How many steps the teacher takes for each of those."""
TAUGHT = 2.5
"""The guidance scale that is built into flux-schnell."""
SCALES = (1.0, 4.0)
KEPT = 4096
"""Labelled examples that a process keeps; each is seen about FRESH times before a new one takes its place.

At 6 times the student learned many by heart: a loss of 0.51 on them, 0.66 on new ones.
"""
FRESH = 2
MUON = 10.0
"""Muon's learning rate by Adam's. At 1, 4 and 13 the loss after 120 steps was 1.53, 1.38 and 1.28."""


class Lessons:
    """What the teacher says of noisy pictures: velocities with and without the caption.

    The teacher costs half as much as the student's own step, so that each example is used again, at another
    guidance scale.
    """

    def __init__(
        self,
        teacher: Networks,
        latents: Tensor,
        captions: Captions,
        rng: np.random.Generator,
        kept: int = KEPT,
    ) -> None:
        self._teacher, self._latents, self._captions, self._rng = teacher, latents, captions, rng
        self._device = teacher.transformer.device
        self._noisy = torch.empty(kept, *latents.shape[1:], device=self._device)
        self._blank, self._told = torch.empty_like(self._noisy), torch.empty_like(self._noisy)
        self._sigma = torch.empty(kept, device=self._device)
        self._clip = torch.zeros(kept, CLIP_LENGTH, dtype=torch.int64)
        self._t5 = torch.zeros(kept, T5_LENGTH, dtype=torch.int64)
        self._size = self._next = 0

    @torch.no_grad()
    def add(self, count: int) -> None:
        """Has the teacher label `count` more, in the place of the oldest."""
        scenes, clip, t5 = self._captions.random(self._rng, count, dropped=0.04)
        clean = self._latents[torch.from_numpy(scenes)].float().to(self._device)
        sigma = flow.random_sigmas(count)
        sigma[torch.rand(count) < 0.1] = 1.0  # where every picture begins
        sigma = sigma.to(self._device)
        s = sigma.view(-1, 1, 1, 1)
        noisy = (1 - s) * clean + s * torch.randn_like(clean)
        empty_clip, empty_t5 = self._captions.empty()
        text, pooled = encode_sd3(
            self._teacher,
            torch.cat([empty_clip.expand_as(clip), clip]).to(self._device),
            torch.cat([empty_t5.expand_as(t5), t5]).to(self._device),
        )
        with torch.autocast(self._device.type, torch.bfloat16), PlainAttention():
            both = self._teacher.transformer(
                torch.cat([noisy, noisy]), text, pooled, torch.cat([sigma, sigma]) * 1000, return_dict=False
            )[0]
        at = torch.arange(self._next, self._next + count) % len(self._sigma)
        self._noisy[at], self._sigma[at], self._clip[at], self._t5[at] = noisy, sigma, clip, t5
        self._blank[at], self._told[at] = both.float().chunk(2)
        self._next = (self._next + count) % len(self._sigma)
        self._size = min(self._size + count, len(self._sigma))

    def draw(self, size: int) -> Batch:
        """`size` of those kept, guided at random scales.

        Their captions are mostly padded as `generate` pads them; now and then without padding, as a negative
        prompt is encoded; now and then padded to the pipeline's own length.
        """
        mode, chosen = self._rng.random(), torch.from_numpy(self._rng.integers(self._size, size=size))
        clip, t5 = self._clip[chosen], self._t5[chosen]
        if mode < 0.04:
            chosen, clip, t5 = (x[: max(1, size // 4)] for x in (chosen, clip, t5))
            t5 = torch.nn.functional.pad(t5, (0, LONG - T5_LENGTH))
        elif mode < 0.16:
            lengths = (self._clip[: self._size] != 0).sum(-1)
            length = int(lengths[chosen[0]])
            same = torch.nonzero(lengths == length)[:, 0]
            chosen = same[torch.from_numpy(self._rng.integers(len(same), size=size))]
            clip, t5 = self._clip[chosen, :length], self._t5[chosen, : length - 1]
        low, high = SCALES
        scale = low + (high - low) * torch.rand(len(chosen), device=self._device)
        blank, told = self._blank[chosen], self._told[chosen]
        return Batch(
            self._noisy[chosen],
            self._sigma[chosen],
            scale,
            clip.to(self._device),
            t5.to(self._device),
            blank + scale.view(-1, 1, 1, 1) * (told - blank),
        )


@dataclass(frozen=True)
class Batch:
    """One step's examples."""

    noisy: Tensor
    sigma: Tensor
    scale: Tensor
    clip: Tensor
    t5: Tensor
    velocity: Tensor


def train_dev(
    folder: Path,
    *,
    steps: int,
    batch: int,
    learning_rate: float = 1.5e-3,
    device: str = "cpu",
    workers: int = 1,
    seed: int = 31,
) -> None:
    """Writes `folder/flux-dev.pt`. An interrupted run goes on from its last checkpoint."""
    in_parallel(workers, _train_dev, folder, steps, batch, learning_rate, device, seed)


def _train_dev(
    rank: int,
    workers: int,
    folder: Path,
    steps: int,
    batch: int,
    learning_rate: float,
    device: str,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    student = flux.build(guidance=True)
    start = restore(folder / "flux-dev.part.pt", [student])
    student.to(device)
    teacher = flow.load(folder, device=device)
    latents, captions = material(folder)
    torch.manual_seed(seed + rank + start)
    lessons = Lessons(teacher, latents, captions, np.random.default_rng(seed + rank + start))
    each = batch // workers
    for _ in range(min(32, steps)):
        lessons.add(each)
    average = Average([student], 0.998)
    optimisers = muon_and_adam([student], learning_rate, MUON)

    def loss_at(step: int) -> Tensor:
        if step % FRESH == 0:
            lessons.add(each)
        now = lessons.draw(each)
        with torch.no_grad():
            text = flux.encode(teacher, now.clip, now.t5)
        guessed = flux.velocity(student, now.noisy, now.sigma, now.scale, text)
        return (guessed - now.velocity).square().mean()

    keep = Checkpoint(folder / "flux-dev.pt", average, [student], rank)
    run_steps(steps, learning_rate, optimisers, loss_at, keep, start=start, every=100)
    keep.finish()


def material(folder: Path) -> tuple[Tensor, Captions]:
    """Latents and captions: of renders, and of what the teacher drew, which is where samplers will be."""
    renders = torch.load(folder / "latents.pt", weights_only=True)
    drawn = torch.load(folder / "pairs.pt", weights_only=True)
    several = len(renders["captions"][0])
    captions = [*renders["captions"], *(row * several for row in drawn["captions"])]
    return torch.cat([renders["latents"], drawn["latents"]]), Captions(captions)


def trace(
    folder: Path,
    *,
    scale: float = 2.5,
    finer: int = 3,
    device: str = "cpu",
    workers: int = 1,
    count: int | None = None,
) -> None:
    """Writes `folder/traces.pt`: where the teacher stands after each of the few steps, from the pairs' noise.

    The critic has already dropped the pairs that end badly.
    """
    in_parallel(workers, _trace, folder, device, count)
    parts = [folder / f"traces-{rank}.pt" for rank in range(workers)]
    data = [torch.load(part, weights_only=True) for part in parts]
    captions = [row for part in data for row in part["captions"]]
    torch.save(
        {"states": torch.cat([part["states"] for part in data]), "captions": captions}, folder / "traces.pt"
    )
    for part in parts:
        part.unlink()


@torch.inference_mode()
def _trace(rank: int, workers: int, folder: Path, device: str, count: int | None) -> None:
    pairs = torch.load(folder / "pairs.pt", weights_only=True)
    noises = pairs["noise"][:count][rank::workers]
    told = pairs["captions"][:count][rank::workers]
    captions, teacher = Captions(told), flow.load(folder, device=device)
    empty = encode_sd3(teacher, *(ids.to(device) for ids in captions.empty()))
    sigmas = flux.flux_sigmas(FEW * FINER)
    done = []
    for i in range(0, len(noises), 100):
        noise = noises[i : i + 100].float().to(device)
        ids = captions.padded(range(i, i + len(noise)))
        text, pooled = encode_sd3(teacher, *(x.to(device) for x in ids))
        points = list(path(guided(teacher, text, pooled, empty, TAUGHT), noise, sigmas))
        done.append(torch.stack([noise, *points[FINER - 1 :: FINER]], dim=1).half().cpu())
        logger.info("%d of %d traced", i + len(noise), len(noises))
    torch.save({"states": torch.cat(done), "captions": told}, folder / f"traces-{rank}.pt")


def train_schnell(
    folder: Path,
    *,
    steps: int,
    batch: int,
    learning_rate: float = 1e-3,
    device: str = "cpu",
    workers: int = 1,
    seed: int = 41,
) -> None:
    """Writes `folder/flux-schnell.pt`. An interrupted run goes on from its last checkpoint."""
    in_parallel(workers, _train_schnell, folder, steps, batch, learning_rate, device, seed)


def _train_schnell(
    rank: int,
    workers: int,
    folder: Path,
    steps: int,
    batch: int,
    learning_rate: float,
    device: str,
    seed: int,
) -> None:
    data = torch.load(folder / "traces.pt", weights_only=True)
    states, captions = data["states"], Captions(data["captions"])
    student = flux.without_guidance(flux.load(folder / "flux-dev.pt", guidance=True), TAUGHT)
    start = restore(folder / "flux-schnell.part.pt", [student])
    student.to(device)
    teacher = flow.load(folder, device=device)
    torch.manual_seed(seed + rank + start)
    rng = np.random.default_rng(seed + rank + start)
    average = Average([student], 0.998)
    optimisers = muon_and_adam([student], learning_rate, MUON)
    sigmas = flux.flux_sigmas(FEW)

    def loss_at(step: int) -> Tensor:
        index, clip, t5 = captions.batch(rng, batch // workers, dropped=0.0)
        chosen = torch.from_numpy(index)
        leg = torch.randint(FEW, (len(chosen),))
        before, after = (states[chosen, leg + k].float().to(device) for k in (0, 1))
        span = (sigmas[leg + 1] - sigmas[leg]).view(-1, 1, 1, 1).to(device)
        with torch.no_grad():
            text = flux.encode(teacher, clip.to(device), t5.to(device))
        guessed = flux.velocity(student, before, sigmas[leg].to(device), None, text)
        return (guessed - (after - before) / span).square().mean()

    keep = Checkpoint(folder / "flux-schnell.pt", average, [student], rank)
    run_steps(steps, learning_rate, optimisers, loss_at, keep, start=start, every=100)
    keep.finish()
