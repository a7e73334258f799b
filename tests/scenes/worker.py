"""What the test of training in several processes runs in them; light, because each process imports it."""

from __future__ import annotations

from pathlib import Path

import torch

from vsf_lib.scenes.training.common import run_steps


def note_weight(rank: int, workers: int, folder: Path) -> None:
    """One step of a weight whose gradient is 1 in the first process and 3 in the second."""
    weight = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([weight], lr=1.0)
    run_steps(1, 1.0, [optimiser], lambda step: (weight * (1 + 2 * rank)).sum(), clip=100.0)
    (folder / f"{rank}").write_text(f"{workers} {float(weight.detach()):.4f}", "utf-8")
