"""`python -m vsf_lib bench attention`: its flags, what is checked before anything is measured, its output.

Owns the command. The course stands in course.py.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vsf_lib.bench.attention.shapes import SHAPES, Shape
from vsf_lib.bench.palette import check_drawable
from vsf_lib.bench.results import check_target, progress, write_json
from vsf_lib.cli.console import result
from vsf_lib.errors import SettingsError
from vsf_lib.images.request import DEVICES, DTYPES

if TYPE_CHECKING:
    import torch

    from vsf_lib.bench.attention.calls import Cell

_NEGATIVES = "5,20,77"
_ALL = "all"
_FOLDER = Path("benchmarks")
"""As a file's name it stands for one in it that is named after the machine."""


@dataclass(frozen=True)
class Usual:
    """What is measured unless flags say otherwise."""

    batches: str
    heads: int | None
    """None is all of the model's."""
    rounds: int
    repeat: int
    """Calls between two looks at the clock: a GPU's are short."""


# All heads of all shapes would take a CPU of two cores most of an hour. Each head costs the same.
_CPU = Usual(batches="1", heads=2, rounds=5, repeat=1)
_GPU = Usual(batches="1,4", heads=None, rounds=20, repeat=10)


def add_arguments(parser: ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "--shapes", metavar="LIST", help=f"with commas, of {', '.join(SHAPES)} (default: all)"
    )
    parser.add_argument(
        "--methods",
        metavar="LIST",
        help="with commas, of none, vsf, vsf-masked, difference, nag, nasa, cfg, nag-unpadded and "
        "nasa-unpadded (default: all but the last two)",
    )
    parser.add_argument(
        "--negatives",
        default=_NEGATIVES,
        metavar="LIST",
        help=f"lengths of the negative prompt in tokens, with commas (default: {_NEGATIVES})",
    )
    parser.add_argument(
        "--batches",
        metavar="LIST",
        help=f"batch sizes, with commas (default: {_GPU.batches} on a GPU, {_CPU.batches} on a CPU)",
    )
    parser.add_argument(
        "--heads",
        metavar="N",
        help=f"attention heads, or {_ALL} of each model's (default: {_ALL} on a GPU, {_CPU.heads} on a CPU)",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        metavar="N",
        help=f"how often each is timed, in turn (default: {_GPU.rounds} on a GPU, {_CPU.rounds} on a CPU)",
    )
    parser.add_argument(
        "--device", default="auto", metavar="NAME", help=f"{', '.join(DEVICES)} or cuda:1 (default: auto)"
    )
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        default="auto",
        help="default: auto, float32 on a CPU and on a GPU the 16-bit one that is native to it",
    )
    parser.add_argument(
        "--json",
        type=Path,
        nargs="?",
        const=_FOLDER,
        metavar="FILE",
        help=f"write the results here; without a name to {_FOLDER}/MACHINE.json",
    )
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw them here")


def run(args: Namespace) -> int:
    """Measures and prints; raises VSFError for what the user can mend."""
    from vsf_lib.bench.attention.calls import METHODS, USUAL
    from vsf_lib.bench.attention.course import measure
    from vsf_lib.bench.attention.machine import file_name, machine_name
    from vsf_lib.bench.attention.table import table
    from vsf_lib.images.loading import choose_device
    from vsf_lib.images.request import check_device

    device = choose_device(check_device(args.device))
    usual = _CPU if device.type == "cpu" else _GPU
    methods = _names("methods", args.methods, METHODS, USUAL)
    rounds = usual.rounds if args.rounds is None else _number("rounds", str(args.rounds), 10_000)
    cells = list(_cells(args, usual, device))
    if args.json == _FOLDER:
        args.json = _FOLDER / f"{file_name(machine_name(device))}.json"
    for name in ("json", "plot"):
        check_target(getattr(args, name), f"--{name}")
    if args.plot is not None:
        check_drawable()

    rows: list[dict[str, Any]] = []
    for number, cell in enumerate(cells):
        progress(number, len(cells), f"{cell.shape.name}, batch {cell.batch}, {cell.n_n} negative tokens")
        rows += measure(cell, methods, rounds=rounds, repeat=usual.repeat)
    found = {**_conditions(cells[0]), "rounds": rounds, "calls": usual.repeat, "rows": rows}
    for line in table(found).split("\n"):
        result(line)
    if args.json is not None:
        write_json(args.json, found)
        result(f"results: {args.json}")
    if args.plot is not None:
        from vsf_lib.bench.attention.plot import draw

        draw(args.plot, found)
        result(f"plot: {args.plot}")
    return 0


def _conditions(cell: Cell) -> dict[str, Any]:
    import torch

    from vsf_lib import __version__
    from vsf_lib.bench.attention.machine import describe

    return {
        "study": "attention",
        "machine": describe(cell.device),
        "versions": {"torch": torch.__version__, "vsf": __version__},
        "dtype": str(cell.dtype).removeprefix("torch."),
    }


def _cells(args: Namespace, usual: Usual, device: torch.device) -> Iterator[Cell]:
    import torch

    from vsf_lib.bench.attention.calls import Cell
    from vsf_lib.images.loading import half_dtype

    if args.dtype != "auto":
        dtype = getattr(torch, args.dtype)
    else:
        dtype = torch.float32 if device.type == "cpu" else half_dtype(device)
    negatives = _numbers("negatives", args.negatives, 4096)
    batches = _numbers("batches", usual.batches if args.batches is None else args.batches, 64)
    for name in _names("shapes", args.shapes, tuple(SHAPES), tuple(SHAPES)):
        shape = _with_heads(SHAPES[name], args.heads, usual)
        yield from (Cell(shape, batch, n_n, device, dtype) for batch in batches for n_n in negatives)


def _with_heads(shape: Shape, asked: str | None, usual: Usual) -> Shape:
    if asked == _ALL or (asked is None and usual.heads is None):
        return shape
    heads = usual.heads if asked is None else _number("heads", asked, 1024, f", or {_ALL}")
    return replace(shape, heads=min(shape.heads, heads or shape.heads))


def _names(flag: str, text: str | None, known: Sequence[str], usual: Sequence[str]) -> list[str]:
    if text is None:
        return list(usual)
    found = _parts(flag, text)
    for name in found:
        if name not in known:
            raise SettingsError(f"--{flag} has {name!r}, but there are {', '.join(known)}")
    return found


def _numbers(flag: str, text: str, most: int) -> list[int]:
    return [_number(flag, part, most) for part in _parts(flag, text)]


def _number(flag: str, text: str, most: int, otherwise: str = "") -> int:
    value = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
    if not 1 <= value <= most:
        raise SettingsError(f"--{flag} has {text!r}, but must be whole numbers from 1 to {most}{otherwise}")
    return value


def _parts(flag: str, text: str) -> list[str]:
    found = [part.strip() for part in text.split(",") if part.strip()]
    if not found:
        raise SettingsError(f"--{flag} is empty: leave it out, or name something")
    if twice := next((part for part in found if found.count(part) > 1), None):
        raise SettingsError(f"--{flag} has {twice} twice: leave one out")
    return found
