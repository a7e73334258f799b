"""The shipped model: what the README shows really happens, on prompts and seeds that nobody picked."""

from __future__ import annotations

import random
from typing import Any

import pytest

from vsf_lib.bench.drawing import Method, Score, draw, score
from vsf_lib.bench.pairs import make_pairs
from vsf_lib.presets import preset_for
from vsf_lib.scenes.judge import Judge
from vsf_lib.scenes.loading import load_pipeline
from vsf_lib.scenes.model import FOLDER, STEPS
from vsf_lib.settings import Settings


@pytest.fixture(scope="module")
def seed() -> int:
    return random.SystemRandom().randrange(1 << 20)


@pytest.fixture(scope="module")
def scores(seed: int) -> dict[str, Score]:
    """40 held-out pairs by each of: nothing, VSF at its preset, strong."""
    pipe: Any = load_pipeline(FOLDER)
    judge = Judge.load()
    pairs = make_pairs(40, seed=seed)
    methods = [
        Method("none", Settings(method="off")),
        Method("vsf", preset_for("scenes").settings()),
        Method("strong", preset_for("scenes", strong=True).settings()),
    ]
    return {m.name: score(judge, pairs, draw(pipe, pairs, m, seeds=(seed,), steps=STEPS)) for m in methods}


def test_parts_are_there_without_and_gone_with_a_negative_prompt(seed: int, scores: dict[str, Score]) -> None:
    assert scores["vsf"].negative > scores["none"].negative + 0.25, (seed, scores)


def test_strong_removes_no_less(seed: int, scores: dict[str, Score]) -> None:
    assert scores["strong"].negative > scores["vsf"].negative - 0.1, (seed, scores)
