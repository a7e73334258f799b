"""`python -m vsf_lib bench model`: what is usual for it, and how one cell of it is measured.

Owns the command. Flags, course and output are those of all benchmarks of speed.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vsf_lib.bench.speed import asked
from vsf_lib.bench.speed.asked import Asked, Usual, Usuals
from vsf_lib.bench.speed.shapes import Scale
from vsf_lib.bench.speed.study import conduct, keep

if TYPE_CHECKING:
    from torch import nn

    from vsf_lib.bench.speed.course import Cell, Row
    from vsf_lib.bench.speed.shapes import Shape
    from vsf_lib.bench.speed.timing import Pace

_PART = "blocks"

# A block of SD3.5 large at 1024x1024 takes 0.8 TFLOP, one of Wan at 81 frames 9, and ten steps make a round:
# a CPU of two cores measures smaller pictures, where guidance costs a larger share.
_SMALL = ("sd35-large-512", "sd35-medium-512", "flux-384", "wan-1.3b-480p-1f")
_TINY = ("sd35-large-256", "sd35-medium-256", "flux-256", "wan-1.3b-480p-1f")
_SD3 = ("sd35-large", "sd35-medium")
_CPU = Usual(shapes=_SMALL, negatives="20", part=1, seconds=240, least=2, warm=False)
_GPU = Usual(batches="1,4", rounds=10, seconds=900, least=2)
_CPU_SCALING = replace(
    _CPU, families=_SD3, scale=Scale((256, 512, 1024), (1, 5), 512, 5), negatives=asked.NEGATIVES
)
_GPU_SCALING = replace(_GPU, batches="1", seconds=480)
USUALS = Usuals(
    cpu=_CPU,
    gpu=_GPU,
    cpu_quick=replace(_CPU.quick(90), shapes=_TINY),
    gpu_quick=replace(_GPU.quick(120), batches="1"),
    cpu_scaling=_CPU_SCALING,
    gpu_scaling=_GPU_SCALING,
    cpu_scaling_quick=replace(
        _CPU_SCALING.quick(90),
        families=_SD3[1:],
        scale=Scale((128, 256, 512), (1, 5), 256, 5),
        negatives=asked.NEGATIVES,
    ),
    gpu_scaling_quick=replace(_GPU_SCALING.quick(120), negatives=asked.NEGATIVES),
)


def add_arguments(parser: ArgumentParser) -> None:
    """The command's options."""
    asked.add_flags(parser, USUALS, _PART)


def read(args: Namespace) -> Asked:
    """What is asked for, checked."""
    return asked.read(args, "model", USUALS, _PART)


def run(args: Namespace) -> int:
    """Measures and prints; raises VSFError for what the user can mend."""
    found = read(args)
    return keep(found, measure(found))


def measure(what: Asked) -> dict[str, Any]:
    """The results as JSON."""
    import diffusers

    networks = _Networks(what)
    return conduct(
        what,
        lambda cell, pace: measure_cell(cell, networks.of(cell.shape), what, pace),
        diffusers=diffusers.__version__,
    )


def measure_cell(cell: Cell, network: nn.Module, what: Asked, pace: Pace) -> list[Row]:
    """The rows of one cell."""
    from vsf_lib.bench.model.networks import blocks_of
    from vsf_lib.bench.model.steps import Steps
    from vsf_lib.bench.model.work import floor
    from vsf_lib.bench.speed import course

    blocks, every = blocks_of(cell.shape, what.part)
    head = cell.head(what.study) | {
        "blocks": blocks.count,
        "blocks_of_model": every.count,
        "part": f"{blocks.count} of {every.count} blocks",
        "whole": blocks == every,
        "weight_bytes": sum(x.numel() * x.element_size() for x in network.parameters()),
    }
    with ExitStack() as undo:
        steps = Steps.of(cell, network, undo)
        rows = course.measure(
            cell,
            head,
            steps.unguided(),
            steps.calls(what.methods, every_kernel=what.every_kernel),
            lambda method: floor(method, cell.shape, blocks, cell.n_n, cell.batch),
            pace=pace,
            warm=what.warm,
        )
    for row in rows:
        if row["whole"] and row.get("extra_bytes") is not None:  # of some blocks it would say nothing
            row["extra_share"] = round(row["extra_bytes"] / (row["weight_bytes"] + row["unguided_bytes"]), 5)
    return rows


class _Networks:
    """The network of the shape that is being measured; the one before makes room for it."""

    def __init__(self, what: Asked) -> None:
        self._what = what
        self._shape: Shape | None = None
        self._network: nn.Module | None = None

    def of(self, shape: Shape) -> nn.Module:
        from vsf_lib.bench.model.networks import blocks_of, build

        if self._network is None or shape != self._shape:
            self._network = None
            blocks, _ = blocks_of(shape, self._what.part)
            self._network, self._shape = build(shape, blocks, self._what.device, self._what.dtype), shape
        return self._network
