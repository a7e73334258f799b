"""Trains the small causal autoencoder of Wan's architecture: 4 k + 1 frames to k + 1 latent frames and back.

What a latent frame is, is fixed beforehand: the scenes model's latents of a keyframe, so that transformers
can be trained on them before this is. The decoder learns to draw keyframes and what lies between two of
them, the encoder to find such latents from frames.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, AutoencoderKLWan
from torch import Tensor

from vsf_lib.errors import ModelError
from vsf_lib.scenes.motion import FRAMES, KEYFRAMES, STRIDE, Moving, random_moving
from vsf_lib.scenes.training import wan
from vsf_lib.scenes.training.autoencoder import NOISE
from vsf_lib.scenes.training.common import (
    Average,
    Checkpoint,
    in_parallel,
    render_all,
    restore,
    resume,
    run_steps,
    to_pixels,
)
from vsf_lib.scenes.training.traces import load_teacher

KEYS = 3
"""Latent frames of a clip at first: two gaps between keyframes, and so 9 frames."""
_BEGUN = "wan-vae-begun.pt"


def build() -> AutoencoderKLWan:
    """The untrained autoencoder: 0.56 million weights."""
    vae = AutoencoderKLWan(
        base_dim=32,
        z_dim=wan.CHANNELS,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=0,
        temperal_downsample=[False, True, True],
        latents_mean=[0.0] * wan.CHANNELS,
        latents_std=[1.0] * wan.CHANNELS,
    )
    with torch.no_grad():  # it says that it is sure
        vae.quant_conv.weight[wan.CHANNELS :].zero_()
        vae.quant_conv.bias[wan.CHANNELS :].fill_(-8.0)
    return vae


def moving_scenes(count: int, seed: int, *, alone: float = 0.1) -> list[Moving]:
    """`count` moving scenes with no held-out combination among them."""
    rng = random.Random(seed)
    return [random_moving(rng, held_out=False, alone=alone) for _ in range(count)]


@torch.inference_mode()
def encode_frames(vae: AutoencoderKL, frames: np.ndarray) -> Tensor:
    """Wan's latents `[n, 32, 8, 8]` of keyframes uint8 `[n, 64, 64, 3]`, by the scenes model's."""
    found = []
    for i in range(0, len(frames), 200):
        with torch.autocast("cpu", torch.bfloat16):
            mean = vae.encode(to_pixels(frames[i : i + 200])).latent_dist.mean.float()
        found.append(wan.fold((mean - vae.config.shift_factor) * vae.config.scaling_factor))
    return torch.cat(found)


def decode(vae: AutoencoderKLWan, latents: Tensor) -> Tensor:
    """Frames `[B, 3, 4 T - 3, 64, 64]` of latents `[B, 32, T, 8, 8]`; not clamped, which has no gradient."""
    vae.clear_cache()
    z, frames = vae.post_quant_conv(latents), []
    for i in range(z.shape[2]):
        vae._conv_idx = [0]
        frames.append(
            vae.decoder(
                z[:, :, i : i + 1], feat_cache=vae._feat_map, feat_idx=vae._conv_idx, first_chunk=i == 0
            )
        )
    vae.clear_cache()
    return torch.cat(frames, dim=2)


def train(
    folder: Path,
    teacher: Path,
    *,
    stills: int,
    steps: int,
    batch: int,
    count: int,
    learning_rate: float = 2e-3,
    workers: int = 1,
    seed: int = 81,
) -> None:
    """Writes `folder/wan-vae-begun.pt`: `stills` steps on single frames, then on clips up to `steps`.

    `batch` is that of the clips; of the single frames there are four times as many.
    """
    prepare(folder, teacher, count, seed)
    in_parallel(workers, _train, folder, False, stills, steps, batch, learning_rate, seed)


def lengthen(
    folder: Path,
    *,
    steps: int,
    batch: int,
    learning_rate: float = 1.6e-3,
    workers: int = 1,
    seed: int = 83,
) -> None:
    """Writes `folder/wan-vae.pt`, from what `train` left, on whole videos.

    A frame hears of all before it through what its layers keep, and beyond the length that it was trained on
    the drawing would fall apart.
    """
    in_parallel(workers, _train, folder, True, 0, steps, batch, learning_rate, seed)


def prepare(folder: Path, teacher: Path, count: int, seed: int) -> None:
    """Writes `folder/wan-clips.pt`, once: frames uint8 `[count, 17, 64, 64, 3]` and keyframes' latents."""
    if (folder / "wan-clips.pt").exists():
        return
    scenes = moving_scenes(count, seed)
    frames = render_all([moving.at(frame) for moving in scenes for frame in range(FRAMES)])
    frames = frames.reshape(count, FRAMES, *frames.shape[1:])
    keys = frames[:, ::STRIDE].reshape(-1, *frames.shape[2:])
    latents = encode_frames(load_teacher(teacher).vae, keys).unflatten(0, (count, KEYFRAMES))
    torch.save({"frames": torch.from_numpy(frames), "latents": latents.half()}, folder / "wan-clips.pt")


def _train(
    rank: int,
    workers: int,
    folder: Path,
    second: bool,
    stills: int,
    steps: int,
    batch: int,
    learning_rate: float,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    data = torch.load(folder / "wan-clips.pt", weights_only=True)
    vae = build()
    file = folder / ("wan-vae.pt" if second else _BEGUN)
    if second and not restore(folder / _BEGUN, [vae]):
        raise ModelError(f"there is no {_BEGUN} in {folder}: run the stage that makes it first")
    start, _ = resume(file, [vae], seed, rank)
    keep = Checkpoint(file, Average([vae], 0.998), [vae], rank)
    optimiser = torch.optim.AdamW(vae.parameters(), lr=learning_rate, betas=(0.9, 0.99), weight_decay=1e-4)

    def loss_at(step: int) -> Tensor:
        keys, size = (1, 4 * batch) if step < stills else (KEYFRAMES if second else KEYS, batch)
        clips = torch.randint(len(data["frames"]), (size // workers,))
        first = int(torch.randint(KEYFRAMES - keys + 1, ()))
        pixels = data["frames"][clips, STRIDE * first : STRIDE * (first + keys - 1) + 1]
        frames = pixels.permute(0, 4, 1, 2, 3).float().div(127.5).sub(1)
        latents = data["latents"][clips, first : first + keys].transpose(1, 2).float()
        with torch.autocast("cpu", torch.bfloat16):
            decoded = decode(vae, latents + NOISE * torch.randn_like(latents)).float()
            found = vae.encode(frames).latent_dist.mean.float()
        error = decoded - frames
        return error.abs().mean() + error.square().mean() + 0.1 * (found - latents).square().mean()

    run_steps(steps, learning_rate, [optimiser], loss_at, keep, start=start, every=50)
    keep.finish()
