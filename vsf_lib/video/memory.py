"""How much main memory a job will need and how much there is: an estimate, to warn before it is too late.

Reads file headers only. Knows no model: the parameters of a stage's files are what has to fit.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

from vsf_lib.video.job import VideoJob

_ROOM = 2 * 2**30
"""Bytes beside the weights: the packages, and what is worked on."""
_LONGEST_HEADER = 100 * 2**20


def shortage(job: VideoJob, *, bytes_each: int, free: int | None) -> str:
    """One sentence if the job will hardly fit into `free` bytes, else nothing, also where it cannot be told.

    `bytes_each` is how large a parameter is once loaded.
    """
    needed = need(job, bytes_each)
    if needed is None or free is None or needed <= free:
        return ""
    return f"this video needs about {_gigabytes(needed)} GB of memory, and {_gigabytes(free)} GB are free"


def need(job: VideoJob, bytes_each: int) -> int | None:
    """Bytes of main memory: the text encoder comes and goes before the rest, so the larger of both counts."""
    stages = [[job.text_encoder or job.model], [job.model, job.vae]]
    within = [("text_encoder",), ("transformer", "vae")]
    sizes = []
    for sources, parts in zip(stages, within, strict=True):
        files = [file for source in sources if source for file in _files(Path(source).expanduser(), parts)]
        if not files:
            return None
        sizes.append(sum(_bytes(file, bytes_each) for file in files))
    return max(sizes) + _ROOM


def free() -> int | None:
    """Bytes of main memory that a program could have now; None where it cannot be told."""
    try:
        import psutil
    except ImportError:
        return None
    return int(psutil.virtual_memory().available)


def parameters(file: Path) -> int | None:
    """How many numbers a .safetensors file holds, by its header; None for a damaged one."""
    try:
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            if length > _LONGEST_HEADER:
                return None
            header = json.loads(opened.read(length))
    except (OSError, ValueError, struct.error):
        return None
    count = 0
    for name, tensor in header.items():
        if name == "__metadata__":
            continue
        size = 1
        for length in tensor["shape"]:
            size *= length
        count += size
    return count


def _files(source: Path, parts: tuple[str, ...]) -> list[Path]:
    if source.is_file():
        return [source]
    inside = [source / part for part in parts if (source / part).is_dir()] or [source]
    return [file for folder in inside for file in sorted(folder.glob("*.safetensors"))]


def _bytes(file: Path, bytes_each: int) -> int:
    count = parameters(file) if file.suffix.lower() == ".safetensors" else None
    return file.stat().st_size if count is None else count * bytes_each


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f}"
