"""Moving scenes: a seed is a video, things move as their verb says, the judge reads the frames."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from vsf_lib.scenes.draw import render
from vsf_lib.scenes.judge import Judge
from vsf_lib.scenes.model import MAX_WORDS
from vsf_lib.scenes.motion import (
    FRAMES,
    KEYFRAMES,
    MOVES,
    STRIDE,
    VERBS,
    Moving,
    moving_caption,
    random_moving,
    render_video,
)
from vsf_lib.scenes.world import KINDS, WORDS, is_held_out

SCENES = [random_moving(random.Random(seed)) for seed in range(300)]


def doing(verb: str, *, flip: bool = False) -> Moving:
    """A scene of a kind that does `verb`, in the middle, with all its parts."""
    kind = next(kind for kind, verbs in MOVES.items() if verb in verbs)
    scene = random_moving(random.Random(1)).scene
    colours = tuple((part, "blue") for part in KINDS[kind])
    scene = replace(
        scene,
        kind=kind,
        owner=kind,
        parts=frozenset(KINDS[kind]),
        part_colours=colours,
        x=0.0,
        y=0.0,
        flip=flip,
    )
    return Moving(scene, verb, 1.0, 2)


def centre(moving: Moving, frame: int) -> tuple[float, float]:
    """Column and row of the middle of the object's pixels."""
    scene = moving.at(frame)
    bare = replace(scene, kind=None, parts=frozenset())
    changed = (render(scene) != render(bare)).any(2)
    rows, columns = np.nonzero(changed)
    return float(columns.mean()), float(rows.mean())


def test_a_scene_is_always_the_same_video() -> None:
    video = render_video(SCENES[0])
    assert video.shape == (FRAMES, 64, 64, 3)
    assert video.dtype == np.uint8
    assert np.array_equal(video, render_video(random_moving(random.Random(0))))
    assert np.array_equal(video[:5], render_video(SCENES[0], 5))


def test_keyframes_are_every_fourth() -> None:
    keys = SCENES[3].keyframes()
    assert len(keys) == KEYFRAMES == 5
    assert keys == [SCENES[3].at(frame) for frame in (0, 4, 8, 12, 16)]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_moves_something(verb: str) -> None:
    video = render_video(doing(verb)).astype(int)
    assert max(np.abs(a - b).max() for a, b in pairwise(video)) > 60
    assert np.array_equal(*render_video(replace(doing(verb), verb=None), 2))


@pytest.mark.parametrize("verb", ["driving", "sailing", "flying", "swimming"])
@pytest.mark.parametrize("flip", [False, True])
def test_what_glides_goes_where_it_looks(verb: str, flip: bool) -> None:
    moving = doing(verb, flip=flip)
    ahead = -1 if flip else 1
    steps = [ahead * (b - a) for a, b in pairwise(centre(moving, f)[0] for f in range(0, FRAMES, STRIDE))]
    assert min(steps) > 0.5, "pixels from one keyframe to the next; a boat rocks on its way"


def test_who_jumps_comes_down_again() -> None:
    rows = [centre(doing("jumping"), frame)[1] for frame in (0, 8, 16)]
    assert rows[1] < rows[0] - 4
    assert rows[2] == pytest.approx(rows[0], abs=0.5)


def test_eyes_open_again() -> None:
    shut = [doing("blinking").at(frame).shut for frame in range(FRAMES)]
    assert max(shut) == 1
    assert shut[0] == shut[-1] == 0
    assert shut.index(1) % STRIDE == 0, "in between a video's latents could not tell"


def test_growing_is_growing() -> None:
    scales = [doing("growing").at(frame).scale for frame in range(FRAMES)]
    assert all(a < b for a, b in pairwise(scales))


@pytest.mark.parametrize("verb", VERBS)
def test_what_lies_between_two_keyframes_can_be_told_from_them(verb: str) -> None:
    moving = doing(verb)
    for first in range(0, FRAMES - 1, STRIDE):
        before, after = moving.at(first), moving.at(first + STRIDE)
        for frame in range(first + 1, first + STRIDE):
            share, scene = (frame - first) / STRIDE, moving.at(frame)
            for name in ("x", "y", "scale", "lean", "shut"):
                straight = (1 - share) * getattr(before, name) + share * getattr(after, name)
                assert getattr(scene, name) == pytest.approx(straight, abs=0.05), name


def test_a_part_left_out_is_gone_in_every_frame() -> None:
    for verb in VERBS:
        moving = doing(verb)
        part = KINDS[moving.scene.owner][0]
        whole, less = render_video(moving), render_video(moving.without(part))
        assert (whole != less).any((1, 2, 3)).all()


def test_captions_say_what_moves() -> None:
    rng = random.Random(2)
    known = {*WORDS, *VERBS}
    named = 0
    for moving in SCENES:
        words = moving_caption(moving, rng).split()
        assert known.issuperset(words)
        assert len(words) <= MAX_WORDS
        said = [word for word in words if word in VERBS]
        assert said in ([], [moving.verb])
        named += moving.verb in words
    moved = sum(moving.verb is not None for moving in SCENES)
    assert 0.8 < moved / len(SCENES) < 0.95
    assert named > 0.85 * moved
    assert not set(VERBS) & set(WORDS)


def test_training_never_shows_what_is_held_out() -> None:
    drawn = [(m.scene.owner, m.scene.colour, m.scene.place) for m in SCENES]
    assert not any(is_held_out(*combination) for combination in drawn)


def test_parts_alone_have_no_eyes_to_close() -> None:
    alone = [random_moving(random.Random(seed), alone=1.0) for seed in range(200)]
    assert all(moving.scene.kind is None and moving.verb != "blinking" for moving in alone)
    rng = random.Random(3)
    assert all(moving_caption(moving, rng).split()[0] in moving.scene.parts for moving in alone)


def test_the_judge_reads_single_frames() -> None:
    judge, right, count = Judge.load(), 0, 0
    for moving in SCENES[:120]:
        scenes = [moving.at(frame) for frame in (0, 6, 8, 11, 16)]
        for scene, seen in zip(scenes, judge([render(s) for s in scenes]), strict=True):
            told = (seen.kind, seen.colour, seen.place, seen.parts, seen.clean)
            right += told == (scene.kind, scene.colour, scene.place, scene.parts, True)
            count += 1
    assert right / count > 0.985
