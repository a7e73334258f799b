"""Distils the flow model to few steps without guidance: reflow on its own classifier-free-guided samples.

The teacher turns noise into latents in many steps with CFG; the student learns the straight line between the two, at
the noise levels that its few steps visit. This is what makes the model like the ones that VSF is for: no CFG left.
"""

from __future__ import annotations

import copy
import random
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vsf_lib.scenes.training.common import Average, run_steps, training_scenes
from vsf_lib.scenes.training.flow import SHIFT, flow_loss, load, random_sigmas
from vsf_lib.scenes.training.text import Captions, encode
from vsf_lib.scenes.training.networks import Networks
from vsf_lib.scenes.world import caption

STEP_COUNTS = (4, 6, 8)


def shifted_sigmas(steps: int) -> Tensor:
    """The noise levels `[steps + 1]` that FlowMatchEulerDiscreteScheduler visits, ending at 0."""
    sigma = torch.linspace(1.0, 1.0 / 1000, steps)
    return torch.cat([SHIFT * sigma / (1 + (SHIFT - 1) * sigma), torch.zeros(1)])


@torch.inference_mode()
def teach(networks: Networks, text: Tensor, pooled: Tensor, empty: tuple[Tensor, Tensor], noise: Tensor, *, steps: int, scale: float) -> Tensor:
    """The teacher's latents for `noise`, by `steps` Euler steps with guidance `scale` below the highest noise levels."""
    n, sigmas, x = len(noise), shifted_sigmas(steps), noise
    both = torch.cat([empty[0].expand(n, -1, -1), text])
    both_pooled = torch.cat([empty[1].expand(n, -1), pooled])
    for i in range(steps):
        time = torch.full((2 * n,), float(sigmas[i]) * 1000)
        with torch.autocast("cpu", torch.bfloat16):
            v = networks.transformer(torch.cat([x, x]), both, both_pooled, time, return_dict=False)[0].float()
        blank, told = v.chunk(2)
        x = x + (sigmas[i + 1] - sigmas[i]) * (blank + scale * (told - blank))
    return x


def make_pairs(folder: Path, *, count: int, steps: int, scale: float, seed: int, batch: int = 200) -> None:
    """Writes `folder/pairs.pt`: noise, the teacher's latents, and captions."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    networks = load(folder)
    texts = [[caption(scene, rng)] for scene in training_scenes(count, seed, alone=0.06)]
    captions = Captions(texts)
    empty_clip, empty_t5 = captions.empty()
    with torch.inference_mode():
        empty = encode(networks, empty_clip, empty_t5)
    noises, latents = [], []
    for i in range(0, count, batch):
        clip, t5 = captions.padded(range(i, min(i + batch, count)))
        noise = torch.randn(len(clip), 8, 16, 16)
        with torch.inference_mode():
            text, pooled = encode(networks, clip, t5)
        latents.append(teach(networks, text, pooled, empty, noise, steps=steps, scale=scale).half())
        noises.append(noise.half())
    torch.save({"noise": torch.cat(noises), "latents": torch.cat(latents), "captions": texts}, folder / "pairs.pt")


def student_sigmas(count: int) -> Tensor:
    """Mostly the exact levels of 4 to 8 steps, where the student will be asked, the rest anywhere."""
    grids = torch.cat([shifted_sigmas(steps)[:-1] for steps in STEP_COUNTS])
    exact = grids[torch.randint(len(grids), (count,))]
    return torch.where(torch.rand(count) < 0.75, exact, random_sigmas(count)).clamp(1e-3, 1.0)


def distil(folder: Path, *, steps: int, batch: int, learning_rate: float = 4e-4, seed: int = 9) -> None:
    """Writes `folder/student.pt`. The text encoders stay the teacher's: words keep their meaning."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    data = torch.load(folder / "pairs.pt")
    captions = Captions(data["captions"])
    networks = load(folder)
    student = copy.deepcopy(networks.transformer)
    average = Average([student], 0.998)
    optimiser = torch.optim.AdamW(student.parameters(), lr=learning_rate, betas=(0.9, 0.97), weight_decay=0.0)

    def loss_at(step: int) -> Tensor:
        index, clip, t5 = captions.batch(rng, batch, dropped=0.0)
        chosen = torch.from_numpy(index)
        with torch.no_grad():
            text, pooled = encode(networks, clip, t5)
        return flow_loss(
            student,
            data["latents"][chosen].float(),
            data["noise"][chosen].float(),
            student_sigmas(len(chosen)),
            text,
            pooled,
        )

    run_steps(steps, learning_rate, optimiser, loss_at, average.update, every=100)
    average.swap()
    networks.transformer.load_state_dict(student.state_dict())
    torch.save([m.state_dict() for m in networks.learners()], folder / "student.pt")
