"""Guidance in hosts of the Forge family: what one sampling pass puts around the model's calls.

Owns the host's calling convention (a function in place of `apply_model`, the conditioning dictionary,
`cond_or_uncond`), the life of a guided call, and the proof that it was one. Imports nothing of a host: it
reads the objects that it is handed. Knows a network, and whether its attention is joint or crosses over to
text, only through `ForgeNetwork`; settings screens, text encoding and steps belong to `vsf_lib.webui`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from vsf_lib.adapters.call import Batch, GuidedCall
from vsf_lib.adapters.forge_network import BlockCall, ForgeNetwork, Function, check_model
from vsf_lib.adapters.generation import Report, log_report
from vsf_lib.adapters.reuse import Reuse
from vsf_lib.adapters.share import ShareRecord
from vsf_lib.adapters.steps import claimed_steps
from vsf_lib.adapters.tiles import TEXT, Tiled, both
from vsf_lib.errors import GuidanceError, ModelError
from vsf_lib.negative import stack_rows
from vsf_lib.settings import Settings

COND = 0


@dataclass
class SamplingPass:
    """From the first call of the model to the last, for one pass of one batch.

    `negatives(step)` gives one embedding `[n, C]` per picture of the batch. Use `wrapper()` as the model
    function wrapper, tell each step by `note()` before the model is called, `finish()` when the pass is over.
    """

    network: ForgeNetwork
    model: nn.Module
    settings: Settings
    negatives: Callable[[int], Sequence[Tensor]]
    record: ShareRecord | None = None
    """Takes the negative's share of attention, if that is to be shown; the output does not depend on it."""
    _noted: set[int] = field(default_factory=set)
    _run: set[int] = field(default_factory=set)
    _guided: set[int] = field(default_factory=set)
    _skipped: set[int] = field(default_factory=set)
    _empty: set[int] = field(default_factory=set)
    """Steps at which the schedule has nothing to keep out."""
    _layers: set[str] = field(default_factory=set)
    _kernels: set[str] = field(default_factory=set)
    _lengths: tuple[int, ...] = ()
    _step: int | None = None
    _total: int = 0
    _finite: Tensor | None = None
    _laid_out: Tensor | None = None
    """Whether the rows of all calls in tiles were in the order that is assumed."""
    _stacked: tuple[Sequence[Tensor], Tensor, Tensor | None] | None = None
    _batches: dict[tuple[bool, ...], Batch] = field(default_factory=dict)
    """By which rows are guided; kept as long as the texts are, with what a network keeps of them."""

    def __post_init__(self) -> None:
        check_model(self.network, self.model)
        self._reuse = Reuse(self.network.blocks(self.model))

    @property
    def begun(self) -> bool:
        """Whether the model was called at all."""
        return bool(self._run)

    @property
    def acted(self) -> bool:
        """Whether any call was guided."""
        return bool(self._guided or self._skipped)

    def note(self, step: int, total: int) -> None:
        """The host's own count of the denoiser's calls: `step` comes next, of `total` at most."""
        self._step, self._total = step, total
        self._noted.add(step)

    def over(self, step: int, total: int) -> bool:
        """Whether no step from `step` on, of `total`, is to be guided."""
        return not self._everywhere and step >= claimed_steps(self.settings, total).stop

    @property
    def _everywhere(self) -> bool:
        return self.settings.start <= 0 and self.settings.end >= 1

    def _claims(self, step: int) -> bool:
        """Whether `step` is to be guided. Some samplers make more of them than the host counts (HeunPP2, DPM
        adaptive); raises GuidanceError where it is unknown where in the picture those are."""
        if step < self._total:
            return step in claimed_steps(self.settings, self._total)
        if self._everywhere:
            return True
        raise GuidanceError(
            f"this sampler calls the model more often than {self._total} times, the WebUI's count, so it is "
            "unknown where VSF's start and end are in it: leave them at 0 and 1, or choose another sampler"
        )

    def follow(self, model: nn.Module) -> None:
        """The host goes on with another model (a refiner), of which all that was claimed holds; ModelError if
        that is of another kind, or cannot be guided."""
        if not self.network.matches(model):
            raise ModelError(
                f"the model is exchanged in the middle for a {type(model).__name__}, which is no "
                f"{self.network.title}: switch the refiner off, choose one of the same kind, or set VSF's "
                "end to where it begins"
            )
        check_model(self.network, model)
        self.model = model
        self._reuse = Reuse(self.network.blocks(model))
        self.forget()

    def forget(self) -> None:
        """What was made of the texts by the model's weights is made anew: they may have changed."""
        self._batches.clear()

    def wrapper(self, previous: Function | None = None) -> Function:
        """A closure for the host's one slot, which calls what was in it before (hosts copy bound methods)."""
        sampling = self

        def call_model(apply_model: Function, args: dict[str, Any]) -> Any:
            return sampling._call(apply_model, args, previous)

        return call_model

    def _call(self, apply_model: Function, args: dict[str, Any], previous: Function | None) -> Any:
        conditioning = args["c"]
        options = conditioning.get("transformer_options") or {}
        if options.get("skip_layers"):
            # Skip-layer guidance compares with a weakened prediction: guiding it would cancel out.
            return pass_on(apply_model, args, previous)
        step = self._step
        if step is None:
            raise GuidanceError(
                "the WebUI did not say which step this is: another extension replaces the denoiser, or "
                "callbacks were reset; reload the UI or restart"
            )
        self._run.add(step)
        rows = _guided_rows(args)
        if not self._claims(step) or not any(rows):
            return self._unguided(step, apply_model, args, previous)

        text = conditioning[TEXT]
        call = self._open(step, rows, text)
        if not call.n_n:
            self._empty.add(step)
            return self._unguided(step, apply_model, args, previous)
        given = self.network.conditioning(conditioning, call)
        tiled = Tiled(call, given[TEXT])
        with self.network.reached(self.model, tiled) as ran:
            output = pass_on(tiled.applied(apply_model), {**args, "c": given}, previous)
        self._close(step, call, ran, output)
        self._laid_out = both(self._laid_out, tiled.laid_out)
        self._take_share(step, call, ran, rows, args["input"])
        return output

    def _unguided(
        self, step: int, apply_model: Function, args: dict[str, Any], previous: Function | None
    ) -> Any:
        with self._reuse.watched() as ran:
            output = pass_on(apply_model, args, previous)
        self._reuse.whole(step, ran, guided=False)
        return output

    def _open(self, step: int, rows: tuple[bool, ...], text: Tensor) -> GuidedCall:
        embeddings = self.negatives(step)
        if self._stacked is None or self._stacked[0] is not embeddings:
            like = [embedding.to(text) for embedding in embeddings]
            self._stacked = (embeddings, *stack_rows(like))
            self._lengths = tuple(len(embedding) for embedding in embeddings)
            self._batches.clear()
        _, negative, mask = self._stacked
        if len(rows) % len(negative):
            raise GuidanceError(
                f"the model is called with {len(rows)} rows for {len(negative)} pictures, so it is unknown "
                "which row is whose: something else divides the batch; switch it off"
            )
        if rows not in self._batches:  # kept: a tensor made of Python values waits for the device
            times = len(rows) // len(negative)
            self._batches[rows] = Batch(
                negative.repeat(times, 1, 1),
                None if mask is None else mask.repeat(times, 1),
                None if all(rows) else torch.tensor(rows, device=text.device),
            )
        recording = self.record is not None and self.record.problem is None
        return GuidedCall(self.settings, self._batches[rows], record_share=recording)

    def _close(self, step: int, call: GuidedCall, ran: Mapping[str, BlockCall], output: Tensor) -> None:
        missed = [name for name, block in ran.items() if not block.seen]
        if missed:
            raise GuidanceError(
                f"step {step} did not guide {len(missed)} of {len(ran)} blocks, the first is {missed[0]}: "
                "another extension replaces its attention; switch that off for this picture"
            )
        if self._reuse.whole(step, ran, guided=True):
            self._guided.add(step)
        else:
            self._skipped.add(step)
        self._layers |= {name for name, block in ran.items() if block.guided}
        self._kernels |= call.kernels
        # Gathered on the device and read once at the end: a wait per step costs more than guidance does.
        self._finite = both(self._finite, torch.isfinite(output).all())

    def _take_share(
        self,
        step: int,
        call: GuidedCall,
        ran: Mapping[str, BlockCall],
        rows: tuple[bool, ...],
        latents: Tensor,
    ) -> None:
        if self.record is not None and any(block.again for block in ran.values()):
            self.record.give_up("another extension calls the model in parts")
        if self.record is not None and latents.ndim > 4 and latents.shape[2] > 1:
            self.record.give_up("a video has many pictures in one")
        share = call.share()
        if self.record is None or share is None or step in self._skipped:
            return  # a step that a cache has cut short shows a few layers only
        height, width = latents.shape[-2:]
        self.record.add(step, share, rows, len(self._lengths), (height, width))

    def finish(self, *, interrupted: bool = False) -> Report:
        """The report of a pass that is over; raises GuidanceError if it was not guided as claimed, and
        SettingsError if its settings claim no step of it."""
        # Not all of `total`: samplers that look twice at a step do so but once at the last.
        claimed = {step for step in self._noted if self._claims(step)}
        missed = sorted(claimed - self._guided - self._skipped - self._empty)
        if missed or not self._run:
            raise GuidanceError(
                f"steps {missed or 'of this pass'} ran without guidance: the model's calls did not reach it; "
                "another extension replaces the sampling; switch that off"
            )
        if self._finite is not None and not bool(self._finite):
            raise GuidanceError(
                "the model's output has values that are not finite, so the picture is spoilt: make it once "
                "with VSF off; if it is spoilt then, too, choose another schedule type, sampler or "
                "precision, otherwise lower alpha"
            )
        if self._laid_out is not None and not bool(self._laid_out):
            raise GuidanceError(
                "another extension calls the model in tiles whose prompts are in an order that is not known: "
                "switch that off, or set CFG to 1 and make one picture at a time"
            )
        if not self._guided and not interrupted:
            raise GuidanceError(
                "no step has a negative prompt that says anything; write one for the steps that are guided"
                if self._empty
                else "no step that is to be guided was made"
            )
        report = Report(
            method=self.settings.method,
            layers=tuple(sorted(self._layers)),
            kernel=", ".join(sorted(self._kernels)),
            steps=self._total,
            steps_run=len(self._noted),
            guided_steps=tuple(sorted(self._guided)),
            interrupted=interrupted,
            images=len(self._lengths),
            negative_tokens=self._lengths,
            share=None,
        )
        log_report(report, self.settings)
        return report


def pass_on(apply_model: Function, args: Mapping[str, Any], previous: Function | None) -> Any:
    """The model as the host calls it from its slot, where `previous` may have stood before."""
    if previous is not None:
        return previous(apply_model, args)
    return apply_model(args["input"], args["timestep"], **args["c"])


def _guided_rows(args: Mapping[str, Any]) -> tuple[bool, ...]:
    """For each row of a call, whether it is a prompt. The host lines up whole batches, one per entry."""
    entries = args["cond_or_uncond"]
    rows = len(args["input"])
    if rows % len(entries):
        raise GuidanceError(f"a call of {rows} rows is said to hold {len(entries)} batches: not whole ones")
    return tuple(entry == COND for entry in entries for _ in range(rows // len(entries)))
