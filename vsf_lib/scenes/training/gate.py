"""The gates between the stages: what the judge says of reconstructions and of unguided few-step samples."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL

from vsf_lib.bench.drawing import Method, draw, score
from vsf_lib.bench.pairs import make_pairs
from vsf_lib.errors import ModelError
from vsf_lib.scenes.judge import Judge
from vsf_lib.scenes.training.common import render_all, to_images, to_pixels
from vsf_lib.scenes.training.judge import accuracy
from vsf_lib.scenes.world import Scene, random_scene
from vsf_lib.settings import Settings

RECONSTRUCTION = 0.99
POSITIVE, QUALITY = 0.9, 0.9
COUNT = 200


def fresh_scenes(count: int, seed: int) -> list[Scene]:
    """Ordinary scenes of held-out combinations."""
    rng = random.Random(seed)
    return [random_scene(rng, held_out=True) for _ in range(count)]


@torch.inference_mode()
def reconstruct(autoencoder: AutoencoderKL, images: np.ndarray) -> np.ndarray:
    """uint8 `[n, 64, 64, 3]` through the autoencoder and back."""
    chunks = [
        to_images(
            autoencoder.decode(autoencoder.encode(to_pixels(images[i : i + 100])).latent_dist.mean).sample
        )
        for i in range(0, len(images), 100)
    ]
    return np.concatenate(chunks)


def check_autoencoder(folder: Path, count: int = 1000) -> dict[str, float]:
    """Accuracy of the judge on reconstructions of fresh renders; raises ModelError below 99 %."""
    judge = Judge.load(folder / "judge.safetensors")
    scenes = fresh_scenes(count, 77)
    autoencoder = AutoencoderKL.from_pretrained(folder / "vae").eval()
    shares = accuracy(judge, scenes, reconstruct(autoencoder, render_all(scenes)))
    if shares["all"] < RECONSTRUCTION:
        raise ModelError(
            f"the autoencoder's reconstructions pass the judge in {shares['all']:.1%} of cases, "
            f"{RECONSTRUCTION:.0%} are needed: train it for more steps"
        )
    return shares


def measure_model(
    pipe: Any, judge: Judge, steps: Sequence[int] = (4, 8), count: int | None = None
) -> dict[str, dict[str, float]]:
    """Unguided scores on held-out prompts at each number of steps."""
    pairs = make_pairs(count or COUNT)
    scores = {}
    for number in steps:
        pictures = draw(pipe, pairs, Method("none", Settings(method="off")), seeds=(3,), steps=number)
        scores[str(number)] = score(judge, pairs, pictures).as_json()
    return scores


def missed(scores: dict[str, dict[str, float]]) -> str:
    """What of `measure_model` is too low, in words; empty if all is well."""
    low = [
        f"at {steps} steps positive {found['positive']:.1%} and quality {found['quality']:.1%}"
        for steps, found in scores.items()
        if found["positive"] < POSITIVE or found["quality"] < QUALITY
    ]
    return f"{'; '.join(low)}, where {POSITIVE:.0%} and {QUALITY:.0%} are wanted" if low else ""
