"""Trains the small AutoencoderKL: 64x64 pixels to 16x16 latents of 8 channels and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from vsf_lib.scenes.training.common import Average, Scores, render_all, run_steps, to_pixels, training_scenes

NOISE = 0.12
"""Standard deviation of the noise on latents in training: the decoder must forgive the sampler."""


def build() -> AutoencoderKL:
    """The untrained autoencoder."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(32, 32, 64),
        layers_per_block=1,
        latent_channels=8,
        norm_num_groups=8,
        sample_size=64,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
        shift_factor=0.0,
        scaling_factor=1.0,
    )


def train(folder: Path, *, steps: int, batch: int, device: str, count: int = 16000, seed: int = 1) -> None:
    """Writes `folder/vae`. Latents are kept near unit variance by a small KL term and measured in the end."""
    torch.manual_seed(seed)
    images = render_all(training_scenes(count, seed))
    model = build().to(device, memory_format=torch.channels_last)
    average = Average([model], 0.998)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=1e-4)
    rng = np.random.default_rng(seed)

    def loss_at(step: int) -> Tensor:
        pixels = to_pixels(images[rng.integers(len(images), size=batch)], device)
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device, torch.bfloat16):
            latent = model.encode(pixels).latent_dist
            sample = latent.mean.float() + NOISE * torch.randn_like(latent.mean.float())
            decoded = model.decode(sample).sample.float()
        error = decoded - pixels
        # L1 for crisp edges, L2 against rare large errors, and a pull of the means to unit variance.
        prior = latent.mean.float().square().mean() - 1
        return (
            error.abs().mean()
            + error.square().mean()
            + 0.01 * F.relu(prior)
            + 1e-5 * latent.mean.float().square().mean()
        )

    run_steps(steps, 2e-3, [optimiser], loss_at, average.update)
    average.swap()
    model.eval()
    with torch.no_grad():
        means = torch.cat(
            [
                model.encode(to_pixels(images[i : i + 100], device)).latent_dist.mean
                for i in range(0, min(2000, count), 100)
            ]
        )
    model.register_to_config(shift_factor=float(means.mean()), scaling_factor=float(1 / means.std()))
    model.save_pretrained(folder / "vae")
    Scores(folder / "scores.json").add(
        "autoencoder", latent_mean=float(means.mean()), latent_std=float(means.std())
    )
