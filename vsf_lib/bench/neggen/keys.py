"""Under which names pictures and answers are kept: digests of all that they depend on.

Owns what counts as the same picture and the same answer. Draws and asks nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_LETTERS = 20
_PIECE = 64 * 1024
_PIECES = 16
_READ = ("*.safetensors", "*.json", "*.txt", "*.model")


def digest(content: Mapping[str, Any]) -> str:
    """The key of what `content`, plain JSON, describes; the order of its names does not matter."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_LETTERS]


def fingerprint(*places: Path) -> str:
    """Changes with a model's files, of which it reads samples: whole ones are tens of gigabytes.

    Training moves every weight, so that pieces from all over a file tell two models apart; where the files
    lie and when they were written does not matter.
    """
    total = hashlib.sha256()
    for place in places:
        files = [place] if place.is_file() else [file for kind in _READ for file in place.rglob(kind)]
        for file in sorted(files):
            total.update(f"{file.relative_to(place).as_posix()}\0{file.stat().st_size}\0".encode())
            total.update(_sample(file))
    return total.hexdigest()[:_LETTERS]


def _sample(file: Path) -> bytes:
    size = file.stat().st_size
    with file.open("rb") as content:
        if size <= _PIECE * _PIECES:
            return hashlib.sha256(content.read()).digest()
        taken = hashlib.sha256()
        for piece in range(_PIECES):
            content.seek((size - _PIECE) * piece // (_PIECES - 1))
            taken.update(content.read(_PIECE))
        return taken.digest()
