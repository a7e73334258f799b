"""Videos judged over time: a flicker is not gone, a change of object is not steady; prompts with verbs."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from vsf_lib.bench.moving import NEARLY, Moved, judged, methods, moving_pairs, summary
from vsf_lib.scenes.judge import Judge, Verdict
from vsf_lib.scenes.motion import FRAMES, MOVES, Moving, random_moving, render_video
from vsf_lib.scenes.world import KINDS, PLACES, is_held_out

PAIRS = moving_pairs(200)
PAIR = replace(PAIRS[0], kind="car", colour="red", place="field", negative_prompt="wheels", asked=None)
WITH = Verdict("car", "red", "field", frozenset({"wheels", "windows"}), True, 0.9)
GONE = replace(WITH, parts=frozenset({"windows"}))


def test_prompts_have_the_verb_of_their_object() -> None:
    assert len({pair.prompt for pair in PAIRS}) > 100
    for pair in PAIRS:
        assert is_held_out(pair.kind, pair.colour, pair.place)
        assert pair.prompt.endswith(tuple(f" {verb} {PLACES[pair.place]}" for verb in MOVES[pair.kind]))
        assert pair.negative_prompt in KINDS[pair.kind]


def test_a_flicker_is_not_gone() -> None:
    seen = Moved.of(PAIR, [GONE] * 14 + [WITH] * 3)
    assert seen.negative == pytest.approx(14 / 17)
    assert summary([seen])["negative"] == 0
    assert summary([Moved.of(PAIR, [GONE] * 16 + [WITH])])["negative"] == 1
    assert summary([seen])["frames-"] == pytest.approx(14 / 17, abs=1e-4)


def test_who_turns_into_another_is_not_steady() -> None:
    other = replace(GONE, kind="boat")
    seen = Moved.of(PAIR, [GONE] * 9 + [other] * 8)
    assert seen.steady == pytest.approx(9 / 17)
    assert summary([seen])["steady"] == 0
    wrong = Moved.of(PAIR, [other] * 17)
    assert (wrong.steady, wrong.positive) == (1, 0)


def test_shares_are_over_videos() -> None:
    rows = [Moved(1, 1, 1, 1), Moved(NEARLY, 0, 0.5, 1), Moved(0.5, 0.5, 1, 0.5), Moved(1, 1, 1, 1)]
    assert summary(rows) == {
        "positive": 0.75, "negative": 0.5, "quality": 0.75, "steady": 0.75, "frames+": 0.85, "frames-": 0.625,
    }  # fmt: skip


def test_rendered_videos_pass_and_fail_as_they_should() -> None:
    judge, rng = Judge.load(), random.Random(4)
    pairs, whole, less = [], [], []
    while len(pairs) < 20:
        moving = random_moving(rng, held_out=True)
        scene = moving.scene
        part = sorted(KINDS[scene.owner])[0]
        moving = Moving(replace(scene, parts=frozenset(KINDS[scene.owner])), moving.verb, 1.0, 2)
        pairs.append(replace(PAIR, kind=scene.owner, colour=scene.colour, place=scene.place,
                             negative_prompt=part))  # fmt: skip
        whole.append(render_video(moving))
        less.append(render_video(moving.without(part)))
    with_part = summary(judged(judge, pairs, np.stack(whole)))
    without = summary(judged(judge, pairs, np.stack(less)))
    assert with_part["positive"] >= 0.95
    assert with_part["steady"] >= 0.95
    assert with_part["negative"] <= 0.05
    assert without["negative"] >= 0.95
    assert whole[0].shape == (FRAMES, 64, 64, 3)


def test_methods_have_names_and_strengths_of_their_own() -> None:
    listed = [(method.name, method.describe()) for method in methods()]
    assert len(set(listed)) == len(listed)
    assert [name for name, _ in listed[:3]] == ["none", "nag", "nag-strong"]
