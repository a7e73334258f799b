"""Says where in a picture each part is: one map per part, and one of the whole object.

A small fully convolutional network trained on renders only (training/finder.py). It is given nothing but the
picture: not the prompt, not what the model attended to. So it can say whether attention points at a part.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from vsf_lib.scenes.weights_file import load_weights, pixels_of, save_weights
from vsf_lib.scenes.world import PARTS

OBJECT = "object"
"""The channel of the object with all its parts."""
CHANNELS: tuple[str, ...] = (*PARTS, OBJECT)
WEIGHTS = Path(__file__).parent / "weights" / "finder.safetensors"

FEWEST_PIXELS = 8
"""A part of fewer pixels is not found: the smallest whole one that is ever drawn, a beak, has 20."""

_WIDTHS = (16, 24, 32, 48)


class _Block(nn.Module):
    """Two convolutions, each with its norm."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(channels_out)
        self.second = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first_norm(self.first(x)))
        return F.relu(self.second_norm(self.second(x)))


class FinderNet(nn.Module):
    """Pixels `[n, 3, h, w]` in -1..1, sides multiples of 8, to logits `[n, channels, h, w]`.

    Down to an eighth of the size, where a cell sees the whole object, and back up beside what was seen on the
    way down (a U-Net).
    """

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            _Block(before, after) for before, after in zip((3, *_WIDTHS), _WIDTHS, strict=False)
        )
        self.up = nn.ModuleList(
            _Block(low + high, high) for high, low in zip(_WIDTHS[-2::-1], _WIDTHS[:0:-1], strict=True)
        )
        # Not at once to the channels, of which there are more than features: parts of other objects would
        # be seen where a linear map cannot tell them apart.
        self.head = nn.Sequential(nn.Conv2d(_WIDTHS[0], 64, 1), nn.ReLU(), nn.Conv2d(64, len(CHANNELS), 1))
        # Nearly every pixel of every channel is empty.
        nn.init.constant_(self.head[-1].bias, -4.0)  # type: ignore[arg-type]

    def forward(self, pixels: Tensor) -> Tensor:
        x, seen = pixels, []
        for number, block in enumerate(self.down):
            x = block(x if number == 0 else F.max_pool2d(x, 2))
            seen.append(x)
        for block, beside in zip(self.up, seen[-2::-1], strict=True):
            x = block(torch.cat([F.interpolate(x, scale_factor=2.0), beside], 1))
        logits: Tensor = self.head(x)
        return logits


class Finder:
    """The trained network behind a plain call."""

    def __init__(self, net: FinderNet) -> None:
        self._net = net.eval()

    @classmethod
    def load(cls, path: Path = WEIGHTS) -> Finder:
        """The finder that is shipped. Raises ModelError when its file is missing or damaged."""
        net = FinderNet()
        load_weights(net, path, "part finder")
        return cls(net)

    def save(self, path: Path) -> None:
        """Writes the weights in half precision."""
        save_weights(self._net, path)

    @torch.inference_mode()
    def __call__(self, images: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
        """How sure it is, float32 `[n, channels, 64, 64]` from 0 to 1, of uint8 pictures `[n, 64, 64, 3]`."""
        pixels = pixels_of(images)
        return np.concatenate([self._net(chunk).sigmoid().numpy() for chunk in pixels.split(64)])

    def masks(self, images: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
        """Bool `[n, channels, 64, 64]`: each part's pixels; none at all where it was not found."""
        masks: np.ndarray = self(images) > 0.5
        masks[masks.sum((2, 3)) < FEWEST_PIXELS] = False
        return masks
