"""Ways from noise to a drawing, from which the small Flux models learn: how they are taken and kept.

Owns the traces, who leads them and what the teacher says on them. How a student learns from them stands in
flux_distil.py.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import FluxTransformer2DModel
from torch import Tensor

from vsf_lib.errors import ModelError
from vsf_lib.scenes.judge import Judge, Verdict
from vsf_lib.scenes.loading import load_pipeline
from vsf_lib.scenes.training import flux
from vsf_lib.scenes.training.common import PlainAttention, in_parallel, logger, training_scenes
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
    """Latents at these `[n, S + 1, 8, 16, 16]`."""
    blank: Tensor
    """The teacher's velocities there without the caption `[n, S, 8, 16, 16]`."""
    told: Tensor
    """The same with it."""
    scale: Tensor
    """The guidance `[n]` by which the way was taken."""
    captions: list[str]

    @classmethod
    def load(cls, file: Path) -> Traces:
        """What `save` wrote; raises ModelError if that has not run."""
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

    def save(self, file: Path) -> None:
        """Writes all of it."""
        torch.save(vars(self), file)

    def only(self, good: Sequence[bool]) -> Traces:
        """Those that are good."""
        chosen = torch.tensor(good)
        return Traces(
            self.sigmas[chosen],
            self.states[chosen],
            self.blank[chosen],
            self.told[chosen],
            self.scale[chosen],
            [text for text, is_good in zip(self.captions, good, strict=True) if is_good],
        )

    def halved(self) -> Traces:
        """The same in half precision, but for noise levels and scales."""
        states, blank, told = self.states.half(), self.blank.half(), self.told.half()
        return Traces(self.sigmas, states, blank, told, self.scale, self.captions)

    def coarse(self) -> Traces:
        """Those through flux-schnell's noise levels, in its few steps, each at its mean velocity."""
        levels = flux.flux_sigmas(FEW * FINER)
        own = self.only([bool(row) for row in torch.isclose(self.sigmas, levels).all(1)])
        sigmas, states = own.sigmas[:, ::FINER], own.states[:, ::FINER]
        spans = sigmas.diff(dim=1)[..., None, None, None]
        mean = (states.float().diff(dim=1) / spans).to(states)
        return Traces(sigmas, states, mean, mean, own.scale, own.captions)

    def velocity(self, which: Tensor, step: Tensor, scale: Tensor) -> Tensor:
        """Guided at `scale` `[b]`, from the states after `step` `[b]` steps of the traces `which` `[b]`."""
        blank, told = (x[which, step].float() for x in (self.blank, self.told))
        return blank + scale.view(-1, 1, 1, 1) * (told - blank)


Field = Callable[[Tensor, Tensor], Tensor]
"""The velocity of latents at their noise levels."""


