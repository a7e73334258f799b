"""What the little world holds: kinds of object, removable parts, colours, places, and captions of them.

Pure data and sampling; knows nothing of pixels (draw.py), of models or of guidance. Everything random comes
from the caller's `random.Random`, so that a seed is a scene.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

KINDS: dict[str, tuple[str, ...]] = {
    "car": ("wheels", "windows"),
    "house": ("roof", "door", "windows"),
    "face": ("glasses", "hat"),
    "boat": ("sail", "flag"),
    "tree": ("trunk", "apples"),
    "flower": ("stem", "leaves"),
    "bird": ("legs", "beak"),
    "cat": ("ears", "tail"),
    "robot": ("antenna", "arms"),
    "fish": ("fin", "tail"),
}
PARTS: tuple[str, ...] = tuple(dict.fromkeys(part for parts in KINDS.values() for part in parts))
COLOURS: tuple[str, ...] = ("red", "orange", "yellow", "blue", "purple", "white")
PLACES: dict[str, str] = {
    "field": "on a field",
    "beach": "on a beach",
    "snow": "in the snow",
    "night": "at night",
}
PUNCTUATION = ".!?;:\u2026"
"""Signs that people end and divide sentences with; to the models they are a space. (The comma is a word.)"""
WORDS: tuple[str, ...] = tuple(
    dict.fromkeys(
        [*KINDS, *PARTS, *COLOURS, "a", "an", "the", "with", "and", "on", "in", "at", *PLACES, "snow", ","]
    )
)

PART_PRESENT = 0.88
"""How often a part that could be there is there: nearly always, though captions often do not say so."""


@dataclass(frozen=True)
class Scene:
    """One drawing. `kind` None draws the parts alone, as if the object that carries them were invisible."""

    kind: str | None
    parts: frozenset[str]
    colour: str
    place: str
    owner: str
    """The kind whose geometry is used; equals `kind` unless that is None."""
    part_colours: tuple[tuple[str, str], ...]
    x: float
    y: float
    scale: float
    flip: bool
    variation: int
    """Seed of the small differences that no caption names: proportions, stars, clouds."""
    lean: float = 0.0
    """How far the top leans over, in units of the height above the ground."""
    shut: float = 0.0
    """How far the eyes are closed, 0 to 1."""

    def without(self, *parts: str) -> Scene:
        """The same drawing less the named parts."""
        return replace(self, parts=self.parts - set(parts))


def is_held_out(kind: str, colour: str, place: str) -> bool:
    """Whether this combination is kept from training, so that the benchmark asks for what was never seen."""
    k, c, p = list(KINDS).index(kind), COLOURS.index(colour), list(PLACES).index(place)
    return (k + 2 * c + 3 * p) % 5 == 0


def random_scene(
    rng: random.Random,
    *,
    held_out: bool | None = False,
    alone: float = 0.0,
    present: float = PART_PRESENT,
) -> Scene:
    """A scene. `held_out` picks the combinations allowed (None: all); `alone` is the share of bare parts.

    `present` is how often a part that could be there is.
    """
    while True:
        owner, colour, place = rng.choice(list(KINDS)), rng.choice(COLOURS), rng.choice(list(PLACES))
        if held_out is None or is_held_out(owner, colour, place) == held_out:
            break
    bare = rng.random() < alone
    if bare:
        parts = frozenset({rng.choice(KINDS[owner])})
    else:
        parts = frozenset(part for part in KINDS[owner] if rng.random() < present)
    return Scene(
        kind=None if bare else owner,
        parts=parts,
        colour=colour,
        place=place,
        owner=owner,
        part_colours=tuple((part, rng.choice(COLOURS)) for part in KINDS[owner]),
        x=rng.uniform(-0.12, 0.12),
        y=rng.uniform(-0.06, 0.08),
        scale=rng.uniform(0.82, 1.05),
        flip=rng.random() < 0.5,
        variation=rng.randrange(1 << 30),
    )


def article(word: str) -> str:
    """The indefinite article before `word`."""
    return "an" if word[0] in "aeiou" else "a"


def noun_phrase(kind: str, colour: str | None) -> str:
    """Such as "a red car", "an orange cat" or "a car"."""
    words = [colour, kind] if colour else [kind]
    return " ".join([article(words[0]), *words])


def caption(scene: Scene, rng: random.Random) -> str:
    """One of the ways to say what `scene` shows. Parts are named in some captions only, absent ones never.

    A part alone, or sometimes a whole object, is captioned by the bare part word: a lone negative prompt
    ("wheels") is then text of a kind that the text encoders and the transformer have seen.
    """
    place = PLACES[scene.place]
    parts = sorted(scene.parts)
    rng.shuffle(parts)
    if scene.kind is None:
        words = " and ".join(parts)
        return words if rng.random() < 0.7 else f"{words} {place}"
    if parts and rng.random() < 0.06:
        return rng.choice(parts)
    text = noun_phrase(scene.kind, scene.colour if rng.random() < 0.92 else None)
    if parts and rng.random() < 0.5:
        text += " with " + " and ".join(parts[: rng.choice((1, 1, 2))])
    return f"{text} {place}" if rng.random() < 0.92 else text
