"""Guidance for diffusers' pipelines: `with guided(pipe, settings):` and the pipeline is called as always.

Owns the public door only. Importing this imports no model code: an adapter is loaded when its pipeline is
met.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vsf_lib.adapters.call import Recording
from vsf_lib.adapters.form import Form
from vsf_lib.adapters.generation import Report
from vsf_lib.adapters.negative_cache import NegativeCache
from vsf_lib.adapters.negatives import encode_texts
from vsf_lib.adapters.registry import find_adapter
from vsf_lib.adapters.session import Session
from vsf_lib.attention.kernels import check_kernel_name
from vsf_lib.errors import PromptError, SettingsError
from vsf_lib.settings import SHARING, Settings

__all__ = ["Form", "Guidance", "NegativeCache", "Report", "encode_negatives", "guided"]


@dataclass
class Guidance:
    """What a guidance has done so far: one report per finished call of the pipeline."""

    reports: list[Report] = field(default_factory=list)

    @property
    def report(self) -> Report | None:
        """The last finished call's report; None before the first, and always with method "off"."""
        return self.reports[-1] if self.reports else None


@contextmanager
def guided(
    pipe: Any,
    settings: Settings,
    negative_prompts: str | Sequence[str] | None = None,
    *,
    negative_embeddings: Sequence[Tensor] | None = None,
    record_share: Recording = False,
    kernel: str = "auto",
    form: Form | None = None,
    cache: NegativeCache | None = None,
    fuse: bool = False,
) -> Iterator[Guidance]:
    """Guides every call of `pipe` inside the `with`; on leaving it, in any way, `pipe` is as before.

    `negative_prompts` is one text for all prompts of a call or one per prompt, and defaults to the settings'
    own. With methods "vsf" and "difference" they are encoded without padding; with "nag" and "nasa" padded
    like a prompt, as those methods are defined. `pipe(negative_prompt=..., guidance_scale=...)` keeps its own
    meaning, and its unconditional rows and calls stay unguided. With method "off" nothing is touched or
    checked.

    `negative_embeddings`, from `encode_negatives` with the same settings, takes their place where the text
    encoders are gone by the time the pipeline runs.

    `record_share` (methods "vsf" and "difference") keeps the negative's share of attention for heat maps in
    each report, with "layers" each layer's too. It changes nothing in the picture.

    `form` runs another form of attention with the settings of method "vsf", for benchmarks on models of joint
    attention; the reports carry its name instead of the method's.

    `cache` keeps encoded negative prompts for the next `guided` that is given the same one. `fuse` compiles
    the merge, and nothing else, into one kernel: the first guided step takes longer, by seconds to a minute.

    Raises ModelError for a pipeline that cannot be guided, PromptError for an empty negative prompt, and
    GuidanceError, also out of the pipeline's call, when guidance could not be applied as claimed.
    """
    guidance = Guidance()
    if settings.method == "off":
        yield guidance
        return
    negatives: Sequence[str] | Sequence[Tensor]
    if negative_embeddings is None:
        negatives = _texts(settings, negative_prompts)
    elif negative_prompts is None:
        negatives = _embeddings(negative_embeddings)
    else:
        raise PromptError("negative_prompts and negative_embeddings were both given: leave one of them out")
    if record_share and settings.method not in SHARING:
        raise SettingsError(
            f'method "{settings.method}" has no share to record; use method "vsf" or "difference"'
        )
    if form is not None:
        _check_form(form, settings, record_share)
    try:
        check_kernel_name(kernel)
    except ValueError as error:
        raise SettingsError(str(error)) from error
    adapter = find_adapter(pipe)
    if form is not None and not adapter.joint:
        raise SettingsError(
            f'the form "{form.name}" is one of joint attention, which this model does not have: '
            "leave form out"
        )
    if settings.negative_scale and not adapter.extrapolates:
        raise SettingsError(
            f"negative_scale is {settings.negative_scale:g}, but it does nothing on this model: set it to 0"
        )
    if settings.blocks != "both" and not adapter.two_kinds:
        raise SettingsError(
            f'blocks is "{settings.blocks}", but only Flux has two kinds of block: set it to "both"'
        )
    if settings.method in SHARING and settings.pooled_shift:
        if not adapter.moves_pooled:
            raise SettingsError(
                f"pooled_shift is {settings.pooled_shift:g}, but it does nothing on this model: set it to 0"
            )
        if negative_embeddings is not None:
            raise SettingsError(
                f"pooled_shift is {settings.pooled_shift:g}, which needs the negative prompt's text, but "
                "negative_embeddings were given: set it to 0, or give negative_prompts"
            )
    if negative_embeddings is None:
        adapter.check_encoders(pipe)
    with Session(
        pipe,
        adapter,
        settings,
        negatives,
        guidance.reports,
        kernel=kernel,
        record_share=record_share,
        form=form,
        cache=cache,
        fuse=fuse,
    ):
        yield guidance


def encode_negatives(
    pipe: Any,
    settings: Settings,
    negative_prompts: str | Sequence[str] | None = None,
    *,
    max_sequence_length: int | None = None,
    cache: NegativeCache | None = None,
) -> list[Tensor]:
    """The negative embeddings `[n, C]` that `guided` would make, for a pipeline that drops its encoders.

    `max_sequence_length` is what the pipeline is called with, for the methods whose negative is padded like
    a prompt; None is the pipeline's own default. Raises ModelError and PromptError as `guided` does.
    """
    texts = _texts(settings, negative_prompts)
    adapter = find_adapter(pipe)
    adapter.check_encoders(pipe)
    if max_sequence_length is None:
        max_sequence_length = inspect.signature(type(pipe).__call__).parameters["max_sequence_length"].default
    asked = {"max_sequence_length": max_sequence_length}
    with torch.no_grad():
        return encode_texts(pipe, adapter, settings, texts, asked, pipe.encode_prompt, cache)


def _check_form(form: Form, settings: Settings, record_share: Recording) -> None:
    if settings.method != "vsf":
        raise SettingsError(
            f'the form "{form.name}" takes the place of method "vsf", but method is "{settings.method}": '
            'set it to "vsf", or leave form out'
        )
    if record_share:
        raise SettingsError(f'the form "{form.name}" has no share to record: leave record_share or form out')


def _embeddings(negative_embeddings: Sequence[Tensor]) -> tuple[Tensor, ...]:
    shapes = [tuple(embedding.shape) for embedding in negative_embeddings]
    if not shapes or not all(len(shape) == 2 and shape[0] > 0 for shape in shapes):
        raise PromptError(
            f"the negative embeddings have the shapes {shapes}, but must be [tokens, width] each: make them "
            "with encode_negatives"
        )
    return tuple(negative_embeddings)


def _texts(settings: Settings, given: str | Sequence[str] | None) -> tuple[str, ...]:
    negative_prompts = settings.negative_prompt if given is None else given
    texts = (negative_prompts,) if isinstance(negative_prompts, str) else tuple(negative_prompts)
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise PromptError(
            f"the negative prompt is {negative_prompts!r}: name what should not be in the picture, or choose "
            'method "off" for a picture without guidance'
        )
    return tuple(text.strip() for text in texts)
