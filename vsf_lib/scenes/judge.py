"""Reads a picture: which object in which colour and place, which parts, and is it a clean drawing.

A small convolutional network trained on renders only (training/judge.py); it never sees a generated picture
in training, and it is not told what was asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from vsf_lib.scenes.weights_file import load_weights, pixels_of, save_weights
from vsf_lib.scenes.world import COLOURS, KINDS, PARTS, PLACES

NOTHING = "nothing"
KIND_LABELS: tuple[str, ...] = (*KINDS, NOTHING)
PLACE_LABELS: tuple[str, ...] = tuple(PLACES)
WEIGHTS = Path(__file__).parent / "weights" / "judge.safetensors"


@dataclass(frozen=True)
class Verdict:
    """What the judge saw. `parts` holds those that are visible; probabilities are 0..1."""

    kind: str
    colour: str
    place: str
    parts: frozenset[str]
    clean: bool
    clean_probability: float


class _Residual(nn.Module):
    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(channels_out)
        self.second = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(channels_out)
        self.skip = nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.first_norm(self.first(x)))
        return F.relu(self.second_norm(self.second(y)) + self.skip(x))


class JudgeNet(nn.Module):
    """Pixels `[n, 3, 64, 64]` in -1..1 to logits `[n, labels]` of kind, colour, place, parts; clean `[n]`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 5, 2, 2)
        self.body = nn.Sequential(
            _Residual(24, 32, 1), _Residual(32, 64, 2), _Residual(64, 96, 2), _Residual(96, 128, 2)
        )
        self.heads = nn.ModuleDict(
            {
                "kind": nn.Linear(256, len(KIND_LABELS)),
                "colour": nn.Linear(256, len(COLOURS)),
                "place": nn.Linear(256, len(PLACE_LABELS)),
                "parts": nn.Linear(256, len(PARTS)),
                "clean": nn.Linear(256, 1),
            }
        )

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        features = self.body(F.relu(self.stem(pixels)))
        pooled = torch.cat([features.mean((2, 3)), features.amax((2, 3))], 1)
        logits = {name: head(pooled) for name, head in self.heads.items()}
        logits["clean"] = logits["clean"][:, 0]
        return logits


class Judge:
    """The trained network behind a plain call."""

    def __init__(self, net: JudgeNet) -> None:
        self._net = net.eval()

    @classmethod
    def load(cls, path: Path = WEIGHTS) -> Judge:
        """The judge that is shipped. Raises ModelError when its file is missing or damaged."""
        net = JudgeNet()
        load_weights(net, path, "judge")
        return cls(net)

    def save(self, path: Path) -> None:
        """Writes the weights in half precision."""
        save_weights(self._net, path)

    @torch.inference_mode()
    def __call__(self, images: np.ndarray | Sequence[np.ndarray]) -> list[Verdict]:
        """Verdicts on uint8 pictures `[n, 64, 64, 3]`, RGB."""
        pixels = pixels_of(images)
        verdicts = []
        for chunk in pixels.split(256):
            logits = self._net(chunk)
            clean = logits["clean"].sigmoid().tolist()
            for i in range(len(chunk)):
                parts = frozenset(p for p, x in zip(PARTS, logits["parts"][i].tolist(), strict=True) if x > 0)
                verdicts.append(
                    Verdict(
                        kind=KIND_LABELS[int(logits["kind"][i].argmax())],
                        colour=COLOURS[int(logits["colour"][i].argmax())],
                        place=PLACE_LABELS[int(logits["place"][i].argmax())],
                        parts=parts,
                        clean=clean[i] > 0.5,
                        clean_probability=clean[i],
                    )
                )
        return verdicts
