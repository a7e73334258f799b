"""`bench scenes`: does the negative prompt work, at what cost to the picture, against what else a user has.

Owns the command, and the course and output of its table; how pictures are drawn and scored stands in
drawing.py. What a flag asks for instead of the table is a module of its own (`_STUDIES`).
"""

from __future__ import annotations

import logging
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from vsf_lib.bench.results import check_target, conditions, write_json
from vsf_lib.errors import SettingsError
from vsf_lib.presets import preset_for
from vsf_lib.scenes.model import MODELS, NAME

log = logging.getLogger("vsf")

_STUDIES = {
    "curves": "vsf_lib.bench.curves",
    "questions": "vsf_lib.bench.questions",
    "pointing": "vsf_lib.bench.pointing",
    "recipes": "vsf_lib.bench.recipes",
    "video": "vsf_lib.bench.moving",
}
"""What a flag asks for instead of the table: a module with `check(args)`, which is called before a model is
loaded, and `run(args, subject)`."""


def add_arguments(parser: ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "--quick",
        action="store_true",
        help="20 pairs, one seed and no sweeps (curves and questions: the coarse ones), for a first look",
    )
    studies = parser.add_mutually_exclusive_group()
    studies.add_argument(
        "--curves",
        action="store_true",
        help="instead: every method, variant and ablation over its strength (150 pairs, one seed)",
    )
    studies.add_argument(
        "--questions",
        action="store_true",
        help="instead: what each choice inside VSF gains at equal removal (120 tuning pairs, one seed)",
    )
    studies.add_argument(
        "--recipes",
        action="store_true",
        help="instead: what each recipe of generate --recipe does (20 seeds)",
    )
    studies.add_argument(
        "--pointing",
        action="store_true",
        help="instead: how often the negative prompt's attention peaks on the part that it names",
    )
    studies.add_argument(
        "--video",
        action="store_true",
        help="instead: videos of the small Wan, by frame and over time (150 prompts, one seed)",
    )
    parser.add_argument("--steps", type=int, default=None, help="sampling steps (default: the model's own)")
    parser.add_argument(
        "--pairs", type=int, default=None, help="how many prompt/negative pairs (default: 200)"
    )
    parser.add_argument("--seeds", type=int, default=None, help="how many seeds a pair (default: 2)")
    parser.add_argument(
        "--model",
        default=NAME,
        help=f"{', '.join(MODELS)}, or the folder of another scenes model (default: {NAME})",
    )
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write the results here")
    parser.add_argument(
        "--plot", type=Path, default=None, metavar="FILE.png", help="with --curves: draw them here"
    )
    parser.add_argument(
        "--sheet",
        type=Path,
        default=None,
        help="where the contact sheet goes (default: a name of its own in outputs/)",
    )


