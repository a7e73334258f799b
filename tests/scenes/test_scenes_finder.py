"""The part finder: its network, its file, its material, and with the shipped weights what it finds."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image, ImageFilter

from vsf_lib.errors import ModelError
from vsf_lib.scenes.draw import render
from vsf_lib.scenes.finder import CHANNELS, FEWEST_PIXELS, OBJECT, WEIGHTS, Finder, FinderNet
from vsf_lib.scenes.judge import Judge
from vsf_lib.scenes.model import FOLDER
from vsf_lib.scenes.training.finder import Material, decodings, loss_of, measure, truth
from vsf_lib.scenes.training.gate import fresh_scenes
from vsf_lib.scenes.training.judge import judge_scenes
from vsf_lib.scenes.world import KINDS, PARTS, Scene


def scene_of(kind: str, seed: int = 1) -> Scene:
    rng = random.Random(seed)
    scene = next(s for s in iter(lambda: fresh_scenes(1, rng.randrange(1 << 30))[0], None) if s.owner == kind)
    return replace(scene, parts=frozenset(KINDS[kind]))


def some_finder(seed: int = 0) -> Finder:
    torch.manual_seed(seed)
    return Finder(FinderNet())


class Told(Finder):
    """A finder that says what it is told."""

    def __init__(self, sure: np.ndarray) -> None:
        self._sure = sure

    def __call__(self, images: Any) -> np.ndarray:
        return self._sure


# What it learns


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_parts_pixels_are_those_that_change_without_it(kind: str) -> None:
    scene = scene_of(kind)
    full, masks = truth(scene)
    assert np.array_equal(full, render(scene))
    for channel, name in enumerate(CHANNELS):
        if name in KINDS[kind]:
            less = render(scene.without(name))
            assert masks[channel].any()
            change = np.abs(full.astype(int) - less).max(-1)
            assert np.array_equal(masks[channel], change > 24)
        elif name != OBJECT:
            assert not masks[channel].any()
    whole = masks[CHANNELS.index(OBJECT)]
    assert 0.03 < whole.mean() < 0.5
    for part in KINDS[kind]:
        own = masks[CHANNELS.index(part)]
        assert not (own & ~whole).any(), part


def test_no_whole_part_is_below_what_is_found() -> None:
    least = min(
        int(masks[CHANNELS.index(part)].sum())
        for scene, (_, masks) in ((s, truth(s)) for s in fresh_scenes(150, 12))
        for part in scene.parts
    )
    assert least >= 2 * FEWEST_PIXELS


def test_material_keeps_pictures_and_masks_together() -> None:
    """Also where the picture went through the autoencoder: it is nearest to its own render."""
    torch.manual_seed(3)
    np.random.seed(3)
    autoencoder = AutoencoderKL.from_pretrained(FOLDER / "vae").float().eval()
    rows = [truth(scene) for scene in judge_scenes(12, 5)]
    renders = torch.from_numpy(np.stack([full for full, _ in rows])).permute(0, 3, 1, 2) / 127.5 - 1
    pixels, masks = Material(12, 5, autoencoder).batch(60)
    assert pixels.shape == (60, 3, 64, 64)
    assert pixels.abs().max() <= 1
    assert masks.shape == (60, len(CHANNELS), 64, 64)
    nearest = (pixels[:, None] - renders[None]).abs().mean((2, 3, 4)).argmin(1).tolist()
    assert len(set(nearest)) > 6
    for mask, which in zip(masks, nearest, strict=True):
        assert np.array_equal(mask.numpy(), rows[which][1])
    images = np.stack([full for full, _ in rows[:3]])
    again = decodings(autoencoder, images)
    assert again.shape == images.shape
    assert 0 < np.abs(again.astype(int) - images).mean() < 12


def test_loss_is_entropy_and_overlap() -> None:
    rng = np.random.default_rng(2)
    masks = np.zeros((2, len(CHANNELS), 6, 5))
    masks[0, 3, 1:3, 1:4] = masks[1, 0, 2:, 2:] = masks[0, 0, 0, 0] = 1
    logits = rng.normal(0, 2, masks.shape)
    p = 1 / (1 + np.exp(-logits))
    entropy = -(masks * np.log(p) + (1 - masks) * np.log(1 - p)).mean()
    there, absent = [], []
    for row in range(2):
        for channel in range(len(CHANNELS)):
            m, q = masks[row, channel], p[row, channel]
            dice = (2 * (m * q).sum() + 1) / (m.sum() + q.sum() + 1)
            if m.any():
                there.append(1 - dice)
            else:
                absent.append(q.sum() / (q.sum() + 64))
    expected = 10 * entropy + np.mean(there) + np.mean(absent)
    got = loss_of(torch.from_numpy(logits).float(), torch.from_numpy(masks).float())
    assert float(got) == pytest.approx(expected, rel=1e-4)
    nothing = loss_of(torch.full((1, len(CHANNELS), 4, 4), -20.0), torch.zeros(1, len(CHANNELS), 4, 4))
    assert float(nothing) == pytest.approx(0, abs=1e-4)


# What it says


def test_network_is_small_and_has_a_map_for_every_part() -> None:
    net = FinderNet().eval()
    assert sum(p.numel() for p in net.parameters()) <= 150_000
    assert net(torch.zeros(2, 3, 64, 64)).shape == (2, len(CHANNELS), 64, 64)
    assert (*PARTS, OBJECT) == CHANNELS


def test_too_few_pixels_are_nothing() -> None:
    sure = np.zeros((2, len(CHANNELS), 64, 64), np.float32)
    sure[0, 2, 10, : FEWEST_PIXELS - 1] = 1
    sure[1, 2, 10, :FEWEST_PIXELS] = 0.51
    sure[1, 3] = 0.5
    masks = Told(sure).masks(np.zeros((2, 64, 64, 3), np.uint8))
    assert masks.sum((2, 3)).tolist() == [
        [0] * len(CHANNELS),
        [0, 0, FEWEST_PIXELS] + [0] * (len(CHANNELS) - 3),
    ]


def test_measure_counts_each_kind_of_error() -> None:
    """Four pictures: found half, missed, invented, found whole with the surest pixel beside it."""
    masks = np.zeros((4, len(CHANNELS), 64, 64), bool)
    sure = np.zeros(masks.shape, np.float32)
    part = 4
    masks[0, part, :4, :10] = masks[1, part, :4, :10] = masks[3, part, :4, :10] = True
    sure[0, part, :4, :5] = 0.9
    sure[2, part, :2, :10] = 0.7
    sure[3, part, :4, :10] = 0.8
    sure[3, part, 20, 20] = 0.95
    got = measure(Told(sure), np.zeros((4, 64, 64, 3), np.uint8), masks)
    # A map that is nothing everywhere has its first pixel as its peak, and that one is on the part.
    assert got["peak"] == round(2 / 3, 4)
    assert got["missed"] == pytest.approx(1 / 3, abs=1e-4)
    assert got["invented"] == round(1 / (4 * len(PARTS) - 3), 4)
    assert got["iou"] == {CHANNELS[part]: round(60 / 141, 4)}


# Its file


def test_file_brings_the_same_network_back(tmp_path: Path) -> None:
    finder, file = some_finder(), tmp_path / "finder.safetensors"
    finder.save(file)
    images = np.random.default_rng(1).integers(0, 256, (3, 64, 64, 3)).astype(np.uint8)
    assert np.abs(Finder.load(file)(images) - finder(images)).max() < 0.01
    assert finder(images[:1])[0] == pytest.approx(finder(images)[0], abs=1e-5)


@pytest.mark.parametrize("content", [None, b"", b"nonsense"])
def test_damaged_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "finder.safetensors"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ModelError, match=r"finder\.safetensors"):
        Finder.load(file)


def test_a_judges_file_is_no_finders(tmp_path: Path) -> None:
    from vsf_lib.scenes.judge import JudgeNet

    Judge(JudgeNet()).save(tmp_path / "judge.safetensors")
    with pytest.raises(ModelError, match=r"judge\.safetensors"):
        Finder.load(tmp_path / "judge.safetensors")


# The shipped weights


def plain(images: np.ndarray) -> np.ndarray:
    return images


def noisy(images: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 8, images.shape)
    return (images + noise).clip(0, 255).astype(np.uint8)


def blurred(images: np.ndarray) -> np.ndarray:
    return np.stack([np.asarray(Image.fromarray(i).filter(ImageFilter.GaussianBlur(0.6))) for i in images])


@pytest.mark.parametrize("disturb", [plain, noisy, blurred])
def test_shipped_finder_finds_parts_in_renders_of_another_seed_each_time(
    disturb: Callable[[np.ndarray], np.ndarray],
) -> None:
    seed = random.SystemRandom().randrange(1 << 30)
    rows = [truth(scene) for scene in fresh_scenes(120, seed)]
    images, masks = np.stack([full for full, _ in rows]), np.stack([mask for _, mask in rows])
    got = measure(Finder.load(), disturb(images), masks)
    assert got["peak"] > 0.95, seed
    assert got["missed"] < 0.03, seed
    assert got["invented"] < 0.01, seed
    assert np.mean(list(got["iou"].values())) > 0.75, (seed, got)


def test_shipped_finder_is_small_and_says_what_it_is_worth() -> None:
    assert WEIGHTS.stat().st_size <= 300_000
    scores = json.loads(WEIGHTS.with_name("scores.json").read_text("utf-8"))["finder"]
    assert set(scores) == {"plain", "decoded"}
    assert set(scores["plain"]) == {"iou", "peak", "missed", "invented"}
    assert set(scores["plain"]["iou"]) == set(CHANNELS)
