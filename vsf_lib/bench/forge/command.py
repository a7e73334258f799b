"""`python -m vsf_lib bench forge`: its flags, its course, its table.

A step's time is the difference between a longer and a shorter generation over the difference of their steps:
what a picture costs once (texts, the autoencoder, the way over HTTP) falls out.
"""

from __future__ import annotations

import statistics
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from vsf_lib.bench.forge.host import Asked, Host
from vsf_lib.bench.results import check_target, progress, write_json
from vsf_lib.bench.speed.timing import Pace, interleaved, ratio
from vsf_lib.cli.console import result
from vsf_lib.errors import SettingsError
from vsf_lib.settings import GUIDING

_METHODS = sorted(GUIDING)


def add_arguments(parser: ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "--url",
        default="http://127.0.0.1:7860",
        help="of a running WebUI that was started with --api (default: %(default)s)",
    )
    parser.add_argument(
        "--checkpoint", metavar="NAME", help="the host's name of a model to load (default: the loaded one)"
    )
    parser.add_argument(
        "--methods",
        default="vsf",
        metavar="LIST",
        help=f"with commas, of {', '.join(_METHODS)} (default: %(default)s); each is set against no guidance",
    )
    parser.add_argument(
        "--steps",
        default="4,12",
        metavar="FEW,MANY",
        help="of the two generations whose difference is taken (default: %(default)s)",
    )
    parser.add_argument(
        "--rounds", type=int, default=5, metavar="N", help="how often each is drawn (default: %(default)s)"
    )
    parser.add_argument("--prompt", default="a red car on a field", help="(default: %(default)s)")
    parser.add_argument("--negative-prompt", default="wheels", help="(default: %(default)s)")
    parser.add_argument("--alpha", type=float, help="(default: the extension's)")
    parser.add_argument("--beta", type=float, help="(default: the extension's)")
    parser.add_argument("--width", type=int, default=1024, help="(default: %(default)s)")
    parser.add_argument("--height", type=int, default=1024, help="(default: %(default)s)")
    parser.add_argument("--sampler", default="Euler", help="(default: %(default)s)")
    parser.add_argument("--scheduler", default="Simple", help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="(default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here")


def run(args: Namespace) -> int:
    """Measures and prints; raises VSFError for what the user can mend."""
    methods, steps = read_methods(args.methods), read_steps(args.steps)
    if args.rounds < 1:
        raise SettingsError(f"--rounds is {args.rounds}, but must be at least 1")
    check_target(args.json, "--json")
    asked = Asked(
        prompt=args.prompt,
        negative_prompt=args.negative_prompt,
        width=args.width,
        height=args.height,
        sampler=args.sampler,
        scheduler=args.scheduler,
        seed=args.seed,
        checkpoint=args.checkpoint,
        alpha=args.alpha,
        beta=args.beta,
    )
    found = measure(Host(args.url), asked, methods, steps, args.rounds, clock=time.perf_counter)
    for line in table(found):
        result(line)
    if args.json is not None:
        write_json(args.json, found)
        result(f"results: {args.json}")
    return 0


def measure(
    host: Host,
    asked: Asked,
    methods: Sequence[str],
    steps: tuple[int, int],
    rounds: int,
    *,
    clock: Callable[[], float],
) -> dict[str, Any]:
    """A row for each method, against "off" in the same round."""
    kinds = [(method, count) for method in ("off", *methods) for count in steps]
    said: dict[str, str] = {}
    for number, (method, count) in enumerate(kinds):  # loads the model, and has the host keep the texts
        progress(number, len(kinds), f"warming up: {method}, {count} steps")
        said[method] = host.draw(asked, method, count)
    drawn = 0

    def draw(method: str, count: int) -> None:
        nonlocal drawn
        progress(drawn, rounds * len(kinds), f"{method}, {count} steps")
        host.draw(asked, method, count)
        drawn += 1

    runs = [partial(draw, *kind) for kind in kinds]
    seconds = interleaved(runs, Pace(rounds), clock=clock, wait=lambda: None)
    few, many = steps
    each = {
        method: [(b - a) / (many - few) for a, b in zip(*seconds[2 * at : 2 * at + 2], strict=True)]
        for at, method in enumerate(("off", *methods))
    }
    if min(each["off"]) <= 0:
        raise SettingsError(
            f"a picture of {many} steps took no longer than one of {few}: the steps are too few or too small "
            "to be timed; give others by --steps, or a larger --width and --height"
        )
    rows = []
    for method in methods:
        middle, low, high = ratio(each[method], each["off"])
        rows.append(
            {
                "method": method,
                "ratio": round(middle, 4),
                "ratio_min": round(low, 4),
                "ratio_max": round(high, 4),
                "seconds_per_step": statistics.median(each[method]),
                "unguided_seconds_per_step": statistics.median(each["off"]),
                "parameters": said[method],
            }
        )
    return {
        "study": "forge",
        "size": [asked.width, asked.height],
        "steps": [few, many],
        "rounds": rounds,
        "unguided_parameters": said["off"],
        "rows": rows,
    }


def table(found: dict[str, Any]) -> list[str]:
    """The rows as text."""
    few, many = found["steps"]
    width, height = found["size"]
    lines = [
        f"seconds per step at {width}x{height}, {many} steps less {few}, median of {found['rounds']} rounds",
        f"{'method':<12} {'unguided':>9} {'guided':>9} {'ratio':>7}  least and most",
    ]
    for row in found["rows"]:
        lines.append(
            f"{row['method']:<12} {row['unguided_seconds_per_step']:>9.3f} {row['seconds_per_step']:>9.3f} "
            f"{row['ratio']:>7.3f}  {row['ratio_min']:.3f} {row['ratio_max']:.3f}"
        )
    return lines


def read_methods(text: str) -> list[str]:
    found = [part.strip() for part in text.split(",") if part.strip()]
    wrong = [name for name in found if name not in _METHODS]
    if wrong or not found or len(set(found)) < len(found):
        raise SettingsError(
            f"--methods is {text!r}, but must name some of {', '.join(_METHODS)}, each once, with commas"
        )
    return found


def read_steps(text: str) -> tuple[int, int]:
    parts = text.split(",")
    numbers = [int(part) for part in parts if part.strip().isascii() and part.strip().isdigit()]
    if len(parts) != 2 or len(numbers) != 2 or not 0 < numbers[0] < numbers[1] <= 150:
        raise SettingsError(
            f"--steps is {text!r}, but must be two numbers such as 4,12, the first the smaller"
        )
    return numbers[0], numbers[1]
