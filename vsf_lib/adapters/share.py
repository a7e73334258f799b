"""The negative's share of attention over one sampling pass, per picture: where guidance acted.

Owns the way from calls, whose rows are pictures several times over, to one map per picture and, if asked, one
per step. Everything stays on its device until `read`, because a wait per step costs more than guidance does.
Knows no network and no host; how a map is drawn is `vsf_lib.heatmap`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

PATCH = 2
"""Latents along a side of an image token, in SD3.5 and Flux."""


@dataclass(frozen=True)
class Maps:
    """What a pass has recorded; float32, on the CPU."""

    steps: tuple[int, ...]
    """The guided ones, in their order."""
    mean: Tensor
    """`[pictures, rows, columns]`: mean over those steps, and in each over layers, heads and prompts
    (AND makes several)."""
    each: Tensor | None
    """`[steps, pictures, rows, columns]`, if each step is kept."""
    latent: tuple[int, int]
    """Height and width of the picture's latents, of which the last row and column may fill half a token."""


class ShareRecord:
    """Gathers one pass. Without `each_step` it holds as much as one step, however many there are."""

    def __init__(self, *, each_step: bool) -> None:
        self._each_step = each_step
        self._latent: tuple[int, int] | None = None
        self._step: int | None = None
        self._sum: Tensor | None = None
        """Of the running step, `[pictures, n_i]`, and of how many calls and prompts."""
        self._count = 0
        self._total: Tensor | None = None
        """Of the steps before it."""
        self._steps: list[int] = []
        self._each: list[Tensor] = []
        self.problem: str | None = None
        """Why there is no map, although guidance acted."""

    def give_up(self, problem: str) -> None:
        """Drops everything: a map of some of it would be taken for one of all."""
        self.problem = problem
        self._sum = self._total = None
        self._each.clear()

    def add(
        self, step: int, share: Tensor, rows: Sequence[bool], pictures: int, latent: tuple[int, int]
    ) -> None:
        """Takes a guided call of `step`: the share `[B, n_i]` of its rows, of which those in `rows` are
        prompts; the row numbered r is of the picture r modulo `pictures`. Raises nothing, since no picture
        may be lost for its map.
        """
        if self.problem is not None:
            return
        height, width = _grid(latent)
        if share.shape[1] != height * width or self._latent not in (None, latent):
            self.give_up(
                f"the model was called with {share.shape[1]} image tokens for {latent[1]}x{latent[0]} latents"
            )
            return
        prompts = [
            of_batch
            for of_batch, guided in zip(share.split(pictures), rows[::pictures], strict=True)
            if guided
        ]
        if not prompts:
            self.give_up(f"a call's {len(rows)} rows are no whole batches of {pictures}")
            return
        if step != self._step:
            self._close_step()
        self._step, self._latent = step, latent
        of_call = torch.stack(prompts).sum(0)
        self._sum = of_call if self._sum is None else self._sum + of_call
        self._count += len(prompts)

    def _close_step(self) -> None:
        if self._sum is None or self._step is None:
            return
        mean = self._sum / self._count
        self._total = mean if self._total is None else self._total + mean
        self._steps.append(self._step)
        if self._each_step:
            self._each.append(mean)
        self._sum, self._count = None, 0

    def read(self) -> Maps | None:
        """What was recorded; waits for the device. None where nothing was, or where there is a problem."""
        self._close_step()
        if self._total is None or self._latent is None:
            return None
        grid = _grid(self._latent)
        mean = (self._total / len(self._steps)).float().cpu().unflatten(-1, grid)
        each = torch.stack(self._each).float().cpu().unflatten(-1, grid) if self._each else None
        return Maps(tuple(self._steps), mean, each, self._latent)


def _grid(latent: tuple[int, int]) -> tuple[int, int]:
    height, width = latent
    return -(-height // PATCH), -(-width // PATCH)
