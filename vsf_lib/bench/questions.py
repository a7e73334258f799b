"""`bench scenes --questions`: what each choice inside VSF gains at equal removal, with numbers.

Owns the course, the JSON and the text; what is asked stands in asked.py. On tuning pairs, whose combinations
training has seen: answers choose settings, and the held-out pairs are for judging them afterwards.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from typing import Any

import numpy as np

from vsf_lib.bench.asked import Question, questions_for
from vsf_lib.bench.bootstrap import BANDS, Bootstrap, band
from vsf_lib.bench.drawing import NEGATIVE, POSITIVE, QUALITY
from vsf_lib.bench.pairs import make_pairs
from vsf_lib.bench.results import conditions, number, numbers, progress, shown, write_json
from vsf_lib.bench.subject import Subject
from vsf_lib.bench.tracing import KEPT_AT, REMOVED_AT, Curve, Measure, trace
from vsf_lib.bench.trade_off import (
    KEPT,
    REMOVED,
    area,
    at_removal,
    best_point,
    best_removal,
    usable_octaves,
    usable_range,
)
from vsf_lib.errors import SettingsError
from vsf_lib.presets import preset_for

PAIRS, SEEDS, ROUNDS = 120, 1, 1
PAIRS_SEED = 7
FEWEST_STEPS = 4
REMOVALS = tuple(crossing.level for crossing in REMOVED_AT)
_STRENGTH = 0  # of the rows that `at_removal` and `best_point` give; the shares follow


def check(args: Namespace) -> None:
    """Raises SettingsError if the questions could not be answered as asked."""
    if args.steps is not None and args.steps < FEWEST_STEPS:
        raise SettingsError(
            f"--steps is {args.steps}, but --questions compares quarters of the steps: "
            f"give {FEWEST_STEPS} or more"
        )


def run(args: Namespace, subject: Subject) -> None:
    """Measures, prints and writes what was asked for."""
    result = answer(
        subject,
        pairs=args.pairs or (20 if args.quick else PAIRS),
        seeds=args.seeds or SEEDS,
        rounds=0 if args.quick else ROUNDS,
    )
    print(table(result))
    if args.json is not None:
        write_json(args.json, result)


def answer(subject: Subject, *, pairs: int, seeds: int, rounds: int) -> dict[str, Any]:
    """Every question on `pairs` tuning pairs as JSON; `rounds` as in `tracing.trace`."""
    tuning = make_pairs(pairs, held_out=False, seed=PAIRS_SEED)
    measure = Measure(subject.pipe, subject.judge, tuning, seeds=range(1, seeds + 1), steps=subject.steps)
    bootstrap = Bootstrap(len(tuning))
    asked = questions_for(
        subject.pipe,
        preset_for(subject.model).settings(),
        sorted({pair.negative_prompt for pair in tuning}),
        two_kinds=subject.two_kinds,
    )
    answers = []
    for question in asked:
        curves = [trace(arm, measure, (*REMOVED_AT, KEPT_AT), rounds) for arm in question.arms]
        answers.append(_answer(question, curves, bootstrap))
        progress(len(answers), len(asked), question.title)
    return {
        "study": "questions",
        **conditions(subject.model, len(tuning), seeds, subject.steps),
        "held_out": False,
        "bands": BANDS,
        "questions": answers,
    }


def _answer(question: Question, curves: Sequence[Curve], bootstrap: Bootstrap) -> dict[str, Any]:
    """The question's arms, each also against the first; the same resamples for all keep them paired."""
    samples = [bootstrap.means(curve.outcomes) for curve in curves]
    arms = []
    for curve, drawn in zip(curves, samples, strict=True):
        best = best_point(curve.points, curve.strengths)
        arms.append(
            {
                "name": curve.line.name,
                "held": curve.line.held,
                "at_removal": {
                    f"{removal:g}": _matched(curve, drawn, curves[0], samples[0], removal)
                    for removal in REMOVALS
                },
                "best": {
                    "alpha": number(best[_STRENGTH]),
                    "positive": number(best[1 + POSITIVE]),
                    "negative": numbers(best[1 + NEGATIVE], *band(best_removal(drawn))),
                    "quality": number(best[1 + QUALITY]),
                },
                "area": numbers(area(curve.points), *band(area(drawn))),
                "usable": {
                    "octaves": numbers(
                        usable_octaves(curve.points, curve.strengths),
                        *band(usable_octaves(drawn, curve.strengths)),
                    ),
                    "alphas": numbers(*usable_range(curve.points, curve.strengths)),
                },
                "points": [
                    [float(s), *numbers(*point)]
                    for s, point in zip(curve.strengths, curve.points, strict=True)
                ],
            }
        )
    return {"title": question.title, "arms": arms}


