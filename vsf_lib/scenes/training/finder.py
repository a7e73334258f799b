"""Trains the part finder on renders: a part's pixels are those that change when it alone is left out.

The blemishes are the judge's harmless ones, and part of the pictures went through the autoencoder: what the
models draw looks like that.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from vsf_lib.scenes.draw import render
from vsf_lib.scenes.finder import CHANNELS, OBJECT, Finder, FinderNet
from vsf_lib.scenes.training.common import Scores, run_steps, to_images, to_pixels
from vsf_lib.scenes.training.gate import fresh_scenes, reconstruct
from vsf_lib.scenes.training.judge import blemish, judge_scenes
from vsf_lib.scenes.world import PARTS, Scene

CHANGED = 24
"""Steps of 255 by which a colour must differ: less is the edge's anti-aliasing."""

INVENTED = 64
"""Pixels of a part that is nowhere which cost half a point, about as many as a small part has. A network that
is charged for the first few learns to show no part at all."""


def truth(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """The render uint8 `[64, 64, 3]`, and the pixels of each channel, bool `[channels, 64, 64]`."""
    full = render(scene)
    masks = np.zeros((len(CHANNELS), *full.shape[:2]), bool)
    for part in scene.parts:
        masks[CHANNELS.index(part)] = _changes(full, render(scene.without(part)))
    bare = replace(scene, kind=None, parts=frozenset())
    # A window may have the colour of the sky behind it.
    masks[CHANNELS.index(OBJECT)] = _changes(full, render(bare)) | masks.any(0)
    return full, masks


def _changes(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    difference: np.ndarray = np.abs(one.astype(int) - other.astype(int)).max(2)
    return difference > CHANGED


class Material:
    """Everything that is rendered once, before training."""

    def __init__(self, count: int, seed: int, autoencoder: AutoencoderKL) -> None:
        scenes = judge_scenes(count, seed)
        self._full = np.empty((count, 64, 64, 3), np.uint8)
        # Eight pixels a byte: as bool a training set would be half a gigabyte.
        self._masks = np.empty((count, len(CHANNELS), 64, 8), np.uint8)
        for index, scene in enumerate(scenes):
            self._full[index], masks = truth(scene)
            self._masks[index] = np.packbits(masks, axis=-1)
        self._decoded = decodings(autoencoder, self._full[: max(1, count // 4)])

    def batch(self, size: int) -> tuple[Tensor, Tensor]:
        """Pixels `[size, 3, 64, 64]`, a third decoded, all blemished; masks `[size, channels, 64, 64]`."""
        index = np.random.randint(len(self._full), size=size)
        near = np.random.randint(len(self._decoded), size=size)
        decoded = np.random.random(size) < 1 / 3
        images = np.where(decoded[:, None, None, None], self._decoded[near], self._full[index])
        masks = np.unpackbits(self._masks[np.where(decoded, near, index)], axis=-1)
        return blemish(to_pixels(images)).clamp(-1, 1), torch.from_numpy(masks).float()


@torch.no_grad()
def decodings(autoencoder: AutoencoderKL, images: np.ndarray) -> np.ndarray:
    """uint8 `[n, 64, 64, 3]` through the autoencoder, the latents as slightly off as the judge's."""
    chunks = []
    scale = float(autoencoder.config.scaling_factor)
    for i in range(0, len(images), 100):
        latent = autoencoder.encode(to_pixels(images[i : i + 100])).latent_dist.mean
        slight = torch.randn_like(latent) * torch.rand(len(latent), 1, 1, 1) * 0.15
        chunks.append(to_images(autoencoder.decode(latent + slight / scale).sample))
    return np.concatenate(chunks)


def loss_of(logits: Tensor, masks: Tensor) -> Tensor:
    """Cross-entropy of all pixels, what overlap (Dice) the channels lack, and what empty ones show.

    The first alone would be content with maps that miss small parts, a beak being a hundredth of the picture,
    and with others that show a little of a part that is nowhere.
    """
    entropy = F.binary_cross_entropy_with_logits(logits, masks)
    sure = logits.sigmoid()
    shown, area = sure.sum((2, 3)), masks.sum((2, 3))
    there = area > 0
    lacking = 1 - (2 * (sure * masks).sum((2, 3)) + 1) / (shown + area + 1)
    invented = shown / (shown + INVENTED)
    terms = [part.mean() for part in (lacking[there], invented[~there]) if len(part)]
    return 10 * entropy + torch.stack(terms).sum()


def measure(finder: Finder, images: np.ndarray, masks: np.ndarray) -> dict[str, object]:
    """What the finder is worth on pictures uint8 `[n, 64, 64, 3]` with masks bool `[n, channels, 64, 64]`.

    `iou` per channel: pixels that both have over pixels that either has, of all pictures together; `peak`:
    how often the surest pixel lies on the part, where there is one; `missed` and `invented`: how often a
    part that is there is not found, and one that is not is.
    """
    sure, found = finder(images), finder.masks(images)
    iou = {}
    for channel, name in enumerate(CHANNELS):
        either = (found[:, channel] | masks[:, channel]).sum()
        if either:
            iou[name] = round(float((found[:, channel] & masks[:, channel]).sum() / either), 4)
    surest = sure.reshape(*sure.shape[:2], -1).argmax(-1)
    inside = np.take_along_axis(masks.reshape(*masks.shape[:2], -1), surest[..., None], -1)[..., 0]
    parts = slice(0, len(PARTS))
    there, told = (np.asarray(which[:, parts].any((2, 3))) for which in (masks, found))
    return {
        "iou": iou,
        "peak": _share(inside[:, parts][there]),
        "missed": _share(~told[there]),
        "invented": _share(told[~there]),
    }


def _share(cases: np.ndarray) -> float:
    return round(float(cases.mean()), 4) if cases.size else 0.0


def train(
    folder: Path,
    *,
    steps: int,
    batch: int,
    count: int,
    checked: int = 1000,
    device: str = "cpu",
    seed: int = 21,
) -> None:
    """Writes `folder/finder.safetensors`, and to the scores what it is worth on `checked` fresh renders."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    autoencoder = AutoencoderKL.from_pretrained(folder / "vae").eval()
    material = Material(count, seed, autoencoder)
    net = FinderNet().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=1e-3)

    def loss_at(step: int) -> Tensor:
        pixels, masks = material.batch(batch)
        pixels = pixels.to(device).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device, torch.bfloat16):
            logits = net(pixels)
        return loss_of(logits.float(), masks.to(device))

    run_steps(steps, 3e-3, [optimiser], loss_at, clip=5.0)
    Finder(net.cpu()).save(folder / "finder.safetensors")
    finder = Finder.load(folder / "finder.safetensors")
    rows = [truth(scene) for scene in fresh_scenes(checked, seed + 1)]
    images, masks = np.stack([full for full, _ in rows]), np.stack([mask for _, mask in rows])
    Scores(folder / "scores.json").add(
        "finder",
        plain=measure(finder, images, masks),
        decoded=measure(finder, reconstruct(autoencoder, images), masks),
    )