def run(args: Namespace) -> int:
    """Runs it; prints the table to standard output."""
    for name in ("steps", "pairs", "seeds"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise SettingsError(f"--{name} is {value}, but must be 1 or more")
    if args.sheet is None:
        asked = next((flag for flag in _STUDIES if getattr(args, flag)), "scenes")
        args.sheet = Path("outputs") / f"{'-'.join(dict.fromkeys((asked, Path(args.model).name)))}-sheet.png"
    for name in ("sheet", "json", "plot"):
        check_target(getattr(args, name), f"--{name}")
    study = next((import_module(module) for flag, module in _STUDIES.items() if getattr(args, flag)), None)
    if args.plot is not None and not args.curves:
        raise SettingsError("--plot draws the curves: give --curves, too")
    if study is not None:
        study.check(args)
    from vsf_lib.bench.subject import load_subject, load_video_subject

    subject = (load_video_subject if args.video else load_subject)(args.model, args.steps)
    if study is not None:
        study.run(args, subject)
        return 0
    bench = Bench(
        subject.pipe,
        subject.judge,
        model=subject.model,
        steps=subject.steps,
        pairs=args.pairs or (20 if args.quick else 200),
        seeds=args.seeds or (1 if args.quick else 2),
        sweeps=not args.quick,
    )
    result, rows, titles = bench.compare()
    print(table(result))
    from vsf_lib.bench.sheet import write_sheet

    if args.json is not None:  # first: numbers cannot be had again as cheaply as a sheet
        write_json(args.json, result)
    write_sheet(args.sheet, rows, titles)
    print(f"contact sheet: {args.sheet}")
    return 0


class Bench:
    """One comparison: a model, a judge, the held-out pairs."""

    def __init__(
        self,
        pipe: Any,
        judge: Any,
        *,
        steps: int,
        pairs: int,
        seeds: int,
        sweeps: bool,
        tuning: int = 60,
        model: str = NAME,
    ) -> None:
        from vsf_lib.bench.pairs import make_pairs

        self._pipe, self._judge, self._steps, self._sweeps = pipe, judge, steps, sweeps
        self._model = model
        self._pairs = make_pairs(pairs)
        self._tuning = make_pairs(tuning, held_out=False, seed=7)
        self._seeds = range(1, seeds + 1)

    def compare(self) -> tuple[dict[str, Any], list[tuple[str, np.ndarray]], list[str]]:
        """The results as JSON, and the contact sheet's rows and column titles."""
        from vsf_lib.bench.drawing import draw, score
        from vsf_lib.bench.methods import usual_methods

        methods = usual_methods(self._model)
        sweeps: dict[str, Any] = {}
        if self._sweeps:
            methods, sweeps = self._tuned(methods)
        scores, rows = {}, []
        for method in methods:
            pictures = draw(self._pipe, self._pairs, method, seeds=self._seeds, steps=self._steps)
            scores[method.name] = score(self._judge, self._pairs, pictures).as_json() | {
                "values": method.describe()
            }
            rows.append((method.name, pictures[: min(12, len(self._pairs))]))
            log.info("%s: %s", method.name, scores[method.name])
        titles = [f"{pair.prompt}\nnot {pair.negative_prompt}" for pair in self._pairs[:12]]
        described = conditions(self._model, len(self._pairs), len(self._seeds), self._steps)
        return {**described, "methods": scores, **sweeps}, rows, titles

    def _tuned(self, methods: Sequence[Any]) -> tuple[list[Any], dict[str, Any]]:
        """The baselines at the best of their own sweeps, and VSF's curve; all on the tuning pairs."""
        from dataclasses import replace

        from vsf_lib.bench.drawing import draw, score
        from vsf_lib.bench.sweep import (
            POSITIVE_KEPT,
            alpha_at,
            baseline_candidates,
            best,
            difference_candidates,
            vsf_candidates,
        )

        def measure(candidates: Sequence[Any]) -> list[tuple[Any, Any]]:
            drawn = [
                (method, draw(self._pipe, self._tuning, method, seeds=(1,), steps=self._steps))
                for method in candidates
            ]
            return [(method, score(self._judge, self._tuning, pictures)) for method, pictures in drawn]

        chosen, log_of = {}, {}
        for name, candidates in baseline_candidates().items():
            results = measure(candidates)
            chosen[name] = replace(best(results, POSITIVE_KEPT)[0], name=name)
            log_of[name] = [{"values": m.describe(), **s.as_json()} for m, s in results]
        curve = measure(vsf_candidates())
        log_of["vsf"] = [{"values": m.describe(), **s.as_json()} for m, s in curve]
        removal = {
            f"{share:.0%}": alpha_at(curve, preset_for(self._model).settings(), share) for share in (0.5, 0.9)
        }
        published = [(m, s) for m, s in curve if m.settings.negative_tokens == "all"]
        methods = [chosen.get(m.name, m) for m in methods]
        differences = measure(difference_candidates())
        log_of["difference"] = [{"values": m.describe(), **s.as_json()} for m, s in differences]
        # By the rule that baselines are chosen by.
        kept = {"vsf-kept": curve, "vsf-paper": published, "difference-kept": differences}
        methods[4:4] = [replace(best(found, POSITIVE_KEPT)[0], name=name) for name, found in kept.items()]
        return methods, {"alpha_at_removal": removal, "sweeps": log_of}


def table(result: dict[str, Any]) -> str:
    """The methods' scores as text."""
    lines = [f"{'method':<12} {'positive':>8} {'negative':>8} {'quality':>8}  values"]
    for name, row in result["methods"].items():
        lines.append(
            f"{name:<12} {row['positive']:8.3f} {row['negative']:8.3f} {row['quality']:8.3f}  {row['values']}"
        )
    lines.append(
        f"{result['pairs']} held-out pairs x {result['seeds']} seeds, {result['steps']} steps; "
        f"torch {result['versions']['torch']}, diffusers {result['versions']['diffusers']}"
    )
    for share, alpha in result.get("alpha_at_removal", {}).items():
        lines.append(
            f"VSF alpha at {share} removal: {'never reached' if alpha is None else format(alpha, '.2f')}"
        )
    return "\n".join(lines)
