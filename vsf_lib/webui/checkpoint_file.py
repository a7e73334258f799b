"""What a checkpoint file holds, told from the names in its header without loading it.

Both formats that WebUIs load begin with the names of their tensors: safetensors as JSON, GGUF as a table.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO

from vsf_lib.webui.request import Checkpoint

_HEADER = 16 * 2**20
"""Bytes; the largest headers seen have under two million."""


def peek(path: Path) -> Checkpoint | None:
    """The checkpoint in `path`, or None where it cannot be told: unreadable, or of another format."""
    try:
        with path.open("rb") as file:
            names = _gguf(file) if path.suffix.lower() == ".gguf" else _safetensors(file)
    except OSError:
        return None
    if names is None:
        return None
    if b"joint_blocks.0." in names:
        return Checkpoint(path.name, "SD3.5")
    if b"double_blocks.0.txt_mod." in names:
        return Checkpoint(path.name, "Flux", guidance_embedding=b"guidance_in." in names)
    if b"blocks.0.cross_attn.norm_k." in names and b"text_embedding.0." in names:
        return Checkpoint(path.name, "Wan")
    return Checkpoint(path.name, None)


def _safetensors(file: IO[bytes]) -> bytes | None:
    size = int.from_bytes(file.read(8), "little")
    names = file.read(min(size, _HEADER))
    # A cut file, and the pointer that git-lfs leaves in place of one, hold no such header.
    return names if len(names) == size and names[:1] == b"{" and names.rstrip()[-1:] == b"}" else None


def _gguf(file: IO[bytes]) -> bytes | None:
    names = file.read(_HEADER)
    return names if names[:4] == b"GGUF" else None