def trace(
    folder: Path,
    teacher: Path,
    *,
    count: int,
    student: str | None = None,
    device: str = "cpu",
    workers: int = 1,
    seed: int = 21,
    keep: Callable[[str, Verdict], bool] = shows,
) -> None:
    """Writes `folder/traces.pt`: of `count` drawings those that the critic finds to show their caption.

    Half of them go through flux-schnell's own noise levels with its own guidance, the others anywhere.
    Raises ModelError if hardly any is left.

    With the name of a `student`, as its first stage left it, to `folder/traces-of-<student>.pt`: its own
    ways, wherever they end.
    """
    workers = min(workers, count)
    in_parallel(workers, _trace, folder, teacher, count // workers, student, device, seed, keep)
    parts = [_part(folder, student, rank) for rank in range(workers)]
    merged = Traces.joined([Traces.load(part) for part in parts])
    if len(merged.scale) < FEWEST * count:
        raise ModelError(
            f"the scenes model's drawings show their caption in {len(merged.scale)} of {count} cases only: "
            "train that model first"
        )
    merged.save(traces_file(folder, student))
    for part in parts:
        part.unlink()


def traces_file(folder: Path, student: str | None) -> Path:
    return folder / ("traces.pt" if student is None else f"traces-of-{student}.pt")


def _part(folder: Path, student: str | None, rank: int) -> Path:
    whole = traces_file(folder, student)
    return whole.with_stem(f"{whole.stem}-{rank}")


@torch.inference_mode()
def _trace(
    rank: int,
    workers: int,
    folder: Path,
    teacher_folder: Path,
    count: int,
    student: str | None,
    device: str,
    seed: int,
    keep: Callable[[str, Verdict], bool],
) -> None:
    seed += rank
    torch.manual_seed(seed)
    rng = random.Random(seed)
    teacher = load_teacher(teacher_folder, device)
    follower = None if student is None else begun(folder, student, device)
    schnell = follower is not None and not follower.config.guidance_embeds
    texts = [caption(scene, rng) for scene in training_scenes(count, seed, alone=0.06)]
    captions, critic = Captions([[text] for text in texts]), Judge.load(folder / "critic.safetensors")
    empty = encode_sd3(teacher, *(ids.to(device) for ids in captions.empty()))
    done: list[Traces] = []
    for i in range(0, count, 100):
        ids = [x.to(device) for x in captions.padded(range(i, min(i + 100, count)))]
        n = len(ids[0])
        sigmas, scale = random_levels(n), random_scales(n)
        if schnell:
            sigmas, scale = flux.flux_sigmas(FEW * FINER).expand(n, -1), torch.full((n,), TAUGHT)
        ways = walk(
            both_velocities(teacher, encode_sd3(teacher, *ids), empty),
            sigmas,
            scale,
            texts[i : i + n],
            lead=None if follower is None else field_of(follower, flux.encode(teacher, *ids), scale),
            finer=FINER if schnell else 1,
        )
        if student is None:
            verdicts = critic(decode(teacher.vae, ways.states[:, -1].to(device)))
            ways = ways.only([*map(keep, ways.captions, verdicts)])
        done.append(ways.halved())
        logger.info("%d of %d traced", i + n, count)
    Traces.joined(done).save(_part(folder, student, rank))


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


def both_velocities(
    teacher: Networks, text: tuple[Tensor, Tensor], empty: tuple[Tensor, Tensor]
) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The teacher's velocities without and with the text, of latents at their noise levels `[n]`."""
    n, device = len(text[0]), teacher.transformer.device
    both = torch.cat([empty[0].expand(n, -1, -1), text[0]])
    pooled = torch.cat([empty[1].expand(n, -1), text[1]])

    def velocities(x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        twice, time = x.repeat(2, 1, 1, 1).to(device), (sigma * 1000).repeat(2).to(device)
        with torch.autocast(device.type, torch.bfloat16), PlainAttention():
            v = teacher.transformer(twice, both, pooled, time, return_dict=False)[0]
        blank, told = v.float().cpu().chunk(2)
        return blank, told

    return velocities


def field_of(student: FluxTransformer2DModel, text: tuple[Tensor, Tensor], scale: Tensor) -> Field:
    device = student.device
    guidance = scale.to(device) if student.config.guidance_embeds else None
    return lambda x, sigma: flux.velocity(student, x.to(device), sigma.to(device), guidance, text).cpu()


def walk(
    velocities: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    sigmas: Tensor,
    scale: Tensor,
    captions: list[str],
    *,
    lead: Field | None = None,
    finer: int = 1,
) -> Traces:
    """Ways from fresh noise through every `finer`-th of the noise levels `[n, finer S + 1]`, in float32.

    They are led by `lead`, or go where the teacher goes with guidance. With `finer` above 1 what is noted is
    the mean of the guided velocities on the teacher's way through the levels between.
    """

    def guided(x: Tensor, at: int) -> Tensor:
        blank, told = velocities(x, sigmas[:, at])
        return blank + scale.view(-1, 1, 1, 1) * (told - blank)

    def span(start: int, stop: int) -> Tensor:
        return (sigmas[:, stop] - sigmas[:, start]).view(-1, 1, 1, 1)

    x = torch.randn(len(scale), 8, 16, 16)
    states, blanks, tolds = [x], [], []
    for at in range(0, sigmas.shape[1] - 1, finer):
        if finer == 1:
            blank, told = velocities(x, sigmas[:, at])
        else:
            y = x
            for between in range(at, at + finer):
                y = y + span(between, between + 1) * guided(y, between)
            blank = told = (y - x) / span(at, at + finer)
        go = blank + scale.view(-1, 1, 1, 1) * (told - blank) if lead is None else lead(x, sigmas[:, at])
        x = x + span(at, at + finer) * go
        states.append(x)
        blanks.append(blank)
        tolds.append(told)
    points, without, by = (torch.stack(kept, dim=1) for kept in (states, blanks, tolds))
    return Traces(sigmas[:, ::finer], points, without, by, scale, captions)


def begun(folder: Path, model: str, device: str = "cpu") -> FluxTransformer2DModel:
    """A model as its first stage left it."""
    return flux.load(folder / f"{model}-begun.pt", guidance=model == "flux-dev", device=device)
