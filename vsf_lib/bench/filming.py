"""Makes videos of the small Wan by one method, and says what they show by frame and over time.

A video counts as what nearly all of its frames are: a part that flickers is not gone, and an object that
turns into another does not stay the same. Owns prompts, the making and the scores; knows no course or table.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from vsf_lib.adapters import guided
from vsf_lib.bench.drawing import Method
from vsf_lib.bench.pairs import Pair, make_pairs
from vsf_lib.scenes.judge import Verdict
from vsf_lib.scenes.model import SIZE, WAN_LORA_NAME
from vsf_lib.scenes.motion import FRAMES, MOVES
from vsf_lib.scenes.world import PLACES

NEARLY = 0.9
"""Of a video's frames: the judge is wrong now and then, and a frame in 17 may be between two things."""
BATCH = 10
WHOLE = ("positive", "negative", "quality", "steady")
"""The scores that count videos; the others are means."""
COLUMNS = (*WHOLE, "flips", "flicker")

Judging = Callable[[np.ndarray], Sequence[Verdict]]


def moving_pairs(count: int, *, held_out: bool = True, seed: int = 2026) -> list[Pair]:
    """The pairs of `pairs.make_pairs` with a verb in each prompt."""
    rng = random.Random(seed)
    pairs = []
    for pair in make_pairs(count, held_out=held_out, seed=seed):
        place = PLACES[pair.place]
        verb = rng.choice(MOVES[pair.kind])
        pairs.append(replace(pair, prompt=f"{pair.prompt.removesuffix(place)}{verb} {place}"))
    return pairs


@dataclass(frozen=True)
class Moved:
    """What one video shows."""

    positive: float
    """The share of its frames that show all that the prompt names."""
    negative: float
    """That without the part."""
    quality: float
    """That of clean drawings."""
    steady: float
    """That with the object and colour that most frames have."""
    flips: float
    """How often the part comes or goes between a frame and the next."""
    flicker: float
    """Mean of |x(t-1) - 2 x(t) + x(t+1)| / 255: what even motion has little of, and flickering much."""

    @classmethod
    def of(cls, pair: Pair, seen: Sequence[Verdict], frames: np.ndarray) -> Moved:
        """From the judge's verdicts on all frames, and the frames uint8 `[n, h, w, 3]`."""
        objects = [(verdict.kind, verdict.colour) for verdict in seen]
        gone = [pair.negative(verdict) for verdict in seen]
        shares = [[pair.positive(verdict) for verdict in seen], gone, [verdict.clean for verdict in seen]]
        positive, negative, quality = np.array(shares, dtype=float).mean(1).tolist()
        return cls(
            positive,
            negative,
            quality,
            steady=max(map(objects.count, objects)) / len(objects),
            flips=float(sum(before != after for before, after in pairwise(gone))),
            flicker=float(np.abs(np.diff(frames.astype(float), n=2, axis=0)).mean() / 255),
        )

    def row(self) -> list[float]:
        """The scores in the order of COLUMNS; those in WHOLE are 1 where nearly all frames are so, else 0."""
        return [
            float(value >= NEARLY) if name in WHOLE else value
            for name, value in ((name, getattr(self, name)) for name in COLUMNS)
        ]


@dataclass(frozen=True)
class Take:
    """How a video is made: a method, and the model's own settings."""

    method: Method
    steps: int
    lora: float = 1.0
    """The weight of the LoRA for few steps; 0 is without it."""

    @property
    def name(self) -> str:
        """For tables."""
        return self.method.name

    def describe(self) -> str:
        """Its values in a few words."""
        values = [] if self.method.describe() == "-" else [self.method.describe()]
        lora = "no LoRA" if self.lora == 0 else f"LoRA {self.lora:g}"
        return ", ".join([*values, f"{self.steps} steps, {lora}"])


def film(pipe: Any, pairs: Sequence[Pair], take: Take, *, seed: int) -> np.ndarray:
    """Videos uint8 `[len(pairs), 17, 64, 64, 3]`; each depends on its own seed alone."""
    pipe.set_adapters(WAN_LORA_NAME, take.lora)
    videos = []
    for start in range(0, len(pairs), BATCH):
        chunk = pairs[start : start + BATCH]
        seeds = [1_000_003 * seed + start + i for i in range(len(chunk))]
        negatives = [pair.negative_prompt for pair in chunk]
        by_passes: dict[str, Any] = {"guidance_scale": take.method.guidance_scale}
        if take.method.guidance_scale > 1:
            by_passes["negative_prompt"] = negatives
        with guided(pipe, take.method.settings, negatives):
            made = pipe(
                [pair.prompt for pair in chunk],
                height=SIZE,
                width=SIZE,
                num_frames=FRAMES,
                num_inference_steps=take.steps,
                generator=[torch.Generator().manual_seed(number) for number in seeds],
                output_type="np",
                **by_passes,
            ).frames
        videos.append((np.asarray(made) * 255).round().astype(np.uint8))
    return np.concatenate(videos)


def judged(judge: Judging, pairs: Sequence[Pair], videos: np.ndarray) -> list[Moved]:
    """What the judge sees in each of `film`'s videos."""
    return [Moved.of(pair, judge(frames), frames) for pair, frames in zip(pairs, videos, strict=True)]


def summary(videos: Sequence[Moved]) -> dict[str, float]:
    """COLUMNS: shares of videos whose frames are nearly all so, and means over videos of the others."""
    means = np.array([video.row() for video in videos]).mean(0).tolist()
    return {name: round(value, 4) for name, value in zip(COLUMNS, means, strict=True)}
