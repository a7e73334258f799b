"""A benchmark's results as JSON and as text: their head, numbers with bands, the file.

Owns how numbers are rounded and shown. Knows no method.
"""

from __future__ import annotations

import json
import math
import os
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vsf_lib.errors import OutputError
from vsf_lib.files import reason, written_whole


def conditions(model: str, pairs: int, seeds: int, steps: int) -> dict[str, Any]:
    """The head of a benchmark's JSON: what its numbers depend on beside its settings."""
    import diffusers
    import torch

    return {
        "model": model,
        "pairs": pairs,
        "seeds": seeds,
        "steps": steps,
        "machine": platform.processor() or platform.machine(),
        "versions": {"torch": torch.__version__, "diffusers": diffusers.__version__},
    }


def number(value: Any) -> float | None:
    """A number as JSON, None where there is none."""
    return round(float(value), 4) if math.isfinite(value) else None


def numbers(*values: Any) -> list[float | None]:
    """A number and the ends of its band, as JSON."""
    return [number(value) for value in values]


def shown(values: Sequence[float | None], digits: int = 3, sign: str = "") -> str:
    """A number and its band, as text; `sign` "+" is for differences."""
    value, *ends = values
    if value is None:
        return "never"
    low, high = ends
    # The sum, because what is rounded to -0 is no less than nothing.
    texts = [f"{round(x, digits) + 0.0:{sign}.{digits}f}" for x in (value, low, high) if x is not None]
    return texts[0] if len(texts) < len(values) else f"{texts[0]} [{texts[1]} {texts[2]}]"


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table for a page: its head and its rows."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def progress(done: int, total: int, name: str) -> None:
    """One line to standard error, because minutes without a word look like a hang."""
    print(f"{done} of {total}: {name}", file=sys.stderr, flush=True)


def write_json(path: Path, result: dict[str, Any]) -> None:
    """Writes `result`; raises OutputError if it cannot."""
    text = json.dumps(result, indent=1) + "\n"
    write_whole(path, lambda part: part.write_text(text, "utf-8"), "the results", "--json")


def write_whole(path: Path, write: Callable[[Path], object], what: str, flag: str) -> None:
    """Has `write` fill a file that becomes `path`, whole or not at all; raises OutputError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as part:
            write(part)
    except OSError as error:
        found = reason(error)
        raise OutputError(f"{what} cannot be written to {path} ({found}); choose another {flag}") from error


def check_target(path: Path | None, flag: str) -> None:
    """Finds out before the work whether its results will have a place; raises OutputError."""
    if path is None:
        return
    what = {"--sheet": "the contact sheet", "--plot": "the plot"}.get(flag)
    if what is not None and path.suffix.lower() != ".png":
        raise OutputError(f"{flag} is {path}, but {what} is a .png file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{flag}: the folder {path.parent} cannot be made ({error})") from error
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise OutputError(f"{flag}: {path} cannot be written; choose another file")
