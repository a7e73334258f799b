"""The flags that the benchmarks of speed have in common, and what they come to on a machine.

Owns the flags, their bounds and what is usual. Measures nothing.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vsf_lib.bench.palette import check_drawable
from vsf_lib.bench.results import check_target
from vsf_lib.bench.speed.shapes import FAMILIES, SHAPES, Scale, Shape, scaled, shape_named
from vsf_lib.errors import SettingsError
from vsf_lib.images.request import DEVICES, DTYPES

if TYPE_CHECKING:
    import torch

    from vsf_lib.bench.speed.course import Cell
    from vsf_lib.bench.speed.timing import Pace

NEGATIVES = "5,20,77"
_MIDDLE = 20
"""The length of the negative while the size runs in a scaling, if it is asked for."""
FOLDER = Path("benchmarks")
"""As a file's name it stands for one in it that is named after the machine."""


_SCALE = Scale((256, 512, 1024, 2048), (1, 5, 21, 81), 1024, 81)


@dataclass(frozen=True)
class Usual:
    """What is measured unless flags say otherwise."""

    shapes: tuple[str, ...] = SHAPES
    families: tuple[str, ...] = tuple(FAMILIES)
    """Of a scaling."""
    scale: Scale = _SCALE
    negatives: str = NEGATIVES
    batches: str = "1"
    rounds: int = 5
    repeat: int = 1
    """Calls between two looks at the clock: a GPU's are short."""
    seconds: int = 270
    """About how long it may take, but for the first rounds."""
    least: int = 3
    part: int | None = None
    """How many of a network's heads or blocks; None is all."""
    warm: bool = True
    """Whether each is called once before its memory is counted."""

    def quick(self, seconds: int) -> Usual:
        """With little of what can be had of it in `seconds`."""
        return replace(self, negatives=str(_MIDDLE), rounds=3, least=2, seconds=seconds)


@dataclass(frozen=True)
class Usuals:
    """The same for each kind of run."""

    cpu: Usual
    gpu: Usual
    cpu_quick: Usual
    gpu_quick: Usual
    cpu_scaling: Usual
    gpu_scaling: Usual
    cpu_scaling_quick: Usual
    gpu_scaling_quick: Usual

    def of(self, device: str, *, quick: bool, scaling: bool) -> Usual:
        kind = "cpu" if device == "cpu" else "gpu"
        found: Usual = getattr(self, kind + "_scaling" * scaling + "_quick" * quick)
        return found


@dataclass(frozen=True)
class Asked:
    """What to measure and where to put it, all of it checked."""

    study: str
    cells: list[Cell]
    methods: list[str]
    every_kernel: bool
    pace: Pace
    seconds: int
    warm: bool
    device: torch.device
    dtype: torch.dtype
    scaling: bool
    part: int | None
    """How many heads or blocks; None is all."""
    json: Path | None
    plot: Path | None


def add_flags(parser: ArgumentParser, usuals: Usuals, part: str) -> None:
    """All flags; `part` is "heads" or "blocks"."""
    cpu, gpu = usuals.cpu, usuals.gpu
    parser.add_argument(
        "--shapes",
        metavar="LIST",
        help=f"with commas (default: {_same_or_both(','.join(gpu.shapes), ','.join(cpu.shapes))}); pictures "
        "also by another side (flux-512), videos by lines and frames (wan-1.3b-480p-5f). With --scaling "
        f"names without a size, of {', '.join(FAMILIES)}",
    )
    parser.add_argument(
        "--methods",
        metavar="LIST",
        help="with commas, of none, vsf, vsf-masked, difference, nag, nasa, cfg, nag-unpadded and "
        "nasa-unpadded (default: all but the last two, and with --scaling none, vsf and nag)",
    )
    parser.add_argument(
        "--negatives",
        metavar="LIST",
        help="lengths of the negative prompt in tokens, with commas "
        f"(default: {_same_or_both(gpu.negatives, cpu.negatives)})",
    )
    parser.add_argument(
        "--batches",
        metavar="LIST",
        help=f"batch sizes, with commas (default: {_same_or_both(gpu.batches, cpu.batches)})",
    )
    parser.add_argument(
        f"--{part}",
        metavar="N",
        help=f"{part} of each network, or all (default: all on a GPU, {cpu.part} on a CPU)",
    )
    parser.add_argument(
        "--scaling",
        action="store_true",
        help="over the size of the picture or the length of the video, and over the negative's length",
    )
    parser.add_argument(
        "--quick", action="store_true", help="less of all, to see in a minute or two that it runs"
    )
    parser.add_argument(
        "--rounds",
        type=int,
        metavar="N",
        help="how often each is timed at most, in turn "
        f"(default: {gpu.rounds} on a GPU, {cpu.rounds} on a CPU)",
    )
    parser.add_argument(
        "--seconds",
        type=int,
        metavar="N",
        help=f"about how long all of it may take; the first {cpu.least} rounds of each shape are made in any "
        f"case (default: {gpu.seconds} on a GPU, {cpu.seconds} on a CPU)",
    )
    add_machine_flags(parser)
    parser.add_argument(
        "--json",
        type=Path,
        nargs="?",
        const=FOLDER,
        metavar="FILE",
        help=f"write the results here; without a name into {FOLDER}/",
    )
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw them here")


