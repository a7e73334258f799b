"""Makes the small Flux models out of the scenes model that is shipped: no other training is needed before.

A transformer of Flux's architecture learns velocities on ways from noise to a drawing. First the ways that
the scenes model takes with guidance by two passes, at many scales, of which a critic has dropped those that
do not end in their caption; then its own ways, where the scenes model says how it would go on: what a model
does after its own small errors it can only learn there.

`flux-dev` has the guidance scale as an input: guidance distillation, as the real one's is called.
`flux-schnell` begins as that at one scale and learns to go in four steps where the scenes model takes eight.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from vsf_lib.scenes.training import flux
from vsf_lib.scenes.training.common import in_parallel, learn, resume
from vsf_lib.scenes.training.text import Captions
from vsf_lib.scenes.training.traces import (
    TAUGHT,
    Traces,
    begun,
    field_of,
    load_teacher,
    random_scales,
    traces_file,
)

MUON = 10.0
"""Muon's learning rate by Adam's. At 1, 4 and 13 the loss after 120 steps was 1.53, 1.38 and 1.28."""


def train(
    folder: Path,
    teacher: Path,
    model: str,
    *,
    steps: int,
    batch: int,
    learning_rate: float = 2e-3,
    device: str = "cpu",
    workers: int = 1,
    seed: int = 31,
) -> None:
    """The first stage of flux-dev or flux-schnell, on the teacher's ways: writes `folder/<model>-begun.pt`.

    Interrupted runs of this and of `go_on` continue at their last checkpoint.
    """
    in_parallel(workers, _train, folder, teacher, model, False, steps, batch, learning_rate, device, seed)


def go_on(
    folder: Path,
    teacher: Path,
    model: str,
    *,
    steps: int,
    batch: int,
    learning_rate: float = 1e-3,
    device: str = "cpu",
    workers: int = 1,
    seed: int = 51,
) -> None:
    """The second stage, on the model's own ways too: writes `folder/<model>.pt`."""
    in_parallel(workers, _train, folder, teacher, model, True, steps, batch, learning_rate, device, seed)


def _train(
    rank: int,
    workers: int,
    folder: Path,
    teacher_folder: Path,
    model: str,
    second: bool,
    steps: int,
    batch: int,
    learning_rate: float,
    device: str,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    teacher, schnell = load_teacher(teacher_folder, device), model == "flux-schnell"
    traces = Traces.load(traces_file(folder, None))
    if schnell:
        traces = traces.coarse()
    if second:
        student = begun(folder, model)
        traces = Traces.joined([traces, Traces.load(traces_file(folder, model))])
    elif schnell:
        student = flux.without_guidance(flux.load(folder / "flux-dev.pt", guidance=True), TAUGHT)
    else:
        student = flux.build(guidance=True)
        flux.adopt(student, teacher)
    file = folder / (f"{model}.pt" if second else f"{model}-begun.pt")
    start, rng = resume(file, [student], seed, rank)
    student.to(device)
    captions = Captions([[text] for text in traces.captions])

    def loss_at(step: int) -> Tensor:
        index, clip, t5 = captions.batch(rng, batch // workers, dropped=0.0 if schnell else 0.04)
        which = torch.from_numpy(index)
        at = torch.randint(traces.blank.shape[1], (len(which),))
        scale = torch.where(torch.rand(len(which)) < 0.5, traces.scale[which], random_scales(len(which)))
        # Without a caption there is nothing to guide to.
        wanted = traces.velocity(which, at, scale.masked_fill(captions.is_empty(clip), 0.0))
        with torch.no_grad():
            text = flux.encode(teacher, clip.to(device), t5.to(device))
        field = field_of(student, text, scale)
        guessed = field(traces.states[which, at].float(), traces.sigmas[which, at])
        return (guessed - wanted).square().mean()

    learn(
        file,
        [student],
        loss_at,
        rank=rank,
        steps=steps,
        learning_rate=learning_rate,
        start=start,
        times=MUON,
    )
