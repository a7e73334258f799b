"""How much main memory a job will need and how much there is: an estimate, to warn before it is too late.

Reads file headers only. Knows no model: the parameters of a stage's files are what has to fit.
"""

from __future__ import annotations

import math
from pathlib import Path

from vsf_lib.errors import ModelError
from vsf_lib.video.builtin import model_path
from vsf_lib.video.job import VideoJob
from vsf_lib.video.single_file.headers import SAFETENSORS, read_header
from vsf_lib.video.single_file.parts import look
from vsf_lib.video.single_file.weights import Part

_ROOM = 2 * 2**30
"""Bytes beside the weights: the packages, and what is worked on."""


def shortage(job: VideoJob, *, bytes_each: int, free: int | None) -> str:
    """One sentence if the job will hardly fit into `free` bytes, else nothing, also where it cannot be told.

    `bytes_each` is how large a parameter is once loaded.
    """
    needed = need(job, bytes_each)
    if needed is None or free is None or needed <= free:
        return ""
    return f"this video needs about {_gigabytes(needed)} GB of memory, and {_gigabytes(free)} GB are free"


def need(job: VideoJob, bytes_each: int) -> int | None:
    """Bytes of main memory: the text encoder comes and goes before the rest, so the larger of both counts.

    None where it cannot be told: a model that is not here, or a file that cannot be used.
    """
    try:
        files, folder = look(job), model_path(job.model)
    except ModelError:
        return None
    texts = folder / "text_encoder" if files.text is None else files.text.encoder
    transformer = files.transformer or folder / "transformer"
    vae = files.vae or folder / "vae"
    sizes = [[_bytes(part, bytes_each) for part in stage] for stage in ([texts], [transformer, vae])]
    if not all(size for stage in sizes for size in stage):
        return None
    return max(map(sum, sizes)) + _ROOM


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
        return sum(math.prod(entry.shape) for entry in read_header(file).tensors.values())
    except ModelError:
        return None


def _bytes(part: Part | Path, bytes_each: int) -> int:
    """What a network becomes, of its tensors in a file or of the files in its folder; 0 if it has none."""
    if isinstance(part, Part):
        if part.header.gguf:  # stays as small as it is
            return part.header.path.stat().st_size
        tensors = part.header.tensors
        return bytes_each * sum(math.prod(tensors[name].shape) for name in set(part.names.values()))
    # A second ending is a variant, such as `.fp16`, which is not what is loaded.
    files = [file for file in sorted(part.glob(f"*{SAFETENSORS}")) if "." not in file.stem]
    counts = [(file, parameters(file)) for file in files]
    return sum(file.stat().st_size if count is None else count * bytes_each for file, count in counts)


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f}"
