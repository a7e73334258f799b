"""Makes the small Flux models out of the scenes model that is shipped: no other training is needed before.

`traces`: the scenes model draws many captions with guidance by two passes, at many scales and noise levels; a
critic drops the drawings that do not show their caption, and where each of the others went is kept.
`flux-dev`: a transformer of Flux's architecture learns the velocities on these ways, the scale being an
input: guidance distillation, as the real one's is called.
`flux-schnell`: a copy of that at one scale learns to go in four steps where the traces took eight.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vsf_lib.errors import ModelError
from vsf_lib.scenes.judge import Judge, Verdict
from vsf_lib.scenes.loading import load_pipeline
from vsf_lib.scenes.training import flux
from vsf_lib.scenes.training.common import (
    Average,
    Checkpoint,
    PlainAttention,
    in_parallel,
    logger,
    muon_and_adam,
    restore,
    run_steps,
    training_scenes,
)
from vsf_lib.scenes.training.distil import FEWEST, decode, shows
from vsf_lib.scenes.training.networks import Networks
from vsf_lib.scenes.training.text import Captions
from vsf_lib.scenes.training.text import encode as encode_sd3
from vsf_lib.scenes.world import caption

FEW = 4
"""The steps that flux-schnell is made for."""
FINER = 2
"""How many steps the teacher takes for each of those."""
TAUGHT = 1.5
"""The guidance scale that is built into flux-schnell: the scenes model's best, in prompt and in drawing."""
SCALES = (1.0, 3.0)
SHIFTS = (1.2, 3.5)
"""Timestep shifts of the traces that leave flux-schnell's noise levels, so that dev knows those between."""
MUON = 10.0
"""Muon's learning rate by Adam's. At 1, 4 and 13 the loss after 120 steps was 1.53, 1.38 and 1.28."""


def load_teacher(folder: Path, device: str = "cpu") -> Networks:
    """The scenes model in `folder`, as its parts."""
    networks = Networks.of(load_pipeline(folder))
    for module in (networks.vae, *networks.learners()):
        module.eval().requires_grad_(False).to(device)
    return networks


@dataclass(frozen=True)
class Traces:
    """Ways from noise to a drawing, `S` steps each."""

    sigmas: Tensor
    """Noise levels `[n, S + 1]`."""
    states: Tensor
    """Latents at these, float16 `[n, S + 1, 8, 16, 16]`."""
    blank: Tensor
    """The teacher's velocities there without the caption, float16 `[n, S, 8, 16, 16]`."""
    told: Tensor
    """The same with it."""
    scale: Tensor
    """The guidance `[n]` by which the way was taken."""
    captions: list[str]

    @classmethod
    def load(cls, file: Path) -> Traces:
        """What `trace` wrote; raises ModelError if it has not run."""
        if not file.exists():
            raise ModelError(f"there is no {file.name} in {file.parent}: run the stage that makes it first")
        return cls(**torch.load(file, weights_only=True))

    @classmethod
    def joined(cls, parts: Sequence[Traces]) -> Traces:
        """All of them, one behind the other."""
        tensors = [name for name in vars(parts[0]) if name != "captions"]
        return cls(
            **{name: torch.cat([getattr(part, name) for part in parts]) for name in tensors},
            captions=[text for part in parts for text in part.captions],
        )

    def only(self, good: Sequence[bool]) -> Traces:
        """Those that are good, in half precision but for noise levels and scales."""
        chosen = torch.tensor(good)
        return Traces(
            self.sigmas[chosen],
            self.states[chosen].half(),
            self.blank[chosen].half(),
            self.told[chosen].half(),
            self.scale[chosen],
            [text for text, is_good in zip(self.captions, good, strict=True) if is_good],
        )

    def save(self, file: Path) -> None:
        """Writes all of it."""
        torch.save(vars(self), file)

    def velocity(self, which: Tensor, step: Tensor, scale: Tensor) -> Tensor:
        """Guided at `scale` `[b]`, from the states after `step` `[b]` steps of the traces `which` `[b]`."""
        blank, told = (x[which, step].float() for x in (self.blank, self.told))
        return blank + scale.view(-1, 1, 1, 1) * (told - blank)


