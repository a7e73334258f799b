"""Files that go with a picture, by their names: the one without guidance, the heat map, a sweep's film."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

from vsf_lib.files import free_name

WITHOUT, HEATMAP = "without", "heatmap"
_BESIDE = re.compile(rf"(.+)-(?:{WITHOUT}|{HEATMAP}(?:-\d+)?)")


def beside(path: Path, what: str) -> Path:
    """The file for something that goes with the picture `path`."""
    return path.with_name(f"{path.stem}-{what}{path.suffix}")


def is_beside(path: Path) -> bool:
    """Whether a picture goes with another one that is there."""
    found = _BESIDE.fullmatch(path.stem)
    return found is not None and path.with_name(f"{found[1]}{path.suffix}").exists()


def free_path(folder: Path, prompt: str, seed: int) -> Path:
    """A free name for a picture, beside which nothing of an older one lies that is gone."""
    rests = (str(seed) if again == 1 else f"{seed}-{again}" for again in itertools.count(1))
    paths = (free_name(folder, prompt, rest, ".png") for rest in rests)
    return next(path for path in paths if not any(beside(path, one).exists() for one in (WITHOUT, HEATMAP)))
