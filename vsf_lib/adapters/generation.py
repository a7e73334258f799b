"""One call of a pipeline under guidance: what was encoded, what was claimed, what was done, and a report.

Owns the proof: every claimed layer in every claimed step, or GuidanceError. Knows the network only through
its adapter, and nothing of how calls are intercepted.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vsf_lib.adapters.call import Batch, GuidedCall, Recording
from vsf_lib.adapters.compiled import Tally
from vsf_lib.adapters.form import Form
from vsf_lib.adapters.registry import Adapter
from vsf_lib.adapters.rows import TextRows
from vsf_lib.adapters.steps import claimed_steps, current_step
from vsf_lib.errors import GuidanceError
from vsf_lib.negative import stack_rows
from vsf_lib.settings import Settings

log = logging.getLogger("vsf")


@dataclass(frozen=True)
class Report:
    """What guidance did in one call of the pipeline."""

    method: str
    """The settings' method, or the name of the form that stood in its place."""
    layers: tuple[str, ...]
    """The attention layers that were guided in each of `guided_steps`."""
    kernel: str
    steps: int
    """How many steps the generation had, and how many of them ran (fewer only if it was `interrupted`)."""
    steps_run: int
    guided_steps: tuple[int, ...]
    interrupted: bool
    images: int
    """How many pictures or videos."""
    negative_tokens: tuple[int, ...]
    """Per picture or video, the length of its negative embedding."""
    share: Tensor | None
    """`[guided steps, images, n_i]`: the negative's share of each image or video token's attention, if
    recorded."""
    layer_share: Tensor | None = None
    """`[guided steps, layers, images, n_i]`: that of each of `layers`, of which `share` is the mean; if
    recorded."""


