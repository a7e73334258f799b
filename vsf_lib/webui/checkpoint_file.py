"""What a checkpoint file holds, told from the names in its header without loading it.

Both formats that WebUIs load begin with the names of their tensors: safetensors as JSON, GGUF as a table.
"""

from __future__ import annotations

from pathlib import Path

from vsf_lib.webui.request import Checkpoint

_HEADER = 16 * 2**20
"""Bytes; the largest headers seen have under two million."""


def peek(path: Path) -> Checkpoint | None:
    """The checkpoint in `path`, or None where it cannot be told: unreadable, or of another format."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if path.suffix.lower() == ".safetensors":
                names = file.read(min(size, _HEADER))
            elif path.suffix.lower() == ".gguf":
                names = file.read(_HEADER)
            else:
                return None
    except OSError:
        return None
    if b"joint_blocks.0." in names:
        return Checkpoint(path.name, "SD3.5")
    if b"double_blocks.0.txt_mod." in names:
        return Checkpoint(path.name, "Flux", guidance_embedding=b"guidance_in." in names)
    return Checkpoint(path.name, None)
