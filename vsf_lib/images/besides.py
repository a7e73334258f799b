"""Files that go with a picture, by their names: the one without guidance, the heat map, a sweep's film."""

from __future__ import annotations

import re
from pathlib import Path

WITHOUT, HEATMAP = "without", "heatmap"
_BESIDE = re.compile(rf"(.+)-(?:{WITHOUT}|{HEATMAP}(?:-\d+)?)")


def beside(path: Path, what: str) -> Path:
    """The file for something that goes with the picture `path`."""
    return path.with_name(f"{path.stem}-{what}{path.suffix}")


def is_beside(path: Path) -> bool:
    """Whether a picture goes with another one that is there."""
    found = _BESIDE.fullmatch(path.stem)
    return found is not None and path.with_name(f"{found[1]}{path.suffix}").exists()
