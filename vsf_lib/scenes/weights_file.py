"""The small networks that read pictures, on disk and at their input: what judge and part finder share.

Owns the file's form (half precision) and the pixels' range. Knows neither network.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vsf_lib.errors import ModelError


def load_weights(net: nn.Module, path: Path, whose: str) -> None:
    """Fills `net` in float32; raises ModelError, which names `whose` they are, for a file that is no good."""
    try:
        net.load_state_dict({name: t.float() for name, t in load_file(path).items()})
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ModelError(
            f"the {whose}'s weights at {path} cannot be read ({error}); check them out again"
        ) from error


def save_weights(net: nn.Module, path: Path) -> None:
    """Writes them in half precision."""
    state = net.state_dict()
    # Training leaves the weights channels-last, which a safetensors file cannot hold.
    half = {n: (t.half() if t.is_floating_point() else t).contiguous() for n, t in state.items()}
    save_file(half, path)


def pixels_of(images: np.ndarray | Sequence[np.ndarray]) -> Tensor:
    """uint8 pictures `[n, h, w, 3]`, RGB, as float32 `[n, 3, h, w]` from -1 to 1."""
    return torch.from_numpy(np.stack(list(images))).permute(0, 3, 1, 2).float().div(127.5).sub(1)
