"""`bench scenes --curves`: what every method, variant and ablation gives up for what it removes.

Owns the course, the JSON and the text; what is swept stands in lines.py, the picture in figure.py.
"""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from vsf_lib.bench.bootstrap import BANDS, Bootstrap, band
from vsf_lib.bench.drawing import NEGATIVE, POSITIVE, QUALITY
from vsf_lib.bench.figure import draw_curves
from vsf_lib.bench.lines import curve_lines
from vsf_lib.bench.pairs import make_pairs
from vsf_lib.bench.palette import check_drawable
from vsf_lib.bench.results import conditions, number, numbers, progress, shown, write_json
from vsf_lib.bench.subject import Subject
from vsf_lib.bench.tracing import KEPT_AT, Curve, Measure, trace
from vsf_lib.bench.trade_off import KEPT, best_point, best_removal
from vsf_lib.presets import preset_for

PAIRS, SEEDS, ROUNDS = 150, 1, 2
COLUMNS = {"positive": POSITIVE, "negative": NEGATIVE, "quality": QUALITY}


def check(args: Namespace) -> None:
    """Raises SettingsError if the curves could not be drawn as asked."""
    if args.plot is not None:
        check_drawable()


def run(args: Namespace, subject: Subject) -> None:
    """Measures, prints and writes what was asked for."""
    result = compare_curves(
        subject,
        pairs=args.pairs or (20 if args.quick else PAIRS),
        seeds=args.seeds or SEEDS,
        rounds=0 if args.quick else ROUNDS,
    )
    print(table(result))
    if args.json is not None:
        write_json(args.json, result)
    if args.plot is not None:
        draw_curves(args.plot, result)
        print(f"plot: {args.plot}")


def compare_curves(subject: Subject, *, pairs: int, seeds: int, rounds: int) -> dict[str, Any]:
    """Every line on `pairs` held-out pairs as JSON; `rounds` as in `tracing.trace`."""
    measure = Measure(
        subject.pipe, subject.judge, make_pairs(pairs), seeds=range(1, seeds + 1), steps=subject.steps
    )
    bootstrap = Bootstrap(len(measure.pairs))
    asked, lines = curve_lines(preset_for(subject.model).settings()), []
    for line in asked:
        lines.append(as_json(trace(line, measure, (KEPT_AT,), rounds), bootstrap))
        progress(len(lines), len(asked), line.name)
    return {
        "study": "curves",
        **conditions(subject.model, len(measure.pairs), seeds, subject.steps),
        "bands": BANDS,
        "kept": KEPT,
        "lines": lines,
    }


def as_json(curve: Curve, bootstrap: Bootstrap) -> dict[str, Any]:
    """A curve's points with their bands, and the most removal that keeps the prompt."""
    points, samples = curve.points, bootstrap.means(curve.outcomes)
    low, high = band(samples)
    return {
        "name": curve.line.name,
        "group": curve.line.group,
        "knob": curve.line.knob,
        "held": curve.line.held,
        "beside": curve.line.beside,
        "points": [
            {
                "strength": float(strength),
                **{name: numbers(points[i, c], low[i, c], high[i, c]) for name, c in COLUMNS.items()},
            }
            for i, strength in enumerate(curve.strengths)
        ],
        "best": {
            "negative": numbers(best_removal(points), *band(best_removal(samples))),
            "strength": number(best_point(points, curve.strengths)[0]),
        },
    }


def table(result: dict[str, Any]) -> str:
    """Every line's points, then every line's best, as text."""
    text = []
    for line in result["lines"]:
        held = f" ({line['held']})" if line["held"] else ""
        text.append(line["name"] + held)
        text.append(f"  {line['knob']:>8}  " + "  ".join(f"{name:<19}" for name in COLUMNS).rstrip())
        for point in line["points"]:
            strength = f"{point['strength']:g}" if line["knob"] else ""
            shares = "  ".join(f"{shown(point[name]):<19}" for name in COLUMNS)
            text.append(f"  {strength:>8}  {shares.rstrip()}")
    text.append(
        f"\nmost removal at positive >= {KEPT:.2f}: anywhere on a line, straight between its points; in "
        "brackets its band"
    )
    for line in sorted(result["lines"], key=lambda line: line["best"]["negative"][0] or -1, reverse=True):
        strength = line["best"]["strength"]
        where = f", {line['knob']} {strength:.3g}" if line["knob"] and strength is not None else ""
        text.append(f"  {shown(line['best']['negative']):<19}  {line['name']}{where}")
    text.append(
        f"{result['model']}: {result['pairs']} held-out pairs x {result['seeds']} seeds, {result['steps']} "
        f"steps; torch {result['versions']['torch']}, diffusers {result['versions']['diffusers']}\n"
        f"bands: {result['bands']}"
    )
    return "\n".join(text)
