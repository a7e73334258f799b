"""Distils the flow model to few steps without guidance: reflow on its own classifier-free-guided samples.

The teacher turns noise into latents in many steps with CFG; a critic drops what does not show its caption;
the student learns the straight line between noise and latents, at the noise levels that its few steps visit.
This is what makes the model like the ones that VSF is for: no CFG left.

The critic is a second judge, of another seed and its own renders. The shipped one, which measures, is not
asked here.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from torch import Tensor

from vsf_lib.errors import ModelError
from vsf_lib.scenes.judge import Judge, Verdict
from vsf_lib.scenes.training.common import (
    PlainAttention,
    in_parallel,
    learn,
    logger,
    to_images,
    training_scenes,
)
from vsf_lib.scenes.training.flow import SHIFT, flow_loss, load, random_sigmas
from vsf_lib.scenes.training.networks import STUDENT_LAYERS, TEACHER_LAYERS, Networks, build_transformer
from vsf_lib.scenes.training.text import Captions, encode
from vsf_lib.scenes.world import COLOURS, KINDS, PARTS, PLACES, caption

STEP_COUNTS = (4, 6, 8)
FEWEST = 0.2
"""With a smaller share of samples that show their caption there is nothing to distil."""


def shifted_sigmas(steps: int) -> Tensor:
    """The noise levels `[steps + 1]` that the pipeline's scheduler visits, ending at 0."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=SHIFT)
    scheduler.set_timesteps(steps)
    return scheduler.sigmas


def decode(autoencoder: AutoencoderKL, latents: Tensor) -> np.ndarray:
    """Normalised latents `[n, 8, 16, 16]` as pictures uint8 `[n, 64, 64, 3]`."""
    config = autoencoder.config
    return to_images(autoencoder.decode(latents / config.scaling_factor + config.shift_factor).sample)


Field = Callable[[Tensor, Tensor], Tensor]
"""The velocity at latents and a noise level."""


def path(velocity: Field, x: Tensor, sigmas: Tensor) -> Iterator[Tensor]:
    """The points after each of the uneven steps of `sigmas` `[steps + 1]` along dx / dsigma = velocity.

    Two-step Adams-Bashforth: second order for one velocity a step, so that about half of Euler's steps do.
    """
    before: Tensor | None = None
    for i in range(len(sigmas) - 1):
        now, step = velocity(x, sigmas[i]), sigmas[i + 1] - sigmas[i]
        slope = 0.0 if before is None else (now - before) / (sigmas[i] - sigmas[i - 1])
        x = x + step * (now + 0.5 * step * slope)
        before = now
        yield x


def integrate(velocity: Field, x: Tensor, sigmas: Tensor) -> Tensor:
    """Where `path` ends."""
    *_, end = path(velocity, x, sigmas)
    return end


def guided(
    networks: Networks, text: Tensor, pooled: Tensor, empty: tuple[Tensor, Tensor], scale: float
) -> Field:
    """The teacher's velocity with classifier-free guidance `scale`."""
    n = len(text)
    both = torch.cat([empty[0].expand(n, -1, -1), text])
    both_pooled = torch.cat([empty[1].expand(n, -1), pooled])

    def velocity(x: Tensor, sigma: Tensor) -> Tensor:
        time = torch.full((2 * n,), float(sigma) * 1000, device=x.device)
        with torch.autocast(x.device.type, torch.bfloat16), PlainAttention():
            v = networks.transformer(torch.cat([x, x]), both, both_pooled, time, return_dict=False)[0].float()
        blank, told = v.chunk(2)
        return blank + scale * (told - blank)

    return velocity


@torch.inference_mode()
def teach(
    networks: Networks,
    text: Tensor,
    pooled: Tensor,
    empty: tuple[Tensor, Tensor],
    noise: Tensor,
    *,
    steps: int,
    scale: float,
) -> Tensor:
    """The teacher's latents for `noise`, by `steps` steps with classifier-free guidance `scale`."""
    return integrate(guided(networks, text, pooled, empty, scale), noise, shifted_sigmas(steps))


def shows(text: str, verdict: Verdict) -> bool:
    """Whether a picture is clean and holds all that its caption names; the rest may be missing."""
    words = text.split()
    kinds, colours = ([word for word in words if word in known] for known in (KINDS, COLOURS))
    places = [place for place, phrase in PLACES.items() if text.endswith(phrase)]
    return (
        verdict.clean
        and verdict.parts.issuperset(word for word in words if word in PARTS)
        and all(word == verdict.kind for word in kinds)
        and all(word == verdict.colour for word in colours)
        and all(place == verdict.place for place in places)
    )


