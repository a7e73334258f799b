"""Trains the judge on renders: whole ones, partly removed parts, harmless blemishes, and spoilt drawings.

What counts as spoilt is decided here, before any picture is generated: ghosts of two drawings, bent shapes,
strangers' patches, heavy blur or noise, shapeless blobs, and decodings of badly disturbed latents.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from vsf_lib.scenes.draw import RGB, render
from vsf_lib.scenes.judge import KIND_LABELS, NOTHING, PLACE_LABELS, Judge, JudgeNet
from vsf_lib.scenes.training.common import Scores, render_all, run_steps, to_images, to_pixels
from vsf_lib.scenes.world import COLOURS, KINDS, PARTS, Scene, random_scene


@dataclass
class Labels:
    """Targets of a batch; NaN or -1 where a label does not apply."""

    kind: Tensor
    colour: Tensor
    place: Tensor
    parts: Tensor
    clean: Tensor


def labels_of(scenes: list[Scene]) -> Labels:
    """The truth about clean renders of `scenes`."""
    return Labels(
        kind=torch.tensor([KIND_LABELS.index(s.kind or NOTHING) for s in scenes]),
        colour=torch.tensor([COLOURS.index(s.colour) if s.kind else -1 for s in scenes]),
        place=torch.tensor([PLACE_LABELS.index(s.place) for s in scenes]),
        parts=torch.tensor([[float(p in s.parts) for p in PARTS] for s in scenes]),
        clean=torch.ones(len(scenes)),
    )


def judge_scenes(count: int, seed: int) -> list[Scene]:
    """Scenes in which parts are missing as often as not, now and then with no object at all."""
    rng = random.Random(seed)
    scenes = []
    for _ in range(count):
        scene = random_scene(rng, held_out=None)
        scene = replace(scene, parts=frozenset(p for p in KINDS[scene.owner] if rng.random() < 0.6))
        if rng.random() < 0.04:
            scene = replace(scene, kind=None)
        scenes.append(scene)
    return scenes


def blob_picture(seed: int) -> np.ndarray:
    """A background with shapeless colour where an object should be."""
    rng = random.Random(seed)
    scene = replace(random_scene(rng, held_out=None), kind=None, parts=frozenset())
    image = Image.fromarray(render(scene))
    draw = ImageDraw.Draw(image)
    colour = RGB[scene.colour]
    for _ in range(rng.randint(1, 7)):
        x, y, r, s = rng.gauss(32, 8), rng.gauss(34, 8), rng.uniform(3, 14), rng.uniform(0.5, 1.6)
        tint = tuple(min(255, max(0, c + rng.randint(-40, 40))) for c in colour)
        ink = (38, 38, 46) if rng.random() < 0.4 else None
        if rng.random() < 0.7:
            draw.ellipse((x - r * s, y - r / s, x + r * s, y + r / s), fill=tint, outline=ink)
        else:
            points = [(x + rng.gauss(0, r), y + rng.gauss(0, r)) for _ in range(rng.randint(3, 6))]
            draw.polygon(points, fill=tint, outline=ink)
    return np.asarray(image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 1.2))))


def _pick(mask_share: float, n: int) -> Tensor:
    return torch.rand(n) < mask_share


def _partial(full: Tensor, less: Tensor) -> tuple[Tensor, Tensor]:
    """Pictures in which one part is partly there, and how much of its difference remains `[n]`."""
    n, _, h, w = full.shape
    angle = torch.rand(n, 1, 1) * 6.2832
    ys, xs = torch.meshgrid(torch.arange(h) - h / 2, torch.arange(w) - w / 2, indexing="ij")
    cut = (xs * angle.cos() + ys * angle.sin() > torch.randn(n, 1, 1) * 10).float()
    fade = torch.where(_pick(0.4, n).view(-1, 1, 1), torch.rand(n, 1, 1).expand(n, h, w), cut)[:, None]
    mixed = full * fade + less * (1 - fade)
    change = (full - less).abs().sum((1, 2, 3)).clamp_min(1e-3)
    return mixed, (mixed - less).abs().sum((1, 2, 3)) / change


def _warp(pixels: Tensor, amplitude: Tensor) -> Tensor:
    """Bends each picture smoothly by up to about `amplitude` pixels."""
    n = len(pixels)
    grid = F.affine_grid(torch.eye(2, 3).repeat(n, 1, 1), list(pixels.shape), align_corners=False)
    bend = F.interpolate(torch.randn(n, 2, 6, 6), size=pixels.shape[-2:], mode="bicubic", align_corners=True)
    shift = bend.permute(0, 2, 3, 1) * (amplitude / 32).view(-1, 1, 1, 1)
    return F.grid_sample(pixels, grid + shift, padding_mode="border", align_corners=False)


def _blur(pixels: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur with a width of its own per picture."""
    x = torch.arange(-6, 7).float()
    kernel = torch.exp(-0.5 * (x / sigma.view(-1, 1).clamp_min(1e-2)) ** 2)
    kernel = kernel / kernel.sum(1, keepdim=True)
    n, c, h, w = pixels.shape
    flat = F.pad(pixels, (6, 6, 6, 6), mode="replicate").reshape(1, n * c, h + 12, w + 12)
    rows = kernel.repeat_interleave(c, 0)
    flat = F.conv2d(flat, rows[:, None, :, None], groups=n * c)
    flat = F.conv2d(flat, rows[:, None, None, :], groups=n * c)
    return flat.view(n, c, h, w)


