"""Draws a scene as 64x64 pixels: flat colours, dark outlines, anti-aliased by drawing four times as large.

Coordinates are the object's own: the body lies in about [-1, 1] x [-1, 1], y points down, y = 1 is the
ground. Knows nothing of captions or models.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw

from vsf_lib.scenes.world import Scene

SIZE = 64
_OVER = 4
_UNIT = 0.36  # half the object's width as a fraction of the picture's

RGB: dict[str, tuple[int, int, int]] = {
    "red": (214, 48, 49),
    "orange": (240, 140, 30),
    "yellow": (250, 218, 70),
    "blue": (52, 110, 220),
    "purple": (140, 70, 180),
    "white": (244, 244, 244),
}
_INK = (38, 38, 46)
_TYRE = (50, 50, 58)
_GLASS = (170, 226, 240)
_LEAF = (60, 150, 70)
_BARK = (122, 80, 48)
_BEAK = (250, 160, 20)

Point = tuple[float, float]


class Pen:
    """Draws in the object's coordinates on the enlarged picture."""

    def __init__(self, image: Image.Image, scene: Scene) -> None:
        self._draw = ImageDraw.Draw(image)
        side = image.width
        self._unit = side * _UNIT * scene.scale
        self._origin = (side * (0.5 + scene.x), side * (0.53 + scene.y))
        self._sign = -1.0 if scene.flip else 1.0
        self._lean = scene.lean
        self._line = max(1, round(side / SIZE * 1.1))

    def _at(self, point: Point) -> Point:
        leant = point[0] + self._lean * (1.0 - point[1])
        return (
            self._origin[0] + self._sign * leant * self._unit,
            self._origin[1] + point[1] * self._unit,
        )

    def polygon(self, points: Sequence[Point], fill: tuple[int, int, int]) -> None:
        corners = [self._at(p) for p in points]
        self._draw.polygon(corners, fill=fill)
        self._draw.line([*corners, corners[0], corners[1]], fill=_INK, width=self._line, joint="curve")

    def box(self, left: float, top: float, right: float, bottom: float, fill: tuple[int, int, int]) -> None:
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], fill)

    def ellipse(self, x: float, y: float, rx: float, ry: float, fill: tuple[int, int, int] | None) -> None:
        cx, cy = self._at((x, y))
        frame = (cx - rx * self._unit, cy - ry * self._unit, cx + rx * self._unit, cy + ry * self._unit)
        self._draw.ellipse(frame, fill=fill, outline=_INK, width=self._line)

    def line(self, points: Sequence[Point], fill: tuple[int, int, int] = _INK, width: float = 1.0) -> None:
        self._draw.line(
            [self._at(p) for p in points], fill=fill, width=max(1, round(self._line * width)), joint="curve"
        )


def _leaf(x: float, y: float, dx: float, dy: float, width: float) -> list[Point]:
    """A leaf from (x, y) to (x+dx, y+dy)."""
    points: list[Point] = []
    for t in (0.0, 0.25, 0.5, 0.75, 1.0, 0.75, 0.5, 0.25):
        side = width * math.sin(math.pi * t) * (1 if len(points) <= 4 else -1)
        points.append((x + t * dx - side * dy, y + t * dy + side * dx))
    return points


Drawer = Callable[[Pen, Scene, random.Random], None]


def _draws(scene: Scene, part: str) -> bool:
    return part in scene.parts


def _car(pen: Pen, scene: Scene, rng: random.Random) -> None:
    body, cabin = RGB[scene.colour], rng.uniform(-0.1, 0.1)
    if scene.kind:
        pen.polygon(
            [(-0.55 + cabin, 0.05), (-0.35 + cabin, -0.45), (0.3 + cabin, -0.45), (0.55 + cabin, 0.05)], body
        )
        pen.box(-1.0, 0.0, 1.0, 0.55, body)
    if _draws(scene, "windows"):
        pen.polygon(
            [(-0.42 + cabin, 0.0), (-0.28 + cabin, -0.34), (-0.05 + cabin, -0.34), (-0.05 + cabin, 0.0)],
            _GLASS,
        )
        pen.polygon(
            [(0.04 + cabin, 0.0), (0.04 + cabin, -0.34), (0.24 + cabin, -0.34), (0.4 + cabin, 0.0)], _GLASS
        )
    if _draws(scene, "wheels"):
        for x in (-0.58, 0.58):
            pen.ellipse(x, 0.58, 0.27, 0.27, _TYRE)
            pen.ellipse(x, 0.58, 0.1, 0.1, (200, 200, 205))


def _house(pen: Pen, scene: Scene, rng: random.Random) -> None:
    colours = dict(scene.part_colours)
    if scene.kind:
        pen.box(-0.75, -0.2, 0.75, 0.85, RGB[scene.colour])
    if _draws(scene, "roof"):
        pen.polygon([(-0.95, -0.2), (0.0, -0.95 - rng.uniform(0, 0.1)), (0.95, -0.2)], RGB[colours["roof"]])
    if _draws(scene, "door"):
        pen.box(-0.2, 0.25, 0.16, 0.85, _BARK)
    if _draws(scene, "windows"):
        for x in (-0.48, 0.46):
            pen.box(x - 0.17, 0.02, x + 0.17, 0.36, _GLASS)


