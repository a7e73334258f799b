"""Scenes that move: what moves how, its frames, and captions with a verb.

Like world.py it is data and sampling; a moving scene is one drawing and how it goes on. What happens between
two keyframes follows from these, because a video's latents know no others.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace

import numpy as np

from vsf_lib.scenes.draw import render
from vsf_lib.scenes.world import PLACES, Scene, noun_phrase, random_scene

FRAMES = 17
STRIDE = 4
"""Frames from one keyframe to the next."""
KEYFRAMES = FRAMES // STRIDE + 1
MOVES: dict[str, tuple[str, ...]] = {
    "car": ("driving",),
    "house": ("growing",),
    "face": ("blinking",),
    "boat": ("sailing",),
    "tree": ("swaying", "growing"),
    "flower": ("swaying", "growing"),
    "bird": ("flying",),
    "cat": ("jumping", "blinking"),
    "robot": ("jumping",),
    "fish": ("swimming",),
}
VERBS: tuple[str, ...] = tuple(dict.fromkeys(verb for verbs in MOVES.values() for verb in verbs))
STILL = 0.12
"""How many scenes do not move; their captions have no verb."""
PRESENT = 0.8
"""How often a part is there: less often than in pictures, so that a video without it is not unheard of."""


@dataclass(frozen=True)
class Moving:
    """A scene, what it does, and how: `speed` 0.7 to 1, `beat` where in time it does it."""

    scene: Scene
    verb: str | None
    speed: float
    beat: int

    def without(self, *parts: str) -> Moving:
        """The same less the named parts."""
        return replace(self, scene=self.scene.without(*parts))

    def at(self, frame: int) -> Scene:
        """The drawing of one frame, from 0."""
        scene, time = self.scene, frame / (FRAMES - 1)
        ahead = -1.0 if scene.flip else 1.0
        glide = ahead * 0.22 * self.speed * (time - 0.5)
        wave = math.sin(math.tau * (time + self.beat / 4))
        match self.verb:
            case "driving":
                return replace(scene, x=glide)
            case "sailing":
                return replace(scene, x=0.8 * glide, lean=0.12 * self.speed * wave)
            case "flying":
                return replace(scene, x=glide, y=scene.y * 0.4 - 0.05 * self.speed * wave)
            case "swimming":
                return replace(scene, x=glide, y=scene.y * 0.6 - 0.025 * self.speed * wave)
            case "jumping":
                return replace(scene, y=0.05 - 0.1 * self.speed * math.sin(math.pi * time))
            case "blinking":
                shut = max(0.0, 1 - abs(frame - STRIDE * self.beat) / STRIDE)
                return replace(scene, shut=shut)
            case "swaying":
                return replace(scene, lean=0.22 * self.speed * wave)
            case "growing":
                return replace(scene, scale=0.82 + 0.23 * self.speed * time)
            case _:
                return scene

    def keyframes(self) -> list[Scene]:
        """The drawings that a video's latents stand for."""
        return [self.at(frame) for frame in range(0, FRAMES, STRIDE)]


def random_moving(rng: random.Random, *, held_out: bool | None = False, alone: float = 0.0) -> Moving:
    """A moving scene of `world.random_scene`'s kind."""
    scene = random_scene(rng, held_out=held_out, alone=alone, present=PRESENT)
    verb = None if rng.random() < STILL else rng.choice(MOVES[scene.owner])
    if verb == "blinking" and scene.kind is None:
        verb = None  # parts alone have no eyes
    return Moving(scene, verb, rng.uniform(0.7, 1.0), rng.choice((1, 2, 3)))


def moving_caption(moving: Moving, rng: random.Random) -> str:
    """One of the ways to say what it shows: those of `world.caption` with the verb behind the object."""
    scene, verb = moving.scene, moving.verb
    doing = f" {verb}" if verb else ""
    parts = sorted(scene.parts)
    rng.shuffle(parts)
    if scene.kind is None:
        words = " and ".join(parts) + (doing if rng.random() < 0.3 else "")
        return words if rng.random() < 0.7 else f"{words} {PLACES[scene.place]}"
    if parts and rng.random() < 0.06:
        return rng.choice(parts)
    text = noun_phrase(scene.kind, scene.colour if rng.random() < 0.92 else None)
    if parts and rng.random() < 0.5:
        text += " with " + " and ".join(parts[: rng.choice((1, 1, 2))])
    text += doing
    return f"{text} {PLACES[scene.place]}" if rng.random() < 0.92 else text


def render_video(moving: Moving, frames: int = FRAMES) -> np.ndarray:
    """Its first frames as uint8 `[frames, 64, 64, 3]`. The same scene is always the same pixels."""
    return np.stack([render(moving.at(frame)) for frame in range(frames)])