def _matched(
    curve: Curve, samples: np.ndarray, first: Curve, first_samples: np.ndarray, removal: float
) -> dict[str, Any]:
    """An arm where it removes as much as the others do, and how much better than the first it is there."""
    own = at_removal(curve.points, curve.strengths, removal)
    drawn = at_removal(samples, curve.strengths, removal)
    gain = own - at_removal(first.points, first.strengths, removal)
    gains = drawn - at_removal(first_samples, first.strengths, removal)
    found: dict[str, Any] = {"alpha": _with_band(own, drawn, _STRENGTH)}
    for name, column in (("positive", POSITIVE), ("quality", QUALITY)):
        found[name] = _with_band(own, drawn, 1 + column)
        found[f"{name}_gain"] = _with_band(gain, gains, 1 + column)
    return found


def _with_band(value: np.ndarray, samples: np.ndarray, column: int) -> list[float | None]:
    return numbers(value[column], *band(samples[:, column]))


def table(result: dict[str, Any]) -> str:
    """The questions as text."""
    text = []
    for question in result["questions"]:
        width = max(len(arm["name"]) for arm in question["arms"])
        text.append(question["title"])
        for removal in REMOVALS:
            text.append(f"  where {removal:.0%} of the parts are gone")
            text.append(
                f"    {'':<{width}}  {'alpha':<18}  {'positive':<18}  {'quality':<18}  "
                f"{'positive - first':<20}  quality - first"
            )
            for arm in question["arms"]:
                at = arm["at_removal"][f"{removal:g}"]
                cells = [f"{shown(at[name], 2):<18}" for name in ("alpha", "positive", "quality")]
                if arm is not question["arms"][0]:
                    cells += [f"{shown(at[name], 2):<20}" for name in ("positive_gain", "quality_gain")]
                text.append(f"    {arm['name']:<{width}}  {'  '.join(cells)}".rstrip())
        text.append(f"  over all alphas (positive >= {KEPT:g}; usable: and negative >= {REMOVED:g})")
        text.append(
            f"    {'':<{width}}  {'most removed':<18}  at alpha, positive, quality  {'area':<18}  "
            f"{'usable octaves':<18}  usable alphas"
        )
        for arm in question["arms"]:
            best, usable = arm["best"], arm["usable"]
            where = "  ".join(_plain(best[name]) for name in ("alpha", "positive", "quality"))
            low, high = usable["alphas"]
            text.append(
                f"    {arm['name']:<{width}}  {shown(best['negative'], 2):<18}  {where:<27}  "
                f"{shown(arm['area'], 2):<18}  {shown(usable['octaves'], 2):<18}  "
                f"{'none' if low is None else f'{low:.2f} to {high:.2f}'}"
            )
        text.append("")
    text.append(
        f"{result['model']}: {result['pairs']} tuning pairs (not held out) x {result['seeds']} seeds, "
        f"{result['steps']} steps; torch {result['versions']['torch']}, diffusers "
        f"{result['versions']['diffusers']}\nbands: {result['bands']}"
    )
    return "\n".join(text)


def _plain(value: float | None) -> str:
    return f"{'-' if value is None else format(value, '.2f'):<6}"
