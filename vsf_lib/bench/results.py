"""A benchmark's results as JSON and as text: their head, numbers with bands, the file.

Owns how numbers are rounded and shown. Knows no method.
"""

from __future__ import annotations

import json
import math
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vsf_lib.errors import OutputError


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


def shown(values: Sequence[float | None], digits: int = 3) -> str:
    """A number and its band, as text."""
    value, *ends = values
    if value is None:
        return "never"
    low, high = ends
    if low is None or high is None:
        return f"{value:.{digits}f}"
    return f"{value:.{digits}f} [{low:.{digits}f} {high:.{digits}f}]"


def progress(done: int, total: int, name: str) -> None:
    """One line to standard error, because minutes without a word look like a hang."""
    print(f"{done} of {total}: {name}", file=sys.stderr, flush=True)


def write_json(path: Path, result: dict[str, Any]) -> None:
    """Writes `result`; raises OutputError if it cannot."""
    try:
        path.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    except OSError as error:
        raise OutputError(f"the results cannot be written to {path} ({error})") from error