def _face(pen: Pen, scene: Scene, rng: random.Random) -> None:
    colours = dict(scene.part_colours)
    if scene.kind:
        pen.ellipse(0, 0.12, 0.72, 0.78, RGB[scene.colour])
        for x in (-0.28, 0.28):
            pen.ellipse(x, 0.0, 0.06, 0.08 * (1 - 0.9 * scene.shut), _INK)
        smile = rng.uniform(0.08, 0.18)
        pen.line([(-0.3, 0.45), (-0.12, 0.45 + smile), (0.12, 0.45 + smile), (0.3, 0.45)], width=1.3)
    if _draws(scene, "glasses"):
        for x in (-0.29, 0.29):
            pen.ellipse(x, 0.0, 0.25, 0.22, None if scene.kind else _GLASS)
            pen.ellipse(x, 0.0, 0.22, 0.19, None)
        pen.line([(-0.06, -0.02), (0.06, -0.02)], width=1.6)
    if _draws(scene, "hat"):
        pen.box(-0.48, -0.98, 0.48, -0.5, RGB[colours["hat"]])
        pen.box(-0.8, -0.54, 0.8, -0.38, RGB[colours["hat"]])


def _boat(pen: Pen, scene: Scene, rng: random.Random) -> None:
    colours = dict(scene.part_colours)
    if scene.kind:
        pen.line([(0.0, 0.3), (0.0, -0.85)], fill=_BARK, width=2.0)
        pen.polygon([(-0.95, 0.25), (0.95, 0.25), (0.6, 0.75), (-0.6, 0.75)], RGB[scene.colour])
    if _draws(scene, "sail"):
        pen.polygon([(0.07, -0.6), (0.07, 0.15), (0.75 + rng.uniform(-0.1, 0.1), 0.15)], RGB[colours["sail"]])
    if _draws(scene, "flag"):
        pen.polygon([(-0.02, -0.92), (-0.02, -0.5), (-0.5, -0.71)], RGB[colours["flag"]])


def _tree(pen: Pen, scene: Scene, rng: random.Random) -> None:
    if _draws(scene, "trunk"):
        pen.box(-0.17, 0.1, 0.17, 0.95, _BARK)
    if scene.kind:
        crown = RGB[scene.colour]
        wide = rng.uniform(0.68, 0.8)
        pen.ellipse(0, -0.28, wide, 0.64, crown)
    if _draws(scene, "apples"):
        fruit = (190, 30, 40) if scene.colour != "red" else (120, 200, 60)
        for x, y in ((-0.32, -0.4), (0.3, -0.5), (0.0, -0.08), (0.42, -0.06)):
            pen.ellipse(x, y, 0.12, 0.12, fruit)


def _flower(pen: Pen, scene: Scene, rng: random.Random) -> None:
    if _draws(scene, "stem"):
        pen.line([(0, -0.2), (0, 0.95)], fill=_INK, width=4.2)
        pen.line([(0, -0.2), (0, 0.95)], fill=_LEAF, width=2.6)
    if _draws(scene, "leaves"):
        for dx in (-0.62, 0.62):
            pen.polygon(_leaf(0, 0.78, dx, -0.36, 0.28), _LEAF)
    if scene.kind:
        turn = rng.uniform(0, 1.2)
        for i in range(5):
            angle = turn + i * math.tau / 5
            pen.ellipse(0.34 * math.cos(angle), -0.42 + 0.34 * math.sin(angle), 0.27, 0.27, RGB[scene.colour])
        pen.ellipse(0, -0.42, 0.2, 0.2, (250, 200, 60) if scene.colour != "yellow" else (150, 90, 40))


def _bird(pen: Pen, scene: Scene, rng: random.Random) -> None:
    if _draws(scene, "legs"):
        for x in (-0.2, 0.12):
            pen.line([(x, 0.4), (x, 0.93), (x + 0.16, 0.93)], fill=_BEAK, width=2.2)
    if scene.kind:
        body = RGB[scene.colour]
        pen.polygon([(-0.6, 0.0), (-1.0, -0.25 - rng.uniform(0, 0.15)), (-0.95, 0.2)], body)
        pen.ellipse(-0.1, 0.1, 0.62, 0.42, body)
        pen.ellipse(0.5, -0.32, 0.32, 0.3, body)
        pen.ellipse(0.58, -0.38, 0.05, 0.05, _INK)
    if _draws(scene, "beak"):
        pen.polygon([(0.76, -0.46), (1.12, -0.28), (0.76, -0.16)], _BEAK)


