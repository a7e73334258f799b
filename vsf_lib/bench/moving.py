"""`bench scenes --video`: negative prompts in videos of the small Wan, judged by frame and over time.

A video counts as what nearly all of its frames are: a part that flickers is not gone, and an object that
turns into another does not stay the same.
"""

from __future__ import annotations

import random
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from vsf_lib.adapters import guided
from vsf_lib.bench.drawing import Method
from vsf_lib.bench.pairs import Pair, make_pairs
from vsf_lib.bench.results import conditions, progress, write_json
from vsf_lib.bench.sheet import write_sheet
from vsf_lib.bench.subject import Subject
from vsf_lib.errors import SettingsError
from vsf_lib.presets import baseline
from vsf_lib.scenes.judge import Judge, Verdict
from vsf_lib.scenes.model import SIZE
from vsf_lib.scenes.motion import FRAMES, MOVES
from vsf_lib.scenes.world import PLACES
from vsf_lib.settings import Settings

NEARLY = 0.9
"""Of a video's frames: the judge is wrong now and then, and a frame in 17 may be between two things."""
BATCH = 10
COUNT = 60
ALPHAS = (1.0, 2.0, 3.0, 4.0, 6.0)
_COLUMNS = ("positive", "negative", "quality", "steady", "frames+", "frames-")
_SHOWN = (0, FRAMES // 2, FRAMES - 1)
"""Frames on the sheet."""


def check(args: Namespace) -> None:
    """Raises SettingsError for a flag that videos have no use for."""
    if args.plot is not None:
        raise SettingsError("--plot is for --curves: --video prints a table and writes a sheet")


def moving_pairs(count: int = COUNT, seed: int = 2026) -> list[Pair]:
    """The table's held-out pairs with a verb in each prompt."""
    rng = random.Random(seed)
    pairs = []
    for pair in make_pairs(count, seed=seed):
        place = PLACES[pair.place]
        verb = rng.choice(MOVES[pair.kind])
        pairs.append(replace(pair, prompt=f"{pair.prompt.removesuffix(place)}{verb} {place}"))
    return pairs


@dataclass(frozen=True)
class Moved:
    """What the judge sees in one video, as shares of its frames."""

    positive: float
    negative: float
    quality: float
    steady: float
    """Frames with the object and colour that most frames have."""

    @classmethod
    def of(cls, pair: Pair, frames: Sequence[Verdict]) -> Moved:
        """From the judge's verdicts on all frames."""
        objects = [(seen.kind, seen.colour) for seen in frames]
        rows = [(pair.positive(seen), pair.negative(seen), seen.clean) for seen in frames]
        positive, negative, quality = np.array(rows, dtype=float).mean(0).tolist()
        return cls(positive, negative, quality, max(map(objects.count, objects)) / len(objects))


def summary(videos: Sequence[Moved]) -> dict[str, float]:
    """Shares of videos whose frames are nearly all so; the last two are shares of frames."""
    shares = np.array([(v.positive, v.negative, v.quality, v.steady) for v in videos])
    whole = (shares >= NEARLY).mean(0)
    values = [*whole.tolist(), *shares.mean(0)[:2].tolist()]
    return {name: round(value, 4) for name, value in zip(_COLUMNS, values, strict=True)}


def methods() -> list[Method]:
    """None, NAG, and VSF and the difference over their strength."""
    found = [Method("none", Settings(method="off"))]
    found += [Method(name, baseline(name).settings()) for name in ("nag", "nag-strong")]
    for name in ("vsf", "difference"):
        for tokens in ("all", "words"):
            for alpha in ALPHAS:
                settings = Settings(method=name, alpha=alpha, beta=0.0, negative_tokens=tokens)
                found.append(Method(f"{name} {tokens}", settings))
    return found


def film(pipe: Any, pairs: Sequence[Pair], method: Method, *, seed: int, steps: int) -> np.ndarray:
    """Videos uint8 `[len(pairs), 17, 64, 64, 3]`; each depends on its own seed alone."""
    videos = []
    for start in range(0, len(pairs), BATCH):
        chunk = pairs[start : start + BATCH]
        seeds = [1_000_003 * seed + start + i for i in range(len(chunk))]
        with guided(pipe, method.settings, [pair.negative_prompt for pair in chunk]):
            made = pipe(
                [pair.prompt for pair in chunk],
                height=SIZE,
                width=SIZE,
                num_frames=FRAMES,
                num_inference_steps=steps,
                guidance_scale=1.0,
                generator=[torch.Generator().manual_seed(number) for number in seeds],
                output_type="np",
            ).frames
        videos.append((np.asarray(made) * 255).round().astype(np.uint8))
    return np.concatenate(videos)


def judged(judge: Judge, pairs: Sequence[Pair], videos: np.ndarray) -> list[Moved]:
    """What the judge sees in each of `film`'s videos."""
    return [Moved.of(pair, judge(frames)) for pair, frames in zip(pairs, videos, strict=True)]


def run(args: Namespace, subject: Subject) -> None:
    """Makes the videos, prints the table, writes the sheet."""
    pairs = moving_pairs(args.pairs or (10 if args.quick else COUNT))
    seeds = range(1, (args.seeds or 1) + 1)
    scores: dict[str, Any] = {}
    rows = []
    asked = methods()
    for number, method in enumerate(asked, start=1):
        films = [film(subject.pipe, pairs, method, seed=seed, steps=subject.steps) for seed in seeds]
        seen = [moved for videos in films for moved in judged(subject.judge, pairs, videos)]
        name = f"{method.name} {method.settings.alpha:g}" if " " in method.name else method.name
        scores[name] = summary(seen) | {"values": method.describe()}
        rows.append((name, np.concatenate(films[0][:6, _SHOWN])))
        progress(number, len(asked), f"{name} {scores[name]}")
    described = conditions(subject.model, len(pairs), len(seeds), subject.steps)
    result = {"study": "video", **described, "methods": scores}
    print(table(result))
    if args.json is not None:
        write_json(args.json, result)
    titles = [f"{pair.prompt}\nnot {pair.negative_prompt}" for pair in pairs[:6] for _ in _SHOWN]
    write_sheet(args.sheet, rows, titles)
    print(f"contact sheet: {args.sheet}")


def table(result: dict[str, Any]) -> str:
    """The scores as text."""
    lines = [f"{'method':<20}" + "".join(f" {name:>8}" for name in _COLUMNS) + "  values"]
    for name, row in result["methods"].items():
        cells = "".join(f" {row[column]:8.3f}" for column in _COLUMNS)
        lines.append(f"{name:<20}{cells}  {row['values']}")
    lines.append(
        f"{result['pairs']} held-out prompts x {result['seeds']} seeds, {FRAMES} frames, {result['steps']} "
        f"steps; a video counts where {NEARLY:.0%} of its frames do; torch {result['versions']['torch']}, "
        f"diffusers {result['versions']['diffusers']}"
    )
    return "\n".join(lines)
