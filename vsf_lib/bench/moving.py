"""`bench scenes --video`: negative prompts in videos of the small Wan, with sweeps of what a user can set.

Owns the course, the JSON, the table and the sheet; how videos are made and scored stands in filming.py.
Values are chosen on combinations that training has seen; the table is on those it has not.
"""

from __future__ import annotations

import random
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vsf_lib.bench.bootstrap import BANDS, Bootstrap, band
from vsf_lib.bench.drawing import Method
from vsf_lib.bench.filming import COLUMNS, WHOLE, Moved, Take, film, judged, moving_pairs, summary
from vsf_lib.bench.pairs import Pair
from vsf_lib.bench.results import conditions, numbers, progress, shown, write_json
from vsf_lib.bench.sheet import write_sheet
from vsf_lib.bench.subject import Subject
from vsf_lib.bench.sweep import POSITIVE_KEPT
from vsf_lib.errors import SettingsError
from vsf_lib.presets import baseline, preset_for
from vsf_lib.scenes.model import WAN_MANY_STEPS
from vsf_lib.scenes.motion import FRAMES, random_moving, render_video
from vsf_lib.scenes.world import KINDS
from vsf_lib.settings import Settings

COUNT, TUNING, QUICK = 150, 30, 20
ALPHAS = (0.5, 1.0, 2.0, 3.0, 5.0)
BETAS = (0.0, 1.0)
STEPS = (4, 6, 8, 12)
LORA_WEIGHTS = (0.5, 0.75, 1.0, 1.25)
OFF = Method("none", Settings(method="off"))
_SHOWN = (0, FRAMES // 2, FRAMES - 1)
"""Frames on the sheet."""


def check(args: Namespace) -> None:
    """Raises SettingsError for a flag that videos have no use for."""
    if args.plot is not None:
        raise SettingsError("--plot is for --curves: --video prints a table and writes a sheet")


@dataclass(frozen=True)
class Tried:
    """A way of making videos, and what came of it."""

    take: Take
    videos: list[Moved]

    def as_json(self) -> dict[str, Any]:
        """Its values and scores."""
        return {"name": self.take.name, "values": self.take.describe(), **summary(self.videos)}


class Crew:
    """Makes and judges the videos of one model."""

    def __init__(self, subject: Subject, takes: int) -> None:
        """`takes` is how many there will be, for the lines that say how far it is."""
        self._subject, self._takes = subject, takes
        self._made = 0

    def film(self, take: Take, pairs: Sequence[Pair], seeds: Sequence[int]) -> tuple[Tried, np.ndarray]:
        """The scores of all seeds' videos, pairs of the first seed first, and the first seed's videos."""
        films = [film(self._subject.pipe, pairs, take, seed=seed) for seed in seeds]
        seen = [moved for videos in films for moved in judged(self._subject.judge, pairs, videos)]
        self._made += 1
        progress(self._made, self._takes, f"{take.name} ({take.describe()}) {summary(seen)}")
        return Tried(take, seen), films[0]

    def sweep(self, takes: Sequence[Take], pairs: Sequence[Pair]) -> list[Tried]:
        """Each of `takes` on one seed."""
        return [self.film(take, pairs, (1,))[0] for take in takes]


def guided_methods() -> dict[str, list[Method]]:
    """What each method may choose from."""
    found: dict[str, list[Method]] = {
        name: [
            Method(name, Settings.create(method=method, alpha=alpha, beta=beta, negative_tokens=tokens))
            for beta in BETAS
            for alpha in ALPHAS
        ]
        for name, method, tokens in (
            ("vsf-kept", "vsf", "words"),
            ("vsf-paper", "vsf", "all"),
            ("difference-kept", "difference", "words"),
        )
    }
    found["nag"] = [
        Method("nag", Settings(method="nag", nag_phi=phi, nag_tau=tau, nag_alpha=share))
        for phi, tau, share in ((4, 2.5, 0.25), (4, 2.5, 0.5), (8, 5, 0.5), (11, 5, 0.25), (11, 5, 0.5))
    ]
    found["nag"].append(Method("nag", Settings(method="nag", nag_phi=16, nag_tau=10, nag_alpha=0.75)))
    return found


def best(tried: Sequence[Tried]) -> Tried:
    """The most removal among those that keep the prompt, else the best sum: `sweep.best` for videos."""

    def scores(one: Tried) -> tuple[float, float]:
        found = summary(one.videos)
        return found["positive"], found["negative"]

    kept = [one for one in tried if scores(one)[0] >= POSITIVE_KEPT]
    if kept:
        return max(kept, key=lambda one: (scores(one)[1], scores(one)[0]))
    return max(tried, key=lambda one: sum(scores(one)))


def methods(model: str) -> list[Method]:
    """Those whose values are given: none, the presets, NAG's strong one, and guidance by two passes."""
    return [
        OFF,
        Method("vsf", preset_for(model).settings()),
        Method("difference", preset_for(model).settings(method="difference")),
        Method("nag-strong", baseline("nag-strong").settings()),
        Method("cfg", OFF.settings, guidance_scale=3.0),
    ]


def rendered(pairs: Sequence[Pair], subject: Subject, *, less: bool) -> Tried:
    """What the judge makes of real videos of the pairs, with the part or without it: the best there is."""
    rng, videos = random.Random(5), []
    for pair in pairs:
        while True:
            moving = random_moving(rng, held_out=True)
            if moving.scene.kind == pair.kind and moving.verb is not None:
                break
        whole = replace(moving.scene, parts=frozenset(KINDS[pair.kind]), colour=pair.colour, place=pair.place)
        moving = replace(moving, scene=whole)
        videos.append(render_video(moving.without(pair.negative_prompt) if less else moving))
    name = "renders, without" if less else "renders"
    return Tried(Take(Method(name, OFF.settings), 0), judged(subject.judge, pairs, np.stack(videos)))


def run(args: Namespace, subject: Subject) -> None:
    """Sweeps, compares, prints the table, writes the sheet."""
    pairs = moving_pairs(args.pairs or (QUICK if args.quick else COUNT))
    seeds = range(1, (args.seeds or 1) + 1)
    plan = {} if args.quick else sweeps_for(subject)
    given = [Take(method, subject.steps) for method in methods(subject.model)]
    bare = [
        Take(Method("none, no LoRA", OFF.settings), subject.steps, lora=0.0),
        Take(Method("none, many steps", OFF.settings), WAN_MANY_STEPS, lora=0.0),
    ]
    chosen = () if args.quick else guided_methods()
    crew = Crew(subject, sum(map(len, plan.values())) + len(given) + len(chosen) + len(bare))
    tuning = moving_pairs(TUNING, held_out=False, seed=7)
    sweeps = {name: crew.sweep(takes, tuning) for name, takes in plan.items()}
    asked = [*given, *(best(sweeps[name]).take for name in chosen), *bare]
    found, rows = [], []
    for take in asked:
        tried, videos = crew.film(take, pairs, seeds)
        found.append(tried)
        rows.append((take.name, np.concatenate(videos[:6, _SHOWN])))
    found += [rendered(pairs, subject, less=less) for less in (False, True)]
    result = {
        "study": "video",
        **conditions(subject.model, len(pairs), len(seeds), subject.steps),
        "bands": BANDS,
        "methods": [scored(tried, len(pairs)) for tried in found],
        "sweeps": {name: [tried.as_json() for tried in rows] for name, rows in sweeps.items()},
    }
    print(table(result))
    if args.json is not None:
        write_json(args.json, result)
    titles = [f"{pair.prompt}\nnot {pair.negative_prompt}" for pair in pairs[:6] for _ in _SHOWN]
    write_sheet(args.sheet, rows, titles)
    print(f"contact sheet: {args.sheet}")


def sweeps_for(subject: Subject) -> dict[str, list[Take]]:
    """Every method over its values; the LoRA's weight and the steps with and without guidance."""
    both = (OFF, Method("vsf", preset_for(subject.model).settings()))
    return {
        **{
            name: [Take(method, subject.steps) for method in candidates]
            for name, candidates in guided_methods().items()
        },
        "LoRA weight": [Take(method, subject.steps, lora) for lora in LORA_WEIGHTS for method in both],
        "steps": [Take(method, steps) for steps in STEPS for method in both],
    }


def scored(tried: Tried, pairs: int) -> dict[str, Any]:
    """A row of the table as JSON: each score with its band over the `pairs` asked."""
    rows = np.array([video.row() for video in tried.videos]).reshape(-1, pairs, len(COLUMNS)).mean(0)
    low, high = band(Bootstrap(pairs).means(rows))
    return {
        "name": tried.take.name,
        "values": tried.take.describe() if tried.take.steps else "-",
        **{name: numbers(*values) for name, *values in zip(COLUMNS, rows.mean(0), low, high, strict=True)},
    }


def table(result: dict[str, Any]) -> str:
    """The scores as text."""
    lines = [f"{'method':<17}" + "".join(f" {name:<20}" for name in WHOLE) + " flips flicker  values"]
    for row in result["methods"]:
        cells = "".join(f" {shown(row[column]):<20}" for column in WHOLE)
        lines.append(
            f"{row['name']:<17}{cells} {row['flips'][0]:5.2f} {row['flicker'][0]:7.4f}  {row['values']}"
        )
    lines.append(
        f"{result['pairs']} held-out prompts x {result['seeds']} seeds, {FRAMES} frames; a video counts "
        f"where nearly all of its frames do; torch {result['versions']['torch']}, "
        f"diffusers {result['versions']['diffusers']}"
    )
    for name, rows in result["sweeps"].items():
        lines.append(f"\n{name}, on {TUNING} prompts of other combinations")
        for row in rows:
            lines.append("  ".join(f"{row[column]:6.3f}" for column in COLUMNS) + f"  {row['values']}")
    return "\n".join(lines)
