"""The renderer: same scene, same pixels; every part can be seen, and only where it belongs."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest

from vsf_lib.scenes.draw import DRAWERS, SIZE, render
from vsf_lib.scenes.world import COLOURS, KINDS, PLACES, Scene, random_scene

# Where each part may change pixels, in the object's coordinates: left, top, right, bottom.
REGIONS: dict[tuple[str, str], tuple[float, float, float, float]] = {
    ("car", "wheels"): (-0.85, 0.31, 0.85, 0.85),
    ("car", "windows"): (-0.52, -0.34, 0.5, 0.0),
    ("house", "roof"): (-0.95, -1.05, 0.95, -0.2),
    ("house", "door"): (-0.2, 0.25, 0.16, 0.85),
    ("house", "windows"): (-0.65, 0.02, 0.63, 0.36),
    ("face", "glasses"): (-0.54, -0.22, 0.54, 0.22),
    ("face", "hat"): (-0.8, -0.98, 0.8, -0.38),
    ("boat", "sail"): (0.07, -0.6, 0.85, 0.15),
    ("boat", "flag"): (-0.5, -0.92, -0.02, -0.5),
    ("tree", "trunk"): (-0.17, 0.1, 0.17, 0.95),
    ("tree", "apples"): (-0.44, -0.62, 0.54, 0.06),
    ("flower", "stem"): (-0.1, -0.2, 0.1, 0.95),
    ("flower", "leaves"): (-0.65, 0.3, 0.65, 0.85),
    ("bird", "legs"): (-0.22, 0.4, 0.28, 0.97),
    ("bird", "beak"): (0.76, -0.46, 1.12, -0.16),
    ("cat", "ears"): (-0.58, -0.98, 0.38, -0.4),
    ("cat", "tail"): (0.45, -0.2, 1.06, 0.83),
    ("robot", "antenna"): (-0.13, -1.05, 0.13, -0.5),
    ("robot", "arms"): (-0.92, 0.1, 0.92, 0.55),
    ("fish", "fin"): (-0.25, -0.88, 0.4, -0.2),
    ("fish", "tail"): (-1.02, -0.35, -0.5, 0.55),
}
MARGIN = 2.0
"""Pixels around a region that outlines and anti-aliasing may reach."""
SEEN = 24
"""A pixel has changed visibly when a channel did by more than this."""
ENOUGH = 20
"""Fewest visibly changed pixels of 4096 that count as a part."""


def whole(kind: str, colour: str, place: str, rng: random.Random, part_colour: str | None = None) -> Scene:
    scene = random_scene(rng, held_out=None)
    return replace(
        scene,
        kind=kind,
        owner=kind,
        colour=colour,
        place=place,
        parts=frozenset(KINDS[kind]),
        part_colours=tuple((part, part_colour or rng.choice(COLOURS)) for part in KINDS[kind]),
    )


def difference(one: Scene, other: Scene) -> np.ndarray:
    """Largest channel difference `[64, 64]`."""
    return np.abs(render(one).astype(int) - render(other).astype(int)).max(2)


def outside(scene: Scene, region: tuple[float, float, float, float]) -> np.ndarray:
    """Mask `[64, 64]` of the pixels beyond `region` and its margin."""
    unit = 0.36 * SIZE * scene.scale
    left, right = region[0], region[2]
    if scene.flip:
        left, right = -right, -left
    xs = np.arange(SIZE) + 0.5 - SIZE * (0.5 + scene.x)
    ys = np.arange(SIZE) + 0.5 - SIZE * (0.53 + scene.y)
    columns = (xs < left * unit - MARGIN) | (xs > right * unit + MARGIN)
    rows = (ys < region[1] * unit - MARGIN) | (ys > region[3] * unit + MARGIN)
    return rows[:, None] | columns[None, :]


def test_every_part_has_a_region_here() -> None:
    assert set(REGIONS) == {(kind, part) for kind, parts in KINDS.items() for part in parts}
    assert set(DRAWERS) == set(KINDS)


def test_shape() -> None:
    picture = render(whole("car", "red", "field", random.Random(0)))
    assert picture.shape == (SIZE, SIZE, 3)
    assert picture.dtype == np.uint8


def test_same_scene_same_pixels() -> None:
    rng = random.Random(1)
    for kind in KINDS:
        scene = whole(kind, rng.choice(COLOURS), rng.choice(list(PLACES)), rng)
        assert np.array_equal(render(scene), render(replace(scene)))


@pytest.mark.parametrize(("kind", "part"), list(REGIONS))
def test_a_part_is_seen_on_every_place_and_colour(kind: str, part: str) -> None:
    """Also where it shares the object's colour: the outline tells."""
    rng = random.Random(f"{kind} {part}")
    for colour, place in product(COLOURS, PLACES):
        for part_colour in (colour, rng.choice(COLOURS)):
            scene = whole(kind, colour, place, rng, part_colour)
            changed = difference(scene, scene.without(part))
            seen = int((changed > SEEN).sum())
            assert seen >= ENOUGH, f"{seen} pixels on {scene}"
            assert not changed[outside(scene, REGIONS[kind, part])].any(), scene


@pytest.mark.parametrize(("kind", "part"), list(REGIONS))
def test_a_part_is_seen_at_the_edge_of_the_picture(kind: str, part: str) -> None:
    rng = random.Random(2)
    for x, y, scale, flip in product((-0.12, 0.12), (-0.06, 0.08), (0.82, 1.05), (False, True)):
        scene = replace(whole(kind, "purple", "night", rng), x=x, y=y, scale=scale, flip=flip)
        assert (difference(scene, scene.without(part)) > SEEN).sum() >= ENOUGH, scene


@pytest.mark.parametrize(("kind", "part"), list(REGIONS))
def test_a_lone_part_is_drawn_without_its_object(kind: str, part: str) -> None:
    rng = random.Random(3)
    scene = replace(whole(kind, "orange", "snow", rng), kind=None, parts=frozenset({part}))
    changed = difference(scene, scene.without(part))
    assert (changed > SEEN).sum() >= ENOUGH
    assert not changed[outside(scene, REGIONS[kind, part])].any()


def test_kinds_differ() -> None:
    """In one pose, colour and place, and without the parts: the objects alone."""
    bare = [
        replace(whole(kind, "blue", "field", random.Random(4)), parts=frozenset(), x=0.0, y=0.0, scale=1.0)
        for kind in KINDS
    ]
    for one, other in combinations([replace(scene, variation=9, flip=False) for scene in bare], 2):
        assert (difference(one, other) > SEEN).sum() > 200, (one.kind, other.kind)


@pytest.mark.parametrize("field", ["colour", "place", "x", "flip", "variation"])
def test_everything_in_a_scene_is_seen(field: str) -> None:
    other = {"colour": "blue", "place": "snow", "x": 0.1, "flip": True, "variation": 8}[field]
    scene = replace(whole("bird", "red", "field", random.Random(5)), x=-0.1, flip=False, variation=7)
    assert (difference(scene, replace(scene, **{field: other})) > SEEN).any()


def test_colours_and_places_differ() -> None:
    scene = whole("car", "red", "field", random.Random(6))
    for one, other in combinations(COLOURS, 2):
        assert (difference(replace(scene, colour=one), replace(scene, colour=other)) > SEEN).sum() > 200
    for one, other in combinations(PLACES, 2):
        assert (difference(replace(scene, place=one), replace(scene, place=other)) > SEEN).sum() > 1000
