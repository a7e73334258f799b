"""Which files in a WebUI's model folders a video can be made with: transformers, VAEs and text encoders.

Owns the search alone: what a file is, its header tells. Each is read once while it stays as it is, and none
can stop the search.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Iterable, Iterator
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
_log = logging.getLogger("vsf")


@dataclass(frozen=True)
class Found:
    """Sorted by path; a checkpoint with everything in it is in all three."""

    transformers: tuple[Path, ...] = ()
    vaes: tuple[Path, ...] = ()
    text_encoders: tuple[Path, ...] = ()


def search(folders: Iterable[Path]) -> Found:
    """What lies in folders and the folders in them; those that are not there have nothing."""
    files = sorted({path for folder in folders for path in walk(folder, (SAFETENSORS, GGUF))})
    told = {path: _told(path) for path in files}

    def of(kind: str) -> tuple[Path, ...]:
        return tuple(path for path in files if kind in told[path])

    return Found(of(kinds.TRANSFORMER), of(kinds.VAE), of(kinds.TEXT_ENCODER))


def walk(folder: Path, suffixes: Collection[str], depth: int = _DEEPEST) -> Iterator[Path]:
    """Files in a folder, the folders in it and linked ones, but none whose name begins with a dot."""
    return _files(folder, suffixes, depth, set())


def _files(folder: Path, suffixes: Collection[str], depth: int, seen: set[str]) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if real in seen:  # links may lead in a circle
        return
    seen.add(real)
    try:
        # Links last, so that what has a place of its own is named by it.
        entries = sorted(os.scandir(folder), key=lambda entry: (entry.is_symlink(), entry.name))
    except OSError:
        return
    for entry in entries:
        path = Path(entry.path)
        if entry.name.startswith("."):  # such as downloads on their way
            continue
        if _is(entry.is_dir) and depth:
            yield from _files(path, suffixes, depth - 1, seen)
        elif path.suffix.lower() in suffixes and _is(entry.is_file):
            yield path


def _is(kind: Callable[[], bool]) -> bool:
    try:
        return kind()
    except OSError:  # a link in a circle, or a disk that is away
        return False


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
        return _uses(path)
    except ModelError:
        return frozenset()
    except Exception:  # of a file that nobody thought of: the others are still found
        _log.warning("%s is left out, its header cannot be read", path, exc_info=True)
        return frozenset()


def _uses(path: Path) -> frozenset[str]:
    likely = kinds.kinds(read_header(path).tensors)
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