def blemish(pixels: Tensor) -> Tensor:
    """Harmless: a little noise, blur, bending and tint; a clean drawing stays one."""
    n = len(pixels)
    pixels = _warp(pixels, 0.5 * torch.rand(n))
    pixels = _blur(pixels, 0.75 * torch.rand(n) * _pick(0.6, n))
    pixels = pixels + torch.randn_like(pixels) * (0.09 * torch.rand(n, 1, 1, 1))
    return pixels + torch.randn(n, 3, 1, 1) * 0.03


def _ghost(pixels: Tensor) -> Tensor:
    share = torch.empty(len(pixels), 1, 1, 1).uniform_(0.35, 0.65)
    return share * pixels + (1 - share) * pixels.roll(1, 0)


def _patch(pixels: Tensor) -> Tensor:
    """Pastes a piece of another picture, or of another place of the same one, over the object."""
    out, other = pixels.clone(), pixels.roll(1, 0)
    for i in range(len(pixels)):
        h, w = (random.randint(10, 26) for _ in range(2))
        y, x = random.randint(16, 50 - h // 2), random.randint(14, 50 - w // 2)
        sy, sx = random.randint(0, 64 - h), random.randint(0, 64 - w)
        h, w = min(h, 64 - y), min(w, 64 - x)
        out[i, :, y : y + h, x : x + w] = other[i, :, sy : sy + h, sx : sx + w]
    return out


SPOILERS: tuple[Callable[[Tensor], Tensor], ...] = (
    _ghost,
    _patch,
    lambda x: _warp(x, torch.empty(len(x)).uniform_(2.6, 6)),
    lambda x: _blur(x, torch.empty(len(x)).uniform_(2.0, 4)),
    lambda x: x + torch.randn_like(x) * torch.empty(len(x), 1, 1, 1).uniform_(0.35, 0.8),
)


class Material:
    """Everything that is rendered once, before training."""

    def __init__(self, count: int, seed: int, autoencoder: AutoencoderKL) -> None:
        rng = random.Random(seed)
        self.scenes = judge_scenes(count, seed)
        self.lost = [rng.choice(sorted(s.parts)) if s.parts else None for s in self.scenes]
        self.full = render_all(self.scenes)
        self.less = render_all(
            [s.without(p) if p else s for s, p in zip(self.scenes, self.lost, strict=True)]
        )
        self.labels = labels_of(self.scenes)
        self.blobs = np.stack([blob_picture(seed + i) for i in range(max(1, count // 8))])
        self.decoded, self.disturbed = self._decode(autoencoder, self.full[: max(1, count // 4)])

    @staticmethod
    @torch.no_grad()
    def _decode(autoencoder: AutoencoderKL, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Harmless decodings, and decodings of latents disturbed as a sampler that got lost leaves them."""
        good, bad = [], []
        scale = float(autoencoder.config.scaling_factor)
        for i in range(0, len(images), 100):
            latent = autoencoder.encode(to_pixels(images[i : i + 100])).latent_dist.mean
            n = len(latent)
            slight = torch.randn_like(latent) * torch.rand(n, 1, 1, 1) * 0.15
            rough = F.interpolate(
                torch.randn(n, latent.shape[1], 5, 5), size=latent.shape[-2:], mode="bicubic"
            )
            strong = (0.5 * torch.randn_like(latent) + rough) * torch.empty(n, 1, 1, 1).uniform_(0.7, 1.5)
            good.append(to_images(autoencoder.decode(latent + slight / scale).sample))
            bad.append(to_images(autoencoder.decode(latent + strong / scale).sample))
        return np.concatenate(good), np.concatenate(bad)

    def batch(self, size: int) -> tuple[Tensor, Labels]:
        """Half clean (rendered or decoded), half partial, spoilt or blobs; labels masked to what holds."""
        index = np.random.randint(len(self.scenes), size=size)
        which = torch.from_numpy(index)
        y = Labels(*(t[which].clone() for t in vars(self.labels).values()))
        full, less = to_pixels(self.full[index]), to_pixels(self.less[index])
        pixels = full.clone()
        roles = torch.rand(size)

        near = np.random.randint(len(self.decoded), size=size)
        decoded = roles < 0.2
        swap = torch.from_numpy(near)[decoded]
        pixels[decoded] = to_pixels(self.decoded[near])[decoded]
        for name, target in vars(y).items():
            target[decoded] = getattr(self.labels, name)[swap]

        partial = (roles >= 0.5) & (roles < 0.62)
        mixed, remains = _partial(full, less)
        pixels[partial] = mixed[partial]
        y.clean[partial] = torch.nan
        for i in torch.nonzero(partial)[:, 0].tolist():
            part = self.lost[index[i]]
            if part is not None:
                r = float(remains[i])
                y.parts[i, PARTS.index(part)] = 1.0 if r > 0.3 else 0.0 if r < 0.08 else torch.nan
        pixels = blemish(pixels)

        spoilt = (roles >= 0.62) & (roles < 0.88)
        kinds = torch.randint(len(SPOILERS), (size,))
        for k, spoil in enumerate(SPOILERS):
            chosen = spoilt & (kinds == k)
            if chosen.sum() > 1:
                pixels[chosen] = spoil(pixels[chosen])
        disturbed = (roles >= 0.88) & (roles < 0.94)
        pixels[disturbed] = to_pixels(self.disturbed[near])[disturbed]
        blobs = roles >= 0.94
        pixels[blobs] = to_pixels(self.blobs[np.random.randint(len(self.blobs), size=size)])[blobs]

        ruined = spoilt | disturbed
        y.clean[ruined | blobs] = 0.0
        y.kind[ruined] = -1
        y.colour[ruined | blobs] = -1
        y.place[ruined | blobs] = -1
        y.parts[ruined] = torch.nan
        y.kind[blobs] = KIND_LABELS.index(NOTHING)
        y.parts[blobs] = 0.0
        return pixels.clamp(-1, 1), y


def loss_of(logits: dict[str, Tensor], y: Labels) -> Tensor:
    """Sum of the heads' losses over the labels that apply."""
    total = torch.zeros(())
    for name in ("kind", "colour", "place"):
        target = getattr(y, name)
        if (target >= 0).any():
            total = total + F.cross_entropy(logits[name].float(), target, ignore_index=-1)
    for name, weight in (("parts", 8.0), ("clean", 1.0)):
        target = getattr(y, name)
        known = ~target.isnan()
        total = total + weight * F.binary_cross_entropy_with_logits(
            logits[name].float()[known], target[known]
        )
    return total


def accuracy(judge: Judge, scenes: list[Scene], images: np.ndarray) -> dict[str, float]:
    """Shares of pictures with the right kind, colour, own parts, found clean, and all of these at once."""
    rows = []
    for scene, verdict in zip(scenes, judge(images), strict=True):
        own = set(KINDS[scene.owner])
        rows.append(
            (
                verdict.kind == (scene.kind or NOTHING),
                scene.kind is None or verdict.colour == scene.colour,
                verdict.parts & own == scene.parts & own,
                verdict.clean,
            )
        )
    table = np.array(rows)
    shares = dict(zip(("kind", "colour", "parts", "clean"), table.mean(0).tolist(), strict=True))
    return {**shares, "all": float(table.all(1).mean())}


def train(
    folder: Path,
    *,
    steps: int,
    batch: int,
    count: int,
    checked: int = 4000,
    device: str = "cpu",
    seed: int = 11,
    name: str = "judge",
) -> None:
    """Writes `folder/<name>.safetensors`, and its accuracy on `checked` fresh renders to the scores."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
    autoencoder = AutoencoderKL.from_pretrained(folder / "vae").eval()
    material = Material(count, seed, autoencoder)
    net = JudgeNet().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=1e-3)

    def loss_at(step: int) -> Tensor:
        pixels, y = material.batch(batch)
        pixels = pixels.to(device).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device, torch.bfloat16):
            logits = net(pixels)
        # The labels and the loss are small and stay on the CPU.
        return loss_of({name: value.cpu() for name, value in logits.items()}, y)

    run_steps(steps, 3e-3, [optimiser], loss_at, clip=5.0)
    judge = Judge(net.cpu())
    judge.save(folder / f"{name}.safetensors")
    judge = Judge.load(folder / f"{name}.safetensors")
    # What the benchmark asks it about: pictures that were meant to show an object.
    scenes = [replace(scene, kind=scene.owner) for scene in judge_scenes(checked, seed + 1)]
    images = render_all(scenes)
    noise = np.random.default_rng(seed).normal(0, 8, images.shape)
    blurred = [np.asarray(Image.fromarray(i).filter(ImageFilter.GaussianBlur(0.6))) for i in images]
    Scores(folder / "scores.json").add(
        name,
        plain=accuracy(judge, scenes, images),
        noisy=accuracy(judge, scenes, (images + noise).clip(0, 255).astype(np.uint8)),
        blurred=accuracy(judge, scenes, np.stack(blurred)),
    )