def add_machine_flags(parser: ArgumentParser) -> None:
    """Where and in which numbers to compute."""
    parser.add_argument(
        "--device", default="auto", metavar="NAME", help=f"{', '.join(DEVICES)} or cuda:1 (default: auto)"
    )
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        default="auto",
        help="default: auto, float32 on a CPU and on a GPU the 16-bit one that is native to it",
    )


def _same_or_both(gpu: str, cpu: str) -> str:
    return gpu if gpu == cpu else f"{gpu} on a GPU, {cpu} on a CPU"


def read(args: Namespace, study: str, usuals: Usuals, part: str) -> Asked:
    """Checks all of it before anything is measured; raises VSFError for what the user can mend."""
    from vsf_lib.bench.speed.machine import file_name, machine_name
    from vsf_lib.bench.speed.methods import METHODS, SCALED, USUAL
    from vsf_lib.bench.speed.timing import Pace

    device, dtype = machine(args)
    usual = usuals.of(device.type, quick=args.quick, scaling=args.scaling)
    methods = _names("methods", args.methods, METHODS, SCALED if args.scaling else USUAL)
    rounds = usual.rounds if args.rounds is None else _number("rounds", str(args.rounds), 10_000)
    seconds = usual.seconds if args.seconds is None else _number("seconds", str(args.seconds), 1_000_000)
    asked_part = getattr(args, part)
    count = usual.part
    if asked_part is not None:
        count = None if asked_part == "all" else _number(part, asked_part, 1024, ", or all")
    study += "-scaling" if args.scaling else ""
    cells = _cells(args, usual, device, dtype)
    json = args.json
    if json == FOLDER:
        json = FOLDER / f"{file_name(machine_name(device))}-{study}.json"
    check_target(json, "--json")
    check_target(args.plot, "--plot")
    if args.plot is not None:
        check_drawable()
    return Asked(
        study=study,
        cells=cells,
        methods=methods,
        every_kernel=not (args.scaling or args.quick),
        pace=Pace(rounds, usual.repeat, least=min(usual.least, rounds)),
        seconds=seconds,
        warm=usual.warm,
        device=device,
        dtype=dtype,
        scaling=args.scaling,
        part=count,
        json=json,
        plot=args.plot,
    )


def machine(args: Namespace) -> tuple[torch.device, torch.dtype]:
    """The device and the dtype that are asked for."""
    import torch

    from vsf_lib.images.loading import choose_device, half_dtype
    from vsf_lib.images.request import check_device

    device = choose_device(check_device(args.device))
    if args.dtype != "auto":
        return device, getattr(torch, args.dtype)
    return device, torch.float32 if device.type == "cpu" else half_dtype(device)


def _cells(args: Namespace, usual: Usual, device: torch.device, dtype: torch.dtype) -> list[Cell]:
    from vsf_lib.bench.speed.course import Cell

    negatives = _numbers("negatives", usual.negatives if args.negatives is None else args.negatives, 4096)
    batches = _numbers("batches", usual.batches if args.batches is None else args.batches, 64)
    shapes: list[tuple[Shape, list[int]]]
    if args.scaling:
        families = _names("shapes", args.shapes, tuple(FAMILIES), usual.families)
        middle = [_MIDDLE if _MIDDLE in negatives else negatives[0]]
        shapes = [
            (shape, negatives if lengths else middle) for shape, lengths in scaled(families, usual.scale)
        ]
    else:
        names = list(usual.shapes) if args.shapes is None else _parts("shapes", args.shapes)
        shapes = [(shape_named(name), negatives) for name in names]
    return [
        Cell(shape, batch, n, device, dtype)
        for shape, lengths in shapes
        for batch in batches
        for n in lengths
    ]


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
