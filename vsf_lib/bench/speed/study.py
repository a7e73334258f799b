"""A study: its cells one after another within the time that it may take, and what becomes of the results.

Owns the order, the sharing of the time, and the head of the JSON. Knows neither attention nor network.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from vsf_lib.bench.results import progress, write_json
from vsf_lib.bench.speed.asked import Asked
from vsf_lib.bench.speed.course import Cell, Row, why
from vsf_lib.bench.speed.timing import Pace
from vsf_lib.cli.console import result
from vsf_lib.errors import is_out_of_memory

Measure = Callable[[Cell, Pace], list[Row]]


def conduct(asked: Asked, measure: Measure, **versions: str) -> dict[str, Any]:
    """The JSON of all cells. A cell that does not fit into the memory has a row that says so."""
    rows: list[Row] = []
    began = time.monotonic()
    for number, cell in enumerate(asked.cells):
        progress(
            number,
            len(asked.cells),
            f"{asked.study}: {cell.shape.name}, batch {cell.batch}, {cell.n_n} negative tokens",
        )
        left = asked.seconds - (time.monotonic() - began)
        pace = replace(asked.pace, seconds=left / (len(asked.cells) - number))
        try:
            rows += measure(cell, pace)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            told = "out of memory" if isinstance(error, MemoryError) else why(error)
            rows.append({**cell.head(asked.study), "method": "all", "kernel": "-", "failed": told})
    return {**conditions(asked, **versions), "rows": rows}


def conditions(asked: Asked, **versions: str) -> dict[str, Any]:
    """The head of the JSON."""
    import torch

    from vsf_lib import __version__
    from vsf_lib.bench.speed.machine import describe

    return {
        "study": asked.study,
        "machine": describe(asked.device),
        "versions": {"torch": torch.__version__, "vsf": __version__, **versions},
        "dtype": str(asked.dtype).removeprefix("torch."),
    }


def show(found: dict[str, Any]) -> None:
    """Prints the table."""
    from vsf_lib.bench.speed.scaling import scaling_table
    from vsf_lib.bench.speed.table import table

    text = scaling_table(found) if found["study"].endswith("-scaling") else table(found)
    for line in text.split("\n"):
        result(line)


def draw(path: Path, found: dict[str, Any]) -> None:
    """Draws the plot."""
    from vsf_lib.bench.speed import plot, scaling_plot

    (scaling_plot if found["study"].endswith("-scaling") else plot).draw(path, found)
    result(f"plot: {path}")


def keep(asked: Asked, found: dict[str, Any]) -> int:
    """Prints, writes and draws; returns the exit code."""
    show(found)
    if asked.json is not None:
        write_json(asked.json, found)
        result(f"results: {asked.json}")
    if asked.plot is not None:
        draw(asked.plot, found)
    return 0
