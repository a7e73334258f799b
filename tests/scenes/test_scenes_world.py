"""The world: what is kept from training, how often parts are there, what captions may say."""

from __future__ import annotations

import random
from collections import Counter
from itertools import product

import pytest

from vsf_lib.errors import PromptError
from vsf_lib.scenes.model import MAX_WORDS, check_words
from vsf_lib.scenes.training.common import training_scenes
from vsf_lib.scenes.training.judge import judge_scenes
from vsf_lib.scenes.world import (
    COLOURS,
    KINDS,
    PARTS,
    PLACES,
    WORDS,
    caption,
    is_held_out,
    noun_phrase,
    random_scene,
)

TRAINING = training_scenes(3000, 1)


def test_world_is_as_large_as_asked_for() -> None:
    assert len(KINDS) >= 8
    assert all(len(parts) >= 2 for parts in KINDS.values())
    assert len(COLOURS) >= 3
    assert len(PLACES) >= 3


def test_training_never_shows_what_is_held_out() -> None:
    assert not any(is_held_out(s.owner, s.colour, s.place) for s in TRAINING)


def test_training_shows_all_the_rest() -> None:
    allowed = {c for c in product(KINDS, COLOURS, PLACES) if not is_held_out(*c)}
    assert {(s.owner, s.colour, s.place) for s in TRAINING} == allowed


def test_every_kind_colour_and_place_is_held_out_somewhere() -> None:
    held = [c for c in product(KINDS, COLOURS, PLACES) if is_held_out(*c)]
    share = len(held) / (len(KINDS) * len(COLOURS) * len(PLACES))
    assert 0.1 < share < 0.3
    for place, names in enumerate((KINDS, COLOURS, PLACES)):
        assert {c[place] for c in held} == set(names)


def test_held_out_scenes_are_drawn_on_demand() -> None:
    rng = random.Random(2)
    scenes = [random_scene(rng, held_out=True) for _ in range(500)]
    assert all(is_held_out(s.owner, s.colour, s.place) for s in scenes)
    assert {s.kind for s in scenes} == set(KINDS)


def test_seed_is_a_scene() -> None:
    assert training_scenes(20, 5) == training_scenes(20, 5)
    assert training_scenes(20, 5) != training_scenes(20, 6)


def test_parts_are_nearly_always_there() -> None:
    whole = [s for s in TRAINING if s.kind is not None]
    there = sum(len(s.parts) for s in whole) / sum(len(KINDS[s.owner]) for s in whole)
    assert 0.86 < there < 0.9


def test_a_scene_has_only_its_own_parts() -> None:
    for scene in TRAINING:
        assert scene.parts <= set(KINDS[scene.owner])
        assert scene.kind in (scene.owner, None)
        assert {part for part, _ in scene.part_colours} == set(KINDS[scene.owner])


def test_a_lone_part_is_one_part_without_its_object() -> None:
    alone = [s for s in TRAINING if s.kind is None]
    assert 0.07 < len(alone) / len(TRAINING) < 0.13
    assert all(len(s.parts) == 1 for s in alone)
    assert {part for s in alone for part in s.parts} == set(PARTS)


def test_without_takes_away_and_changes_nothing_else() -> None:
    scene = next(s for s in TRAINING if s.kind == "house" and len(s.parts) == 3)
    less = scene.without("roof", "wheels")
    assert less.parts == {"door", "windows"}
    assert scene.parts == {"roof", "door", "windows"}
    assert (less.x, less.y, less.scale, less.variation) == (scene.x, scene.y, scene.scale, scene.variation)


def test_captions_use_known_words_and_fit() -> None:
    rng = random.Random(3)
    for scene in TRAINING:
        text = caption(scene, rng)
        words = text.split()
        assert words, scene
        assert set(words) <= set(WORDS), text
        assert len(words) <= MAX_WORDS
        check_words(text, "caption")


def test_captions_name_no_absent_part() -> None:
    rng = random.Random(4)
    missing = 0
    for scene in judge_scenes(3000, 4):
        named = set(caption(scene, rng).split()) & set(PARTS)
        assert named <= scene.parts
        missing += scene.kind is not None and scene.parts != set(KINDS[scene.owner])
    assert missing > 1000, "too few scenes without a part to tell"


def test_captions_often_do_not_name_the_parts_that_are_there() -> None:
    rng = random.Random(5)
    kinds: Counter[str] = Counter()
    for scene in TRAINING:
        if scene.kind is None:
            continue
        text = caption(scene, rng)
        if text in PARTS:
            kinds["bare part"] += 1
        else:
            assert scene.kind in text.split()
            kinds["named" if set(text.split()) & set(PARTS) else "silent"] += 1
    total = kinds.total()
    assert 0.4 < kinds["silent"] / total < 0.55
    assert 0.4 < kinds["named"] / total < 0.55
    assert 0.03 < kinds["bare part"] / total < 0.1, "a lone negative must be text of a known kind"


def test_captions_of_lone_parts_do_not_name_the_object() -> None:
    rng = random.Random(6)
    for scene in (s for s in TRAINING if s.kind is None):
        words = set(caption(scene, rng).split())
        assert not words & set(KINDS)
        assert words & scene.parts


@pytest.mark.parametrize(
    ("kind", "colour", "text"),
    [("car", "red", "a red car"), ("cat", "orange", "an orange cat"), ("house", None, "a house")],
)
def test_noun_phrase(kind: str, colour: str | None, text: str) -> None:
    assert noun_phrase(kind, colour) == text


@pytest.mark.parametrize(
    "text", ["wheels", "A RED CAR, on a field", "a car with wheels at night", "A car. A cat!", "a car?!", ""]
)
def test_known_words_pass(text: str) -> None:
    check_words(text, "prompt")


@pytest.mark.parametrize(
    ("text", "word"), [("a green car", "green"), ("a car (red)", "("), ("a car ,, a cat", ",,")]
)
def test_unknown_words_are_named_and_the_known_listed(text: str, word: str) -> None:
    with pytest.raises(PromptError, match="negative prompt") as caught:
        check_words(text, "negative prompt")
    message = str(caught.value)
    assert repr(word) in message
    for known in (*KINDS, *PARTS, *COLOURS, *PLACES.values()):
        assert known in message


@pytest.mark.parametrize("text", [".", " ?! "])
def test_signs_alone_are_no_prompt(text: str) -> None:
    with pytest.raises(PromptError, match=r"negative prompt is '.+', which has no word in it"):
        check_words(text, "negative prompt")


def test_too_many_words_are_refused() -> None:
    check_words(". ".join(["red"] * MAX_WORDS) + "...", "prompt")
    check_words(" ".join(["red"] * MAX_WORDS), "prompt")
    with pytest.raises(PromptError, match=str(MAX_WORDS + 1)):
        check_words(" ".join(["red"] * (MAX_WORDS + 1)), "prompt")
