"""Measures cell after cell: warm-up, peak memory, interleaved rounds; and makes the rows of the result.

Owns the course and the row. Knows no flag and no file.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from vsf_lib.bench.attention.calls import Call, Cell, calls, unguided
from vsf_lib.bench.attention.machine import peak_bytes, wait_for
from vsf_lib.bench.attention.shapes import SHAPES, floor
from vsf_lib.bench.attention.timing import interleaved, ratio
from vsf_lib.errors import is_out_of_memory

Row = dict[str, Any]


def measure(
    cell: Cell,
    methods: Sequence[str],
    *,
    rounds: int,
    repeat: int,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Row]:
    """A row for each of `methods` by each kernel, all set against the unguided call of the same round.

    A method that this machine's kernels refuse has a row that says so, instead of ending the others.
    """
    wait = wait_for(cell.device)
    with torch.inference_mode():
        own = unguided(cell)
        own_bytes = _bytes(cell, own)
        fit, failed = [], []
        for call in calls(cell, methods):
            try:
                fit.append((call, _bytes(cell, call)))
            except RuntimeError as error:
                failed.append(_head(cell, call) | {"failed": _why(error)})
        runs = [own.run, *(call.run for call, _ in fit)]
        own_seconds, *seconds = interleaved(runs, rounds, calls=repeat, clock=clock, wait=wait)
    rows = []
    for (call, taken), found in zip(fit, seconds, strict=True):
        middle, low, high = ratio(found, own_seconds)
        least = floor(call.method, cell.shape, cell.n_n)
        rows.append(
            _head(cell, call)
            | {
                "ratio": round(middle, 4),
                "ratio_min": round(low, 4),
                "ratio_max": round(high, 4),
                "extra_bytes": None if taken is None or own_bytes is None else taken - own_bytes,
                "unguided_bytes": own_bytes,
                "floor": round(least.flops, 5),
                "floor_moved": round(least.moved, 5),
                "seconds": statistics.median(found),
                "unguided_seconds": statistics.median(own_seconds),
            }
        )
    return rows + failed


def _head(cell: Cell, call: Call) -> Row:
    """What a row is about."""
    return {
        "shape": cell.shape.name,
        "method": call.method,
        "kernel": call.kernel,
        "auto": call.auto,
        "negative_tokens": cell.n_n,
        "batch": cell.batch,
        "heads": cell.shape.heads,
        "heads_of_model": SHAPES[cell.shape.name].heads,
    }


def _bytes(cell: Cell, call: Call) -> int | None:
    """The peak of a call and all that it holds, after a first call that warms it up."""
    call.run()  # what is made once and kept is not the call's
    taken = peak_bytes(cell.device, call.run)
    return None if taken is None else taken + _held(call.held)


def _held(tensors: Iterable[torch.Tensor]) -> int:
    return sum(x.numel() * x.element_size() for x in tensors)


def _why(error: RuntimeError) -> str:
    return "out of memory" if is_out_of_memory(error) else str(error).strip().split("\n")[0]
