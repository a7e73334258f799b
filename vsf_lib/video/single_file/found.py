"""Which files in a WebUI's model folders a video can be made with: transformers, VAEs and text encoders.

Owns the search alone: what a file is, its header tells. Each is read once while it stays as it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from vsf_lib.errors import ModelError
from vsf_lib.video.single_file import kinds
from vsf_lib.video.single_file import transformer as transformer_file
from vsf_lib.video.single_file import vae as vae_file
from vsf_lib.video.single_file.headers import GGUF, SAFETENSORS, read_header

_DEEPEST = 4
"""Folders in folders; models are not sorted deeper, and other things may be large."""


@dataclass(frozen=True)
class Found:
    """Sorted by path; a checkpoint with everything in it is in all three."""

    transformers: tuple[Path, ...] = ()
    vaes: tuple[Path, ...] = ()
    text_encoders: tuple[Path, ...] = ()


def search(folders: Iterable[Path]) -> Found:
    """What lies in folders and the folders in them; those that are not there have nothing."""
    files = sorted({path for folder in folders for path in _files(folder, _DEEPEST, set())})
    told = {path: _told(path) for path in files}

    def of(kind: str) -> tuple[Path, ...]:
        return tuple(path for path in files if kind in told[path])

    return Found(of(kinds.TRANSFORMER), of(kinds.VAE), of(kinds.TEXT_ENCODER))


def _files(folder: Path, depth: int, seen: set[str]) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if real in seen:  # links may lead in a circle
        return
    seen.add(real)
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        path = Path(entry.path)
        if entry.is_dir() and depth:
            yield from _files(path, depth - 1, seen)
        elif path.suffix.lower() in (SAFETENSORS, GGUF) and entry.is_file():
            yield path


def _told(path: Path) -> frozenset[str]:
    try:
        stat = path.stat()
    except OSError:
        return frozenset()
    return _usable(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=4096)
def _usable(path: Path, mtime: int, size: int) -> frozenset[str]:
    """What the file can be used as. `mtime` and `size` tell it from another one of the same name."""
    try:
        likely = kinds.kinds(read_header(path).tensors)
    except ModelError:
        return frozenset()
    looks = {kinds.TRANSFORMER: transformer_file.look, kinds.VAE: vae_file.look}
    usable = set()
    for kind in likely:
        if kind == kinds.TEXT_ENCODER:
            usable.add(kind)  # where its tokenizer is missing, the job says what to put where
        elif kind in looks:
            try:
                looks[kind](path)
            except ModelError:
                continue
            usable.add(kind)
    return frozenset(usable)