class Generation:
    """From the moment the prompt is encoded to the picture."""

    def __init__(
        self,
        pipe: Any,
        adapter: Adapter,
        settings: Settings,
        rows: TextRows,
        negatives: list[Tensor],
        *,
        kernel: str,
        record_share: Recording,
        pooled: list[Tensor] | None = None,
        form: Form | None = None,
        fuse: bool = False,
    ) -> None:
        """`negatives` holds one embedding `[n, C]` per conditional row, `pooled` one `[C]` where the prompt's
        is moved."""
        self._pipe = pipe
        self._adapter = adapter
        self._settings = settings
        self._rows = rows
        self._lengths = tuple(len(negative) for negative in negatives)
        self._alike = all(negative is negatives[0] for negative in negatives)
        self._negative, self._mask = stack_rows(negatives[:1] if self._alike else negatives)
        self._pooled = None if pooled is None else torch.stack(pooled[:1] if self._alike else pooled)
        self._kernel = kernel
        self._record_share = record_share
        self._form = form
        self._fuse = fuse
        self._run: set[int] = set()
        self._guided: set[int] = set()
        self._layers: tuple[str, ...] = ()
        self._kernels: set[str] = set()
        self._shares: dict[int, Tensor] = {}
        self._layer_shares: dict[int, Tensor] = {}
        self._finite: Tensor | None = None
        self._batches: dict[tuple[bool, ...], Batch] = {}

    def encoded_unconditional(self, text: Tensor) -> bool:
        """Takes the unconditional text of a pipeline that encodes it apart; False if there is one already."""
        if not self._rows.awaits_unconditional:
            return False
        self._rows.add_unconditional(text)
        return True

    def open(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> GuidedCall | None:
        """The guided call that a denoiser call becomes; None leaves it as it is."""
        text = self._adapter.text(args, kwargs)
        if text is None:
            return None
        rows = self._rows.guided(text)
        step, total = current_step(self._pipe), self._pipe.num_timesteps
        self._run.add(step)
        if step not in claimed_steps(self._settings, total) or not any(rows):
            return None

        batch = self._batches.get(rows)
        if batch is None:  # kept, because a tensor made from Python numbers waits for the device
            batch = self._batches[rows] = self._batch(rows, text)
        return GuidedCall(
            self._settings,
            batch,
            kernel=self._kernel,
            fuse=self._fuse,
            record_share=self._record_share,
            form=self._form,
            n_p=text.shape[1],
        )

    def _batch(self, rows: tuple[bool, ...], text: Tensor) -> Batch:
        # Unconditional rows carry the negative too, because a batch has one length, and are switched off.
        times = 1 if self._alike else len(rows) // len(self._negative)
        guided = None if all(rows) else torch.tensor(rows, device=text.device)
        return Batch(
            self._negative.to(text).repeat(times, 1, 1),
            None if self._mask is None else self._mask.to(text.device).repeat(times, 1),
            guided,
            None if guided is None else guided.nonzero().flatten(),
            None if self._pooled is None else self._pooled.to(text.device).repeat(times, 1),
        )

    def close(self, call: GuidedCall, claimed: tuple[str, ...], output: Tensor) -> None:
        """Checks a guided call that has returned, and takes note of it."""
        step = current_step(self._pipe)
        missed = [name for name in claimed if name not in call.layers | call.silent]
        if missed:
            raise GuidanceError(
                f"step {step} did not guide {len(missed)} of {len(claimed)} layers, the first is "
                f"{missed[0]}: something skips or replaces them (a cache, another extension?); remove it"
            )
        self._guided.add(step)
        self._layers = tuple(name for name in claimed if name in call.layers)
        self._kernels |= call.kernels
        share = call.share()
        if share is not None:
            self._shares[step] = share
        layer_share = call.layer_share()
        if layer_share is not None:
            self._layer_shares[step] = layer_share
        # Gathered on the device and read once at the end: a wait per step costs more than guidance does.
        finite = torch.isfinite(output).all()
        self._finite = finite if self._finite is None else self._finite & finite

    def forget(self) -> None:
        """Drops what was kept for its steps, now: a compiled model's part of it refers to itself."""
        for batch in self._batches.values():
            batch.kept.clear()

    def finish(self) -> Report:
        """The report of a generation whose pipeline has returned; raises if it was not guided as claimed."""
        total = self._pipe.num_timesteps
        interrupted = bool(self._pipe.interrupt) and len(self._run) < total
        # An interrupted generation answers for the steps that it took.
        taken = current_step(self._pipe) if interrupted else total
        claimed = claimed_steps(self._settings, total)
        missed = [step for step in claimed if step < taken and step not in self._guided]
        if missed:
            raise GuidanceError(
                f"steps {missed} of {total} ran without guidance: the denoiser's calls did not reach it; "
                "do not replace or wrap the pipeline's parts while it is guided"
            )
        for batch in self._batches.values():
            tally: Tally | None = batch.kept.get("tally")
            if tally is not None:
                tally.check()
        if self._finite is not None and not bool(self._finite):
            raise GuidanceError(
                "the denoiser's output has values that are not finite, so the picture is spoilt: use "
                "bfloat16 or float32 instead of float16; or lower alpha, if it is sound without guidance"
            )
        steps = tuple(sorted(self._guided))
        report = Report(
            method=self._settings.method if self._form is None else self._form.name,
            layers=self._layers,
            kernel=", ".join(sorted(self._kernels)),
            steps=total,
            steps_run=len(self._run),
            guided_steps=steps,
            interrupted=interrupted,
            images=len(self._lengths),
            negative_tokens=self._lengths,
            share=_stacked(self._shares),
            layer_share=_stacked(self._layer_shares),
        )
        log_report(report, self._settings)
        return report


def _stacked(of_step: Mapping[int, Tensor]) -> Tensor | None:
    """What was kept of each step, in the order of the steps; None if nothing was."""
    return torch.stack([of_step[step] for step in sorted(of_step)]) if of_step else None


def log_report(report: Report, settings: Settings) -> None:
    """One line: what was applied, how strongly, where and by what."""
    shared = f"alpha {settings.alpha:g}, beta {settings.beta:g}"
    strength = {
        "vsf": shared,
        "difference": shared,
        "nag": f"phi {settings.nag_phi:g}, tau {settings.nag_tau:g}, alpha {settings.nag_alpha:g}",
        "nasa": f"alpha {settings.nasa_alpha:g}",
    }[settings.method]
    log.info(
        "%s (%s) on %d layers in %d of %d steps%s, %d images, up to %d negative tokens, kernel %s",
        report.method,
        strength,
        len(report.layers),
        len(report.guided_steps),
        report.steps,
        f" (interrupted after {report.steps_run})" if report.interrupted else "",
        report.images,
        max(report.negative_tokens, default=0),
        report.kernel or "none",
    )
