"""Trains the transformer and its text encoders from scratch: rectified flow between latents and noise."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel
from torch import Tensor, nn

from vsf_lib.errors import ModelError
from vsf_lib.scenes.training.common import (
    PlainAttention,
    in_parallel,
    learn,
    render_all,
    restore,
    resume,
    to_pixels,
    training_scenes,
)
from vsf_lib.scenes.training.networks import TEACHER_LAYERS, Networks
from vsf_lib.scenes.training.text import Captions, encode
from vsf_lib.scenes.world import caption

CAPTIONS_EACH = 6
SHIFT = 2.0
"""The scheduler's timestep shift: few steps spend more of themselves where the picture is decided."""


def prepare(folder: Path, count: int, seed: int, *, device: str = "cpu") -> None:
    """Writes `folder/latents.pt`: normalised latents float16 `[count, 8, 16, 16]` and their captions."""
    scenes = training_scenes(count, seed)
    images = render_all(scenes)
    rng = random.Random(seed)
    vae = AutoencoderKL.from_pretrained(folder / "vae").eval().to(device)
    latents = []
    with torch.inference_mode():
        for i in range(0, count, 200):
            with torch.autocast(device, torch.bfloat16):
                mean = vae.encode(to_pixels(images[i : i + 200], device)).latent_dist.mean
            latents.append(
                ((mean.float() - vae.config.shift_factor) * vae.config.scaling_factor).half().cpu()
            )
    captions = [[caption(scene, rng) for _ in range(CAPTIONS_EACH)] for scene in scenes]
    torch.save({"latents": torch.cat(latents), "captions": captions}, folder / "latents.pt")


def initialise(transformer: SD3Transformer2DModel) -> None:
    """Blocks start as the identity (zero modulation), the output as zero: this trains faster and steadier."""
    for name, module in transformer.named_modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
            if name.endswith(("norm1.linear", "norm1_context.linear", "norm_out.linear", "proj_out")):
                nn.init.zeros_(module.weight)


def random_sigmas(count: int, generator: torch.Generator | None = None, shift: float = SHIFT) -> Tensor:
    """Noise levels in 0..1: logit-normal for the most part, shifted as the sampler's are, some uniform."""
    normal = torch.sigmoid(torch.randn(count, generator=generator))
    uniform = torch.rand(count, generator=generator)
    sigma = torch.where(torch.rand(count, generator=generator) < 0.7, normal, uniform)
    return shift * sigma / (1 + (shift - 1) * sigma)


def flow_loss(
    transformer: nn.Module, clean: Tensor, noise: Tensor, sigma: Tensor, text: Tensor, pooled: Tensor
) -> Tensor:
    """|v(x_sigma) - (noise - clean)|^2 with x_sigma = (1 - sigma) clean + sigma noise."""
    s = sigma.view(-1, 1, 1, 1)
    mixed = (1 - s) * clean + s * noise
    with torch.autocast(clean.device.type, torch.bfloat16), PlainAttention():
        velocity = transformer(mixed, text, pooled, sigma * 1000, return_dict=False)[0]
    return (velocity.float() - (noise - clean)).square().mean()


def train(
    folder: Path,
    *,
    steps: int,
    batch: int,
    learning_rate: float = 1.5e-3,
    device: str = "cpu",
    workers: int = 1,
    seed: int = 5,
) -> None:
    """Writes `folder/flow.pt`: the averaged weights of everything that learned.

    `batch` is that of all workers together. A run that was interrupted goes on from its last checkpoint.
    """
    in_parallel(workers, _train, folder, steps, batch, learning_rate, device, seed)


def _train(
    rank: int,
    workers: int,
    folder: Path,
    steps: int,
    batch: int,
    learning_rate: float,
    device: str,
    seed: int,
) -> None:
    data = torch.load(folder / "latents.pt", weights_only=True)
    latents, captions = data["latents"].to(device), Captions(data["captions"])
    networks = Networks.build(AutoencoderKL.from_pretrained(folder / "vae"), seed, TEACHER_LAYERS)
    initialise(networks.transformer)
    learners = networks.learners()
    start, rng = resume(folder / "flow.pt", learners, seed, rank)
    for module in learners:
        module.to(device)

    def loss_at(step: int) -> Tensor:
        index, clip, t5 = captions.batch(rng, batch // workers, dropped=0.08)
        clean = latents[torch.from_numpy(index).to(device)].float()
        text, pooled = encode(networks, clip.to(device), t5.to(device))
        sigma = random_sigmas(len(clean)).to(device)
        return flow_loss(networks.transformer, clean, torch.randn_like(clean), sigma, text, pooled)

    learn(
        folder / "flow.pt",
        learners,
        loss_at,
        rank=rank,
        steps=steps,
        learning_rate=learning_rate,
        start=start,
        decay=0.9985,
    )


def load(folder: Path, name: str = "flow.pt", device: str = "cpu", layers: int = TEACHER_LAYERS) -> Networks:
    """The networks as a training stage left them; raises ModelError if it has not run."""
    if not (folder / name).exists():
        raise ModelError(f"there is no {name} in {folder}: run the stage that makes it first")
    networks = Networks.build(AutoencoderKL.from_pretrained(folder / "vae"), 0, layers)
    restore(folder / name, networks.learners())
    for module in networks.learners():
        module.eval().to(device)
    return networks