def make_pairs(
    folder: Path,
    *,
    count: int,
    steps: int,
    scale: float,
    seed: int = 21,
    device: str = "cpu",
    workers: int = 1,
    keep: Callable[[str, Verdict], bool] = shows,
) -> None:
    """Writes `folder/pairs.pt`: noise, the teacher's latents, captions.

    `count` are drawn, and those kept of whose picture the critic's verdict suits the caption. Raises
    ModelError if hardly any does.
    """
    in_parallel(workers, _make_pairs, folder, count // workers, steps, scale, seed, device, keep)
    parts = [folder / f"pairs-{rank}.pt" for rank in range(workers)]
    data = [torch.load(part, weights_only=True) for part in parts]
    kept = sum(len(part["noise"]) for part in data)
    if kept < FEWEST * count:
        raise ModelError(
            f"the teacher's samples show their caption in {kept} of {count} cases only: train the flow for "
            "more steps"
        )
    merged: dict[str, Any] = {name: torch.cat([part[name] for part in data]) for name in ("noise", "latents")}
    merged["captions"] = [text for part in data for text in part["captions"]]
    torch.save(merged, folder / "pairs.pt")
    for part in parts:
        part.unlink()


def _make_pairs(
    rank: int,
    workers: int,
    folder: Path,
    count: int,
    steps: int,
    scale: float,
    seed: int,
    device: str,
    keep: Callable[[str, Verdict], bool],
) -> None:
    seed += rank
    torch.manual_seed(seed)
    rng = random.Random(seed)
    networks = load(folder, device=device)
    texts = [[caption(scene, rng)] for scene in training_scenes(count, seed, alone=0.06)]
    captions = Captions(texts)
    critic = Judge.load(folder / "critic.safetensors")
    noises, latents, kept = [], [], []
    with torch.inference_mode():
        empty_clip, empty_t5 = captions.empty()
        empty = encode(networks, empty_clip.to(device), empty_t5.to(device))
        for i in range(0, count, 200):
            clip, t5 = captions.padded(range(i, min(i + 200, count)))
            noise = torch.randn(len(clip), 8, 16, 16)
            text, pooled = encode(networks, clip.to(device), t5.to(device))
            taught = teach(networks, text, pooled, empty, noise.to(device), steps=steps, scale=scale)
            told = [texts[i + row][0] for row in range(len(clip))]
            good = torch.tensor([*map(keep, told, critic(decode(networks.vae, taught)))])
            latents.append(taught.half().cpu()[good])
            noises.append(noise.half()[good])
            kept += [[text] for text, is_good in zip(told, good.tolist(), strict=True) if is_good]
            logger.info("%d of %d pairs kept", len(kept), i + len(clip))
    torch.save(
        {"noise": torch.cat(noises), "latents": torch.cat(latents), "captions": kept},
        folder / f"pairs-{rank}.pt",
    )


def student_sigmas(count: int) -> Tensor:
    """Mostly the exact levels of 4 to 8 steps, where the student will be asked, the rest anywhere."""
    grids = torch.cat([shifted_sigmas(steps)[:-1] for steps in STEP_COUNTS])
    exact = grids[torch.randint(len(grids), (count,))]
    return torch.where(torch.rand(count) < 0.75, exact, random_sigmas(count)).clamp(1e-3, 1.0)


def distil(
    folder: Path,
    *,
    steps: int,
    batch: int,
    learning_rate: float = 1e-3,
    device: str = "cpu",
    workers: int = 1,
    seed: int = 9,
) -> None:
    """Writes `folder/student.pt`. The text encoders stay the teacher's: words keep their meaning."""
    in_parallel(workers, _distil, folder, steps, batch, learning_rate, device, seed)


def _distil(
    rank: int,
    workers: int,
    folder: Path,
    steps: int,
    batch: int,
    learning_rate: float,
    device: str,
    seed: int,
) -> None:
    torch.manual_seed(seed + rank)
    rng = np.random.default_rng(seed + rank)
    data = torch.load(folder / "pairs.pt", weights_only=True)
    captions = Captions(data["captions"])
    networks = load(folder, device=device)
    networks.transformer = student = shortened(networks, data, captions).to(device)

    def loss_at(step: int) -> Tensor:
        index, clip, t5 = captions.batch(rng, batch // workers, dropped=0.0)
        chosen = torch.from_numpy(index)
        sigma = student_sigmas(len(chosen))
        return pair_loss(networks, student, data, chosen, clip, t5, sigma)

    learn(
        folder / "student.pt",
        [student],
        loss_at,
        rank=rank,
        steps=steps,
        learning_rate=learning_rate,
        kept=networks.learners(),
    )


def pair_loss(
    networks: Networks,
    transformer: SD3Transformer2DModel,
    data: dict[str, Any],
    chosen: Tensor,
    clip: Tensor,
    t5: Tensor,
    sigma: Tensor,
) -> Tensor:
    """The flow loss on the straight lines from noise to the teacher's latents, of the pairs `chosen`."""
    device = transformer.device
    with torch.no_grad():
        text, pooled = encode(networks, clip.to(device), t5.to(device))
    clean, noise = (data[name][chosen].float().to(device) for name in ("latents", "noise"))
    return flow_loss(transformer, clean, noise, sigma.to(device), text, pooled)


@torch.no_grad()
def shortened(networks: Networks, data: dict[str, Any], captions: Captions) -> SD3Transformer2DModel:
    """The teacher's transformer less the layer whose loss is felt least: distillation makes up for it.

    Only plain joint layers are candidates: those with dual attention and the last one are of another kind.
    """
    teacher = networks.transformer
    first = len(teacher.config.dual_attention_layers)
    chosen = torch.arange(min(192, len(data["noise"])))
    clip, t5 = captions.padded(chosen.tolist())
    sigma = torch.linspace(0.05, 1.0, len(chosen))
    losses = {
        index: float(pair_loss(networks, shorter, data, chosen, clip, t5, sigma))
        for index in range(first, TEACHER_LAYERS - 1)
        for shorter in [without_layer(teacher, index)]
    }
    least = min(losses, key=lambda index: losses[index])
    logger.info("layer %d is left out; loss without each: %s", least, losses)
    return without_layer(teacher, least)


def without_layer(teacher: SD3Transformer2DModel, index: int) -> SD3Transformer2DModel:
    """A copy of `teacher` in which the layers after `index` have moved down by one."""
    state = {}
    for name, value in teacher.state_dict().items():
        prefix, _, rest = name.partition(".")
        if prefix == "transformer_blocks":
            number, _, rest = rest.partition(".")
            if int(number) == index:
                continue
            name = f"{prefix}.{int(number) - (int(number) > index)}.{rest}"
        state[name] = value
    student = build_transformer(STUDENT_LAYERS)
    student.load_state_dict(state)
    return student.to(teacher.device)
