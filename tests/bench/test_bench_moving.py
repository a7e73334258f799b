"""Videos judged over time: a flicker is not gone, a change of object is not steady; sweeps and their best."""

from __future__ import annotations

import random
from argparse import Namespace
from dataclasses import replace

import numpy as np
import pytest

from vsf_lib.bench.drawing import Method
from vsf_lib.bench.filming import COLUMNS, NEARLY, Moved, Take, judged, moving_pairs, summary
from vsf_lib.bench.moving import (
    STEPS,
    Tried,
    best,
    check,
    guided_methods,
    methods,
    rendered,
    scored,
    sweeps_for,
    table,
)
from vsf_lib.bench.subject import Subject
from vsf_lib.errors import SettingsError
from vsf_lib.scenes.judge import Judge, Verdict
from vsf_lib.scenes.model import WAN
from vsf_lib.scenes.motion import FRAMES, MOVES
from vsf_lib.scenes.world import KINDS, PLACES, is_held_out
from vsf_lib.settings import Settings

PAIRS = moving_pairs(200)
PAIR = replace(PAIRS[0], kind="car", colour="red", place="field", negative_prompt="wheels", asked=None)
WITH = Verdict("car", "red", "field", frozenset({"wheels", "windows"}), True, 0.9)
GONE = replace(WITH, parts=frozenset({"windows"}))
GREY = np.full((FRAMES, 8, 8, 3), 127, np.uint8)
SUBJECT = Subject(None, Judge.load(), WAN, 6)


def moved(**values: float) -> Moved:
    usual = {"positive": 1, "negative": 1, "quality": 1, "steady": 1, "flips": 0, "flicker": 0}
    return Moved(**{**usual, **values})


def take(alpha: float = 1.0, steps: int = 6) -> Take:
    return Take(Method("vsf", Settings(alpha=alpha)), steps)


def test_prompts_have_the_verb_of_their_object() -> None:
    assert len({pair.prompt for pair in PAIRS}) > 100
    for pair in PAIRS:
        assert is_held_out(pair.kind, pair.colour, pair.place)
        assert pair.prompt.endswith(tuple(f" {verb} {PLACES[pair.place]}" for verb in MOVES[pair.kind]))
        assert pair.negative_prompt in KINDS[pair.kind]


def test_values_are_chosen_on_other_combinations() -> None:
    for pair in moving_pairs(50, held_out=False, seed=7):
        assert not is_held_out(pair.kind, pair.colour, pair.place)


def test_a_flicker_is_not_gone() -> None:
    seen = Moved.of(PAIR, [GONE] * 7 + [WITH] * 3 + [GONE] * 7, GREY)
    assert seen.negative == pytest.approx(14 / 17)
    assert seen.flips == 2
    assert summary([seen])["negative"] == 0
    assert summary([Moved.of(PAIR, [GONE] * 16 + [WITH], GREY)])["negative"] == 1


def test_who_turns_into_another_is_not_steady() -> None:
    other = replace(GONE, kind="boat")
    seen = Moved.of(PAIR, [GONE] * 9 + [other] * 8, GREY)
    assert seen.steady == pytest.approx(9 / 17)
    assert summary([seen])["steady"] == 0
    wrong = Moved.of(PAIR, [other] * 17, GREY)
    assert (wrong.steady, wrong.positive) == (1, 0)


def test_even_change_is_no_flicker() -> None:
    even = GREY.copy() + (3 * np.arange(FRAMES, dtype=np.uint8))[:, None, None, None]
    assert Moved.of(PAIR, [WITH] * FRAMES, even).flicker == 0
    rng = np.random.default_rng(3)
    frames = rng.integers(0, 256, GREY.shape, dtype=np.uint8)
    slow = [
        abs(float(frames[t - 1, y, x, c]) - 2 * float(frames[t, y, x, c]) + float(frames[t + 1, y, x, c]))
        for t in range(1, FRAMES - 1)
        for y in range(8)
        for x in range(8)
        for c in range(3)
    ]
    assert Moved.of(PAIR, [WITH] * FRAMES, frames).flicker == pytest.approx(np.mean(slow) / 255)


