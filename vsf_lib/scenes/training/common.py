"""What the training stages share: rendered data, the loop, faster attention, averaging, a log of scores."""

from __future__ import annotations

import json
import logging
import math
import multiprocessing
import os
import random
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.overrides import TorchFunctionMode

from vsf_lib.scenes.draw import render
from vsf_lib.scenes.world import Scene, random_scene

logger = logging.getLogger("vsf.scenes")

_KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(4 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(8 << 30),
    "MALLOC_TOP_PAD_": str(512 << 20),
}
"""For workers, of glibc: memory stays with the process. Given back after each operation, as by default, it
is cleared anew each time, which takes up to a third of a pass of the small Wan."""


def render_all(scenes: list[Scene], workers: int = 2) -> np.ndarray:
    """All scenes as uint8 `[n, 64, 64, 3]`."""
    if len(scenes) < 1000:  # not worth a process
        return np.stack([render(scene) for scene in scenes])
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        return np.stack(pool.map(render, scenes, chunksize=256))


def training_scenes(count: int, seed: int, *, alone: float = 0.1) -> list[Scene]:
    """`count` scenes with no held-out combination among them."""
    rng = random.Random(seed)
    return [random_scene(rng, held_out=False, alone=alone) for _ in range(count)]


def to_pixels(batch: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """uint8 `[n, h, w, 3]` to float `[n, 3, h, w]` in -1..1."""
    tensor = torch.from_numpy(np.ascontiguousarray(batch)).to(device)
    return tensor.permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def to_images(pixels: Tensor) -> np.ndarray:
    """float `[n, 3, h, w]` in -1..1 to uint8 `[n, h, w, 3]`."""
    scaled = pixels.float().add(1.0).mul(127.5).round().clamp(0, 255).to(torch.uint8)
    return scaled.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def cosine(step: int, steps: int, peak: float, warmup: int = 100, start: int = 0) -> float:
    """Learning rate: linear warm-up, then half a cosine down to a fiftieth of `peak`.

    A run that goes on at `start` warms up again: its optimisers have forgotten what size of step suits each
    weight, and at full rate the first ones would undo hundreds.
    """
    warm = min(1.0, (step - start + 1) / warmup)
    done = max(0, step - warmup) / max(1, steps - warmup)
    return peak * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))


def _plain_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    **_: Any,
) -> Tensor:
    """softmax(q k^T scale + mask) v, without dropout; diffusers gives the three by these names."""
    logits = (query * (query.shape[-1] ** -0.5 if scale is None else scale)) @ key.transpose(-1, -2)
    if is_causal:
        attn_mask = torch.ones(logits.shape[-2:], dtype=torch.bool, device=query.device).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        logits = logits.masked_fill(~attn_mask, -torch.inf)
    elif attn_mask is not None:
        logits = logits + attn_mask
    return logits.softmax(-1, dtype=torch.float32).to(value.dtype) @ value


class PlainAttention(TorchFunctionMode):
    """Attention by plain matrix products while active.

    At a hundred tokens the CPU's flash kernel, its backward above all, takes most of a training step; this
    makes the whole step 1.5 times as fast.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is nn.functional.scaled_dot_product_attention:
            return _plain_attention(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


class Average:
    """Exponential moving average of parameters, the weights that are kept in the end."""

    def __init__(self, modules: Iterable[nn.Module], decay: float) -> None:
        self._parameters = [p for module in modules for p in module.parameters()]
        self._decay = decay
        self._average = [p.detach().clone() for p in self._parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        # Early on the average follows closely, or it would remember the random start.
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._average, [p.detach() for p in self._parameters], 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchanges the averaged and the live weights; a second call undoes it."""
        for parameter, average in zip(self._parameters, self._average, strict=True):
            live = parameter.detach().clone()
            parameter.copy_(average)
            average.copy_(live)


class Checkpoint:
    """Averages after each step and keeps the averaged weights now and then; the file's name is its state.

    `x.part.pt` is what an unfinished run left; `x.pt` exists only when the stage is done.
    """

    def __init__(self, path: Path, average: Average, modules: Sequence[nn.Module], rank: int) -> None:
        self._path, self._part = path, path.with_suffix(".part.pt")
        self._average, self._modules, self._rank = average, modules, rank
        self._step = 0

    def __call__(self, step: int) -> None:
        self._average.update(step)
        self._step = step + 1
        if self._step % 500 == 0:
            self._write()

    def finish(self) -> None:
        """Leaves the averaged weights in the stage's file."""
        self._write()
        if self._rank == 0:
            self._part.replace(self._path)

    def _write(self) -> None:
        if self._rank == 0:
            self._average.swap()
            states = [module.state_dict() for module in self._modules]
            torch.save({"step": self._step, "modules": states}, self._part)
            self._average.swap()


def restore(path: Path, modules: Sequence[nn.Module]) -> int:
    """Loads what a Checkpoint wrote into `modules` and returns its step; 0 and untouched if there is none."""
    if not path.exists():
        return 0
    data = torch.load(path, map_location="cpu", weights_only=True)
    for module, state in zip(modules, data["modules"], strict=True):
        module.load_state_dict(state)
    return int(data["step"])


