"""`python -m vsf_lib bench attention`: what is usual for it, and how one cell of it is measured.

Owns the command. Flags, course and output are those of all benchmarks of speed.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vsf_lib.bench.speed import asked
from vsf_lib.bench.speed.asked import Asked, Usual, Usuals
from vsf_lib.bench.speed.shapes import Scale
from vsf_lib.bench.speed.study import conduct, keep

if TYPE_CHECKING:
    from vsf_lib.bench.speed.course import Cell, Row
    from vsf_lib.bench.speed.timing import Pace

_PART = "heads"

# All heads of all shapes would take a CPU of two cores most of an hour. Each head costs the same.
_CPU = Usual(part=2)
_GPU = Usual(batches="1,4", rounds=20, repeat=10, seconds=240)
USUALS = Usuals(
    cpu=_CPU,
    gpu=_GPU,
    cpu_quick=replace(_CPU.quick(60), part=1),
    gpu_quick=replace(_GPU.quick(60), batches="1"),
    cpu_scaling=_CPU,
    gpu_scaling=replace(_GPU, batches="1"),
    cpu_scaling_quick=replace(
        _CPU.quick(60), part=1, scale=Scale((256, 512), (1, 5), 512, 5), negatives=asked.NEGATIVES
    ),
    gpu_scaling_quick=replace(_GPU.quick(60), batches="1", negatives=asked.NEGATIVES),
)


def add_arguments(parser: ArgumentParser) -> None:
    """The command's options."""
    asked.add_flags(parser, USUALS, _PART)


def read(args: Namespace) -> Asked:
    """What is asked for, checked."""
    return asked.read(args, "attention", USUALS, _PART)


def run(args: Namespace) -> int:
    """Measures and prints; raises VSFError for what the user can mend."""
    found = read(args)
    return keep(found, measure(found))


def measure(what: Asked) -> dict[str, Any]:
    """The results as JSON."""
    return conduct(what, lambda cell, pace: measure_cell(cell, what, pace))


def measure_cell(cell: Cell, what: Asked, pace: Pace) -> list[Row]:
    """The rows of one cell."""
    from vsf_lib.bench.attention.calls import calls, unguided
    from vsf_lib.bench.attention.work import floor
    from vsf_lib.bench.speed import course

    shape, all_heads = cell.shape, cell.shape.heads
    if what.part is not None:
        cell = replace(cell, shape=replace(shape, heads=min(what.part, all_heads)))
    heads = cell.shape.heads
    head = cell.head(what.study) | {
        "heads": heads,
        "heads_of_model": all_heads,
        "part": f"{heads} of {all_heads} heads x {shape.width}",
        "whole": heads == all_heads,
    }
    return course.measure(
        cell,
        head,
        unguided(cell),
        calls(cell, what.methods, every_kernel=what.every_kernel),
        lambda method: floor(method, cell.shape, cell.n_n, cell.batch),
        pace=pace,
        warm=what.warm,
    )
