"""Measures one cell: warm-up, peak memory, interleaved rounds; and makes the rows of the result.

Owns the course and the row. Knows no attention, network, flag or file.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from vsf_lib.bench.speed.machine import peak_bytes, wait_for
from vsf_lib.bench.speed.shapes import Shape
from vsf_lib.bench.speed.timing import Pace, interleaved, ratio
from vsf_lib.errors import is_out_of_memory

Row = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One shape at one batch size and length of the negative prompt."""

    shape: Shape
    batch: int
    n_n: int
    device: torch.device
    dtype: torch.dtype

    def head(self, study: str) -> Row:
        """What its rows are about."""
        return {
            "study": study,
            "shape": self.shape.name,
            "shown": self.shape.shown,
            "family": self.shape.family.name,
            "image_tokens": self.shape.image,
            "negative_tokens": self.n_n,
            "batch": self.batch,
        }


@dataclass(frozen=True)
class Work:
    """What a method cannot do without, as multiples of the unguided's, and what of it is added."""

    flops: float
    """Multiplications and additions of linear layers and attention."""
    moved: float
    """Elements of weights, inputs and outputs, each read or written once."""
    added_flops: int = 0
    added_moved: int = 0


@dataclass(frozen=True)
class Call:
    """A method by one kernel."""

    method: str
    kernel: str
    run: Callable[[], Tensor]
    held: tuple[Tensor, ...] = ()
    """The tensors that it needs beside what it allocates."""
    auto: bool = True
    """Whether this kernel is what the method would take by itself."""
    begin: Callable[[], object] | None = None
    """What makes the next run the first of a generation, so that all that it keeps for others is counted."""


def measure(
    cell: Cell,
    head: Row,
    own: Call,
    calls: Iterable[Call],
    floor: Callable[[str], Work],
    *,
    pace: Pace,
    warm: bool = True,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Row]:
    """A row for each of `calls`, all set against the call `own` of the same round.

    `head` is what the rows are about. The pace's seconds are for all of it. Without `warm` the call whose
    memory is counted is the first one. A method that this machine's kernels refuse has a row that says so,
    instead of ending the others.
    """
    began, device = time.monotonic(), cell.device
    wait = wait_for(device)
    with torch.inference_mode():
        own_bytes = _bytes(device, own, warm=True)
        fit, failed = [], []
        for call in calls:
            try:
                fit.append((call, _bytes(device, call, warm=warm)))
            except RuntimeError as error:
                failed.append(_about(head, call) | {"failed": why(error)})
        runs = [own.run, *(call.run for call, _ in fit)]
        if pace.seconds is not None:
            pace = replace(pace, seconds=pace.seconds - (time.monotonic() - began))
        own_seconds, *seconds = interleaved(runs, pace, clock=clock, wait=wait)
    rows = []
    for (call, taken), found in zip(fit, seconds, strict=True):
        middle, low, high = ratio(found, own_seconds)
        least = floor(call.method)
        rows.append(
            _about(head, call)
            | {
                "ratio": round(middle, 4),
                "ratio_min": round(low, 4),
                "ratio_max": round(high, 4),
                "extra_bytes": None if taken is None or own_bytes is None else taken - own_bytes,
                "unguided_bytes": own_bytes,
                "floor": round(least.flops, 5),
                "floor_moved": round(least.moved, 5),
                "floor_added_flops": least.added_flops,
                "floor_added_bytes": least.added_moved * cell.dtype.itemsize,
                "over_floor": round(middle - least.flops, 4),
                "seconds": statistics.median(found),
                "unguided_seconds": statistics.median(own_seconds),
                "rounds": len(found),
                "calls": pace.calls,
            }
        )
    return rows + failed


def _about(head: Row, call: Call) -> Row:
    return {**head, "method": call.method, "kernel": call.kernel, "auto": call.auto}


def _bytes(device: torch.device, call: Call, *, warm: bool) -> int | None:
    """The peak of a call and all that it holds, with `warm` after one whose own leftovers do not count."""
    if warm:
        if call.begin is not None:
            call.begin()
        call.run()
    if call.begin is not None:
        call.begin()
    taken = peak_bytes(device, call.run)
    return None if taken is None else taken + _held(call.held)


def _held(tensors: Iterable[Tensor]) -> int:
    return sum(x.numel() * x.element_size() for x in tensors)


def why(error: RuntimeError) -> str:
    """An error in a few words, for a row and a line."""
    return "out of memory" if is_out_of_memory(error) else str(error).strip().split("\n")[0]
