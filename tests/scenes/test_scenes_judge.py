"""The judge: its network, its file, and with the shipped weights its own accuracy."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from safetensors.torch import load_file, save_file

from vsf_lib.errors import ModelError
from vsf_lib.scenes.draw import render
from vsf_lib.scenes.judge import KIND_LABELS, NOTHING, PLACE_LABELS, Judge, JudgeNet, Verdict
from vsf_lib.scenes.training.judge import accuracy, judge_scenes
from vsf_lib.scenes.world import COLOURS, KINDS, PARTS, PLACES, Scene

REQUIRED = 0.995


def some_judge(seed: int = 0) -> JudgeNet:
    torch.manual_seed(seed)
    return JudgeNet().eval()


def noisy(images: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 8, images.shape)
    return (images + noise).clip(0, 255).astype(np.uint8)


def blurred(images: np.ndarray) -> np.ndarray:
    return np.stack([np.asarray(Image.fromarray(i).filter(ImageFilter.GaussianBlur(0.6))) for i in images])


def plain(images: np.ndarray) -> np.ndarray:
    return images


def test_network_has_a_logit_for_every_label() -> None:
    logits = some_judge()(torch.zeros(3, 3, 64, 64))
    assert {name: tuple(value.shape) for name, value in logits.items()} == {
        "kind": (3, len(KINDS) + 1),
        "colour": (3, len(COLOURS)),
        "place": (3, len(PLACES)),
        "parts": (3, len(PARTS)),
        "clean": (3,),
    }
    assert (*KINDS, NOTHING) == KIND_LABELS
    assert tuple(PLACES) == PLACE_LABELS


def test_network_is_small() -> None:
    assert sum(p.numel() for p in JudgeNet().parameters()) * 2 < 2_000_000, "bytes in half precision"


def test_verdict_is_read_off_the_logits() -> None:
    net = some_judge()
    for head in net.heads.values():
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.constant_(head.bias, -1.0)
    for name, index in (("kind", KIND_LABELS.index("boat")), ("colour", 3), ("place", 2), ("parts", 4)):
        net.heads[name].bias.data[index] = 2.0
    (verdict,) = Judge(net)(np.zeros((1, 64, 64, 3), np.uint8))
    assert (verdict.kind, verdict.colour, verdict.place) == ("boat", COLOURS[3], PLACE_LABELS[2])
    assert verdict.parts == {PARTS[4]}
    assert not verdict.clean
    assert verdict.clean_probability == pytest.approx(1 / (1 + np.e), abs=1e-6)


def test_a_verdict_does_not_depend_on_the_other_pictures() -> None:
    judge = Judge(some_judge())
    images = np.random.default_rng(1).integers(0, 256, (300, 64, 64, 3)).astype(np.uint8)
    together, alone = judge(images)[257], judge(images[257:258])[0]
    assert together.clean_probability == pytest.approx(alone.clean_probability, abs=1e-5)
    assert together.kind == alone.kind


def test_saved_and_loaded_is_the_same_judge(tmp_path: Path) -> None:
    net = some_judge().half().float().to(memory_format=torch.channels_last)
    net.body[0].first_norm.num_batches_tracked += 7
    file = tmp_path / "judge.safetensors"
    Judge(net).save(file)
    images = np.random.default_rng(2).integers(0, 256, (5, 64, 64, 3)).astype(np.uint8)
    before, after = Judge(net)(images), Judge.load(file)(images)
    assert [v.parts for v in before] == [v.parts for v in after]
    for one, other in zip(before, after, strict=True):
        assert one.clean_probability == pytest.approx(other.clean_probability, abs=1e-5)
    assert {t.dtype for t in load_file(file).values()} == {torch.float16, torch.int64}


def write_nothing(file: Path) -> None:
    file.unlink()


def write_half(file: Path) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])


def write_empty(file: Path) -> None:
    file.write_bytes(b"")


def write_other(file: Path) -> None:
    save_file({"stem.weight": torch.zeros(3)}, file)


def write_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize("damage", [write_nothing, write_half, write_empty, write_other, write_folder])
def test_missing_or_damaged_weights_are_named(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    file = tmp_path / "judge.safetensors"
    Judge(some_judge()).save(file)
    damage(file)
    with pytest.raises(ModelError, match=r"judge\.safetensors"):
        Judge.load(file)


def test_accuracy_counts_each_kind_of_error() -> None:
    """With a judge that says the truth except where told otherwise."""
    scenes = judge_scenes(10, 3)
    scenes = [s for s in scenes if s.kind is not None and s.parts][:5]
    assert len(scenes) == 5

    def truth(scene: Scene) -> dict[str, object]:
        return {
            "kind": scene.kind,
            "colour": scene.colour,
            "place": scene.place,
            "parts": scene.parts,
            "clean": True,
            "clean_probability": 1.0,
        }

    said = [truth(s) for s in scenes]
    said[0]["kind"] = NOTHING
    said[1]["parts"] = frozenset()
    said[1]["clean"] = False
    other = next(p for p in PARTS if p not in KINDS[scenes[2].owner])
    said[2]["parts"] = scenes[2].parts | {other}  # a part of another kind is not counted
    verdicts = [Verdict(**v) for v in said]  # type: ignore[arg-type]
    shares = accuracy(lambda images: verdicts, scenes, np.zeros((5, 64, 64, 3)))  # type: ignore[arg-type]
    assert shares == pytest.approx({"kind": 0.8, "colour": 1, "parts": 0.8, "clean": 0.8, "all": 0.6})


def object_scenes(count: int, seed: int) -> list[Scene]:
    """What the benchmark shows the judge: pictures meant to have an object, each part there or not."""
    return [replace(scene, kind=scene.owner) for scene in judge_scenes(count, seed)]


@pytest.fixture(scope="module")
def shipped() -> Judge:
    return Judge.load()


@pytest.fixture(scope="module")
def fresh() -> tuple[list[Scene], np.ndarray]:
    scenes = object_scenes(800, 20260)
    return scenes, np.stack([render(scene) for scene in scenes])


@pytest.mark.parametrize("disturb", [plain, noisy, blurred])
def test_shipped_judge_reads_renders_that_it_never_saw(
    shipped: Judge, fresh: tuple[list[Scene], np.ndarray], disturb: Callable[[np.ndarray], np.ndarray]
) -> None:
    """Kind, colour, all own parts and clean at once."""
    scenes, images = fresh
    shares = accuracy(shipped, scenes, disturb(images))
    assert shares["all"] >= REQUIRED, shares


@pytest.mark.parametrize("disturb", [plain, noisy, blurred])
def test_shipped_judge_reads_other_renders_each_time(
    shipped: Judge, disturb: Callable[[np.ndarray], np.ndarray]
) -> None:
    seed = random.SystemRandom().randrange(1 << 30)
    scenes = object_scenes(200, seed)
    shares = accuracy(shipped, scenes, disturb(np.stack([render(scene) for scene in scenes])))
    # A judge of exactly the required accuracy makes 1 error here, and more than 5 once in 1,700 runs.
    assert round((1 - shares["all"]) * len(scenes)) <= 5, f"seed {seed}: {shares}"


def test_shipped_judge_finds_spoilt_pictures_spoilt(shipped: Judge) -> None:
    rng = np.random.default_rng(4)
    images = np.stack([render(scene) for scene in judge_scenes(60, 5) if scene.kind]).astype(float)
    ghosts = (images + np.roll(images, 1, 0)) / 2
    static = images + rng.normal(0, 75, images.shape)
    for name, spoilt in (("ghosts", ghosts), ("static", static)):
        verdicts = shipped(spoilt.clip(0, 255).astype(np.uint8))
        assert np.mean([v.clean for v in verdicts]) < 0.1, name