def trace(
    folder: Path,
    teacher: Path,
    *,
    count: int,
    device: str = "cpu",
    workers: int = 1,
    seed: int = 21,
    keep: Callable[[str, Verdict], bool] = shows,
) -> None:
    """Writes `folder/traces.pt`: of `count` drawings those that the critic finds to show their caption.

    Half of them go through flux-schnell's own noise levels with its own guidance, the others anywhere.
    Raises ModelError if hardly any is left.
    """
    in_parallel(workers, _trace, folder, teacher, count // workers, device, seed, keep)
    parts = [folder / f"traces-{rank}.pt" for rank in range(workers)]
    merged = Traces.joined([Traces.load(part) for part in parts])
    if len(merged.scale) < FEWEST * count:
        raise ModelError(
            f"the scenes model's drawings show their caption in {len(merged.scale)} of {count} cases only: "
            "train that model first"
        )
    merged.save(folder / "traces.pt")
    for part in parts:
        part.unlink()


@torch.inference_mode()
def _trace(
    rank: int,
    workers: int,
    folder: Path,
    teacher_folder: Path,
    count: int,
    device: str,
    seed: int,
    keep: Callable[[str, Verdict], bool],
) -> None:
    seed += rank
    torch.manual_seed(seed)
    rng = random.Random(seed)
    teacher = load_teacher(teacher_folder, device)
    texts = [caption(scene, rng) for scene in training_scenes(count, seed, alone=0.06)]
    captions, critic = Captions([[text] for text in texts]), Judge.load(folder / "critic.safetensors")
    empty = encode_sd3(teacher, *(ids.to(device) for ids in captions.empty()))
    done: list[Traces] = []
    for i in range(0, count, 100):
        ids = captions.padded(range(i, min(i + 100, count)))
        text = encode_sd3(teacher, *(x.to(device) for x in ids))
        n = len(text[0])
        ways = _ways(teacher, texts[i : i + n], text, empty, random_levels(n), random_scales(n))
        verdicts = critic(decode(teacher.vae, ways.states[:, -1].to(device)))
        done.append(ways.only([*map(keep, ways.captions, verdicts)]))
        logger.info("%d of %d traced", i + n, count)
    Traces.joined(done).save(folder / f"traces-{rank}.pt")


def random_levels(count: int) -> Tensor:
    """Noise levels `[count, FEW * FINER + 1]`: every other row flux-schnell's, the rest of random shifts."""
    low, high = SHIFTS
    shifts = low + (high - low) * torch.rand(count)
    shifts[::2] = flux.FLUX_SHIFT
    return torch.stack([flux.flux_sigmas(FEW * FINER, float(shift)) for shift in shifts])


def random_scales(count: int) -> Tensor:
    """Guidance scales `[count]`: every other one flux-schnell's."""
    low, high = SCALES
    scales = low + (high - low) * torch.rand(count)
    scales[::2] = TAUGHT
    return scales


def _ways(
    teacher: Networks,
    captions: list[str],
    text: tuple[Tensor, Tensor],
    empty: tuple[Tensor, Tensor],
    sigmas: Tensor,
    scale: Tensor,
) -> Traces:
    """Ways from fresh noise, in float32; `text` is what the captions are encoded to."""
    device, n = teacher.transformer.device, len(scale)
    both = torch.cat([empty[0].expand(n, -1, -1), text[0]])
    pooled = torch.cat([empty[1].expand(n, -1), text[1]])
    x = torch.randn(n, 8, 16, 16)
    states, blanks, tolds = [x], [], []
    for now, then in zip(sigmas.T, sigmas.T[1:], strict=False):
        time = (now * 1000).repeat(2).to(device)
        with torch.autocast(device.type, torch.bfloat16), PlainAttention():
            v = teacher.transformer(x.repeat(2, 1, 1, 1).to(device), both, pooled, time, return_dict=False)[0]
        blank, told = v.float().cpu().chunk(2)
        guided = blank + scale.view(-1, 1, 1, 1) * (told - blank)
        x = x + (then - now).view(-1, 1, 1, 1) * guided
        states.append(x)
        blanks.append(blank)
        tolds.append(told)
    return Traces(
        sigmas, torch.stack(states, 1), torch.stack(blanks, 1), torch.stack(tolds, 1), scale, captions
    )


def train_dev(
    folder: Path,
    teacher: Path,
    *,
    steps: int,
    batch: int,
    learning_rate: float = 2e-3,
    device: str = "cpu",
    workers: int = 1,
    seed: int = 31,
) -> None:
    """Writes `folder/flux-dev.pt`. An interrupted run goes on from its last checkpoint."""
    in_parallel(workers, _train_dev, folder, teacher, steps, batch, learning_rate, device, seed)


def _train_dev(
    rank: int,
    workers: int,
    folder: Path,
    teacher_folder: Path,
    steps: int,
    batch: int,
    learning_rate: float,
    device: str,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    student, teacher = flux.build(guidance=True), load_teacher(teacher_folder, device)
    flux.adopt(student, teacher)
    start = restore(folder / "flux-dev.part.pt", [student])
    student.to(device)
    traces = Traces.load(folder / "traces.pt")
    captions = Captions([[text] for text in traces.captions])
    torch.manual_seed(seed + rank + start)
    rng = np.random.default_rng(seed + rank + start)
    average = Average([student], 0.998)
    optimisers = muon_and_adam([student], learning_rate, MUON)

    def loss_at(step: int) -> Tensor:
        index, clip, t5 = captions.batch(rng, batch // workers, dropped=0.04)
        which = torch.from_numpy(index)
        at = torch.randint(traces.blank.shape[1], (len(which),))
        scale = torch.where(torch.rand(len(which)) < 0.5, traces.scale[which], random_scales(len(which)))
        # Without a caption there is nothing to guide to.
        wanted = traces.velocity(which, at, scale.masked_fill(captions.is_empty(clip), 0.0)).to(device)
        with torch.no_grad():
            text = flux.encode(teacher, clip.to(device), t5.to(device))
        noisy, sigma = traces.states[which, at].float().to(device), traces.sigmas[which, at].to(device)
        guessed = flux.velocity(student, noisy, sigma, scale.to(device), text)
        return (guessed - wanted).square().mean()

    keep = Checkpoint(folder / "flux-dev.pt", average, [student], rank)
    run_steps(steps, learning_rate, optimisers, loss_at, keep, start=start, every=100)
    keep.finish()


def train_schnell(
    folder: Path,
    teacher: Path,
    *,
    steps: int,
    batch: int,
    learning_rate: float = 1e-3,
    device: str = "cpu",
    workers: int = 1,
    seed: int = 41,
) -> None:
    """Writes `folder/flux-schnell.pt`. An interrupted run goes on from its last checkpoint."""
    in_parallel(workers, _train_schnell, folder, teacher, steps, batch, learning_rate, device, seed)


def _train_schnell(
    rank: int,
    workers: int,
    folder: Path,
    teacher_folder: Path,
    steps: int,
    batch: int,
    learning_rate: float,
    device: str,
    seed: int,
) -> None:
    traces = Traces.load(folder / "traces.pt")
    # Those that went through its own noise levels.
    own = torch.nonzero((traces.sigmas - flux.flux_sigmas(FEW * FINER)).abs().amax(1) < 1e-6)[:, 0]
    states = traces.states[own, ::FINER]
    captions = Captions([[traces.captions[i]] for i in own.tolist()])
    student = flux.without_guidance(flux.load(folder / "flux-dev.pt", guidance=True), TAUGHT)
    start = restore(folder / "flux-schnell.part.pt", [student])
    student.to(device)
    teacher = load_teacher(teacher_folder, device)
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