def resume(file: Path, modules: Sequence[nn.Module], seed: int, rank: int) -> tuple[int, np.random.Generator]:
    """What an unfinished run of the stage that makes `file` left: loads it and returns its step, and a draw.

    The weights until here are the same in all processes; what they draw from here on is not, nor is it what
    was drawn before the interruption.
    """
    start = restore(file.with_suffix(".part.pt"), modules)
    torch.manual_seed(seed + rank + start)
    return start, np.random.default_rng(seed + rank + start)


class Scores:
    """The log of what each stage scored, kept beside the weights as JSON."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, stage: str, **values: Any) -> None:
        known = json.loads(self._path.read_text("utf-8")) if self._path.exists() else {}
        known[stage] = values
        self._path.write_text(json.dumps(known, indent=1) + "\n", "utf-8")
        logger.info("%s: %s", stage, values)


def in_parallel(workers: int, work: Callable[..., None], *arguments: Any) -> None:
    """Runs `work(rank, workers, *arguments)` in that many processes of one thread, joined for `run_steps`.

    On a CPU this is nearly `workers` times as fast; threads within one small step are hardly faster than one.
    """
    if workers == 1:
        work(0, 1, *arguments)
        return
    for name, value in _KEEP_MEMORY.items():
        os.environ.setdefault(name, value)
    with tempfile.TemporaryDirectory() as folder:
        meeting = f"file://{Path(folder).as_posix()}/meeting"
        torch.multiprocessing.spawn(_worker, (workers, meeting, work, arguments), nprocs=workers)


def _worker(
    rank: int, workers: int, meeting: str, work: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    logging.basicConfig(
        level=logging.INFO if rank == 0 else logging.WARNING, format="%(asctime)s %(message)s"
    )
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=workers)
    try:
        work(rank, workers, *arguments)
    finally:
        distributed.destroy_process_group()


def _share_gradients(parameters: list[nn.Parameter]) -> None:
    """Averages the gradients over the processes that train together, if there are several."""
    if not distributed.is_initialized():
        return
    gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
    flat = torch.cat([g.flatten() for g in gradients])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    start = 0
    for p in parameters:
        p.grad = flat[start : start + p.numel()].view_as(p)
        start += p.numel()


def muon_and_adam(
    modules: Iterable[nn.Module], learning_rate: float, times: float = 1.0
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, Adam for the rest.

    Muon's step is scaled to the size of Adam's, so that one learning rate serves both, or `times` it. What
    requires no gradient stays as it is.
    """
    hidden: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for module in modules:
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            inside = parameter.ndim == 2 and ".weight" in name and ("blocks." in name or "layers." in name)
            (hidden if inside and "norm" not in name else rest).append(parameter)
    return [
        torch.optim.Muon(
            [{"params": hidden, "times": times}],
            lr=learning_rate,
            weight_decay=0.01,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW(rest, lr=learning_rate, betas=(0.9, 0.97), weight_decay=0.01, fused=True),
    ]


def run_steps(
    steps: int,
    learning_rate: float,
    optimisers: Sequence[torch.optim.Optimizer],
    loss_at: Callable[[int], Tensor],
    after: Callable[[int], None] | None = None,
    *,
    start: int = 0,
    clip: float = 1.0,
    every: int = 200,
) -> None:
    """The loop that every stage runs: schedule, backward, clip, step, log."""
    groups = [group for optimiser in optimisers for group in optimiser.param_groups]
    parameters = [p for group in groups for p in group["params"]]
    total = 0.0
    for step in range(start, steps):
        for group in groups:
            group["lr"] = group.get("times", 1.0) * cosine(step, steps, learning_rate, start=start)
        loss = loss_at(step)
        for parameter in parameters:
            parameter.grad = None
        loss.backward()
        _share_gradients(parameters)
        nn.utils.clip_grad_norm_(parameters, clip)
        for optimiser in optimisers:
            optimiser.step()
        if after is not None:
            after(step)
        total += loss.detach().item()
        if (step + 1) % every == 0:
            logger.info("step %d of %d: loss %.5f", step + 1, steps, total / every)
            total = 0.0


def learn(
    file: Path,
    learners: Sequence[nn.Module],
    loss_at: Callable[[int], Tensor],
    *,
    rank: int,
    steps: int,
    learning_rate: float,
    start: int = 0,
    decay: float = 0.998,
    times: float = 1.0,
    kept: Sequence[nn.Module] | None = None,
) -> None:
    """The course of a stage: `learners` follow the loss, and their average is left in `file`.

    With what belongs to them, if that is `kept` too. `times`: see `muon_and_adam`.
    """
    keep = Checkpoint(file, Average(learners, decay), learners if kept is None else kept, rank)
    optimisers = muon_and_adam(learners, learning_rate, times)
    run_steps(steps, learning_rate, optimisers, loss_at, keep, start=start, every=100)
    keep.finish()