def test_shares_are_over_videos_and_the_rest_are_means() -> None:
    rows = [moved(), moved(positive=NEARLY, negative=0, quality=0.5, flips=3),
            moved(positive=0.5, negative=0.5, steady=0.5, flicker=0.2), moved()]  # fmt: skip
    assert summary(rows) == {
        "positive": 0.75, "negative": 0.5, "quality": 0.75, "steady": 0.75, "flips": 0.75, "flicker": 0.05,
    }  # fmt: skip


def test_rendered_videos_pass_and_fail_as_they_should() -> None:
    pairs = moving_pairs(20)
    with_part = summary(rendered(pairs, SUBJECT, less=False).videos)
    without = summary(rendered(pairs, SUBJECT, less=True).videos)
    assert min(with_part["positive"], with_part["steady"], without["negative"]) >= 0.95
    assert max(with_part["negative"], with_part["flips"]) <= 0.1
    assert 0 < with_part["flicker"] < 0.05


def test_what_keeps_the_prompt_is_best_and_then_what_removes_most() -> None:
    faithful = Tried(take(1), [moved(negative=0)] * 9 + [moved()])
    better = Tried(take(2), [moved(negative=0)] * 5 + [moved()] * 5)
    wild = Tried(take(3), [moved(positive=0)] * 5 + [moved()] * 5)
    assert best([faithful, better, wild]) is better
    assert best([Tried(take(3), [moved(positive=0)] * 10), wild]) is wild


def test_bands_are_over_pairs_and_hold_the_number() -> None:
    rng = np.random.default_rng(5)
    videos = [moved(negative=float(x)) for x in rng.integers(0, 2, 60)]
    row = scored(Tried(take(), videos), 30)
    share, low, high = row["negative"]
    assert low < share < high
    assert share == pytest.approx(summary(videos)["negative"], abs=1e-4)
    # Both seeds alike at every pair, or one that evens out what the other has: the pairs are what varies.
    alike = scored(Tried(take(), videos[:30] + videos[:30]), 30)["negative"]
    opposite = [moved(negative=1 - video.negative) for video in videos[:30]]
    even = scored(Tried(take(), videos[:30] + opposite), 30)["negative"]
    assert alike[2] - alike[1] > 0.1
    assert even == [0.5, 0.5, 0.5]


def test_a_sweep_moves_one_thing() -> None:
    plan = sweeps_for(SUBJECT)
    assert {take.steps for take in plan["steps"]} == set(STEPS)
    assert {take.lora for take in plan["steps"]} == {1.0}
    assert {take.steps for take in plan["LoRA weight"]} == {6}
    assert set(guided_methods()) < set(plan)
    for takes in plan.values():
        described = [(take.name, take.describe()) for take in takes]
        assert len(set(described)) == len(described)


def test_the_table_has_a_line_for_each_method_and_sweep() -> None:
    rows = [scored(Tried(Take(method, 6), [moved()] * 4), 4) for method in methods(WAN)]
    versions = {"torch": "2", "diffusers": "0"}
    sweep = [Tried(take(), [moved()]).as_json()]
    text = table({"methods": rows, "pairs": 4, "seeds": 1, "versions": versions, "sweeps": {"steps": sweep}})
    lines = text.splitlines()
    for method in methods(WAN):
        assert sum(line.startswith(f"{method.name} ") for line in lines) == 1
    assert "6 steps, LoRA 1" in lines[-1]
    assert all(column in lines[0] for column in COLUMNS)


def test_it_draws_no_curves() -> None:
    with pytest.raises(SettingsError, match="--plot"):
        check(Namespace(plot="x.png"))


def test_judging_is_video_by_video() -> None:
    judge = Judge.load()
    rng = random.Random(4)
    pairs = rng.sample(PAIRS, 3)
    frames = np.random.default_rng(4).integers(0, 256, (3, FRAMES, 64, 64, 3), dtype=np.uint8)
    together = judged(judge, pairs, frames)
    assert together == [judged(judge, [pair], one[None])[0] for pair, one in zip(pairs, frames, strict=True)]
