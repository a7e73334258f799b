"""What `scenes train --model flux-dev` and `flux-schnell` run, in order, and how those models are written."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from vsf_lib.scenes.judge import WEIGHTS, Judge
from vsf_lib.scenes.loading import load_pipeline
from vsf_lib.scenes.model import FOLDER, MODELS
from vsf_lib.scenes.training import flux, flux_distil, traces
from vsf_lib.scenes.training.command import Stage, log, passed, traced
from vsf_lib.scenes.training.common import Scores


def stages(
    model: str, work: Path, scale: float, device: str, workers: int = 1, shared: Path = FOLDER
) -> list[Stage]:
    """A Flux model's, in the form of `command.stages`: it learns from the scenes model in `shared`.

    flux-schnell begins as flux-dev.
    """

    def n(number: int) -> int:
        return max(1, round(number * scale))

    begin = traced(work, scale, device, workers, shared)

    def both_stages(name: str, first: int, count: int, second: int) -> list[Stage]:
        train: dict[str, Any] = {"batch": 64, "device": device, "workers": workers}
        return [
            (
                f"{name}, begun",
                f"{name}-begun.pt",
                lambda: flux_distil.train(work, shared, name, steps=n(first), **train),
            ),
            (
                f"{name}'s own traces",
                f"traces-of-{name}.pt",
                lambda: traces.trace(
                    work, shared, count=n(count), student=name, device=device, workers=workers, seed=61
                ),
            ),
            (
                name,
                f"{name}.pt",
                lambda: flux_distil.go_on(work, shared, name, steps=n(second), **train),
            ),
        ]

    dev = both_stages("flux-dev", 7000, 4000, 3000)
    schnell = both_stages("flux-schnell", 800, 2000, 1200)
    return [*begin, *dev] if model == "flux-dev" else [*begin, *dev, *schnell]


def export(model: str, work: Path, out: Path | None, *, below_gate: bool = False) -> None:
    """Writes a Flux transformer in half precision, measured as written, with the scenes model's other parts.

    Raises ModelError if it misses the gate, unless `below_gate`.
    """
    transformer = flux.load(work / f"{model}.pt", guidance=model == "flux-dev")
    built = work / model
    transformer.to(torch.float16).save_pretrained(built)
    judge, steps = Judge.load(WEIGHTS), (MODELS[model].steps,)
    scores = passed(load_pipeline(built), judge, steps, below_gate=below_gate)
    target = (FOLDER.parent if out is None else out) / model
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(built, target)
    for folder in (work, target.parent):
        Scores(folder / "scores.json").add(model, **scores)
    log.info("exported to %s", target)