def _cat(pen: Pen, scene: Scene, rng: random.Random) -> None:
    fur = RGB[scene.colour]
    if _draws(scene, "tail"):
        path = [(0.5, 0.75), (0.88, 0.62), (0.98, 0.3), (0.86, 0.0 - rng.uniform(0, 0.12))]
        pen.line(path, fill=_INK, width=5.6)
        pen.line(path, fill=fur, width=3.8)
    if _draws(scene, "ears"):
        for s in (-1, 1):
            pen.polygon([(s * 0.48 - 0.1, -0.4), (s * 0.42 - 0.1, -0.98), (s * 0.06 - 0.1, -0.6)], fur)
    if scene.kind:
        pen.ellipse(0.05, 0.5, 0.58, 0.45, fur)
        pen.ellipse(-0.1, -0.25, 0.5, 0.44, fur)
        for x in (-0.28, 0.08):
            pen.ellipse(x, -0.3, 0.06, 0.08 * (1 - 0.9 * scene.shut), _INK)
        pen.polygon([(-0.17, -0.14), (-0.03, -0.14), (-0.1, -0.05)], (235, 130, 140))


def _robot(pen: Pen, scene: Scene, rng: random.Random) -> None:
    metal = RGB[scene.colour]
    if _draws(scene, "antenna"):
        pen.line([(0, -0.5), (0, -0.85)], fill=(128, 128, 140), width=2.4)
        pen.ellipse(0, -0.92, 0.13, 0.13, RGB[dict(scene.part_colours)["antenna"]])
    if _draws(scene, "arms"):
        hang = rng.uniform(0.4, 0.55)
        for s in (-1, 1):
            pen.polygon([(s * 0.4, 0.1), (s * 0.92, 0.1), (s * 0.92, hang), (s * 0.72, hang), (s * 0.72, 0.3),
                         (s * 0.4, 0.3)], metal)  # fmt: skip
    if scene.kind:
        for x in (-0.24, 0.24):
            pen.box(x - 0.13, 0.6, x + 0.13, 0.95, metal)
        pen.box(-0.48, 0.02, 0.48, 0.66, metal)
        pen.box(-0.42, -0.56, 0.42, 0.0, metal)
        for x in (-0.18, 0.18):
            pen.ellipse(x, -0.3, 0.09, 0.09, (255, 255, 200))
        pen.line([(-0.18, -0.12), (0.18, -0.12)], width=1.4)


def _fish(pen: Pen, scene: Scene, rng: random.Random) -> None:
    scales = RGB[scene.colour]
    if _draws(scene, "tail"):
        pen.polygon([(-0.5, 0.1), (-1.02, -0.35), (-0.9, 0.1), (-1.02, 0.55)], scales)
    if _draws(scene, "fin"):
        pen.polygon([(-0.25, -0.2), (-0.15, -0.78 - rng.uniform(0, 0.1)), (0.4, -0.2)], scales)
    if scene.kind:
        pen.ellipse(0.12, 0.1, 0.74, 0.44, scales)
        pen.ellipse(0.52, 0.0, 0.08, 0.08, (255, 255, 255))
        pen.ellipse(0.54, 0.0, 0.03, 0.03, _INK)
        pen.line([(0.28, -0.16), (0.2, 0.1), (0.28, 0.36)], width=1.2)


DRAWERS: dict[str, Drawer] = {
    "car": _car,
    "house": _house,
    "face": _face,
    "boat": _boat,
    "tree": _tree,
    "flower": _flower,
    "bird": _bird,
    "cat": _cat,
    "robot": _robot,
    "fish": _fish,
}


def _background(image: Image.Image, scene: Scene, rng: random.Random) -> None:
    draw, side = ImageDraw.Draw(image), image.width
    horizon = side * (0.62 + rng.uniform(-0.05, 0.05))
    sky, ground = {
        "field": ((170, 214, 245), (126, 190, 96)),
        "beach": ((196, 232, 250), (236, 214, 160)),
        "snow": ((190, 200, 214), (232, 240, 248)),
        "night": ((30, 34, 74), (62, 104, 90)),
    }[scene.place]
    draw.rectangle((0, 0, side, side), fill=sky)
    if scene.place == "beach":
        draw.rectangle((0, horizon - side * 0.14, side, horizon), fill=(76, 160, 210))
    draw.rectangle((0, horizon, side, side), fill=ground)
    if scene.place == "night":
        moon = rng.choice((0.12, 0.86)) * side
        draw.ellipse((moon - side * 0.06, side * 0.06, moon + side * 0.06, side * 0.18), fill=(250, 246, 200))
    elif scene.place == "field":
        cloud = rng.choice((0.14, 0.82)) * side
        for dx, r in ((-0.06, 0.04), (0.0, 0.055), (0.06, 0.04)):
            x, y = cloud + dx * side, side * 0.12
            draw.ellipse((x - r * side, y - r * side, x + r * side, y + r * side), fill=(255, 255, 255))


def render(scene: Scene) -> np.ndarray:
    """`scene` as uint8 `[64, 64, 3]`, RGB. The same scene is always the same pixels."""
    image = Image.new("RGB", (SIZE * _OVER, SIZE * _OVER))
    _background(image, scene, random.Random(scene.variation))
    DRAWERS[scene.owner](Pen(image, scene), scene, random.Random(scene.variation + 1))
    return np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BOX))
