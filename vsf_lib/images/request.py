"""A picture that is to be drawn, with every value decided, and names of what its infotext says of it.

Knows no torch, no file, and not where the values came from.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from vsf_lib.errors import SettingsError
from vsf_lib.seeds import LARGEST_SEED as LARGEST_SEED
from vsf_lib.settings import Settings, field
from vsf_lib.sweep import Plan

DEVICES = ("auto", "cuda", "mps", "cpu")
DTYPES = ("auto", "float32", "bfloat16", "float16")
OFFLOADS = ("none", "model", "sequential")
MOST_STEPS = 1000
USUAL_STEPS = 28
"""For a model that no preset knows: the middle of what undistilled models are used with."""
PROGRAM = "vsf "

# Names of our own values in the infotext, beside the settings'.
HEATMAP = "VSF heatmap"
DEVICE = "VSF device"
DTYPE = "VSF dtype"
PARTS = "VSF model parts"
DISTILLED = "Distilled CFG Scale"
"""Forge's name for Flux's guidance scale, so that a picture can be repeated there."""

USUAL_DISTILLED = 3.5
_FLUX_ONLY = ("negative_scale", "blocks", "pooled_shift")


@dataclass(frozen=True)
class Request:
    """A picture, or several that differ in their seed only. `settings.method` is off where nothing is to be
    guided."""

    prompt: str
    settings: Settings
    steps: int
    seed: int
    size: tuple[int, int] | None
    """Width and height; None is the model's own."""
    batch: int
    guidance_scale: float
    compare: bool
    model: str
    device: str
    dtype: str
    offload: str
    parts: str | None = None
    """The folder with what a model in a single file lacks."""
    distilled: float = USUAL_DISTILLED
    """The guidance scale of a Flux model, which is not classifier-free guidance."""
    flux: bool = False
    """Whether the model is known to be one; see `fitted`."""
    fingerprint: str = ""
    """The weights that the picture to repeat was made with, if it says."""
    sweep: Plan | None = None
    """What runs over a range, from picture to picture of the same seed; `settings` has its first value."""
    notes: tuple[str, ...] = ()
    """What the user should be told before it starts."""
    heatmap: bool = False
    """Whether a second picture shows where the negative prompt acts."""

    @property
    def cfg_negative(self) -> str:
        """The negative prompt that classifier-free guidance reads, if it is on."""
        alone = self.settings.method == "off" and self.guidance_scale > 1 and not self.flux
        return self.settings.negative_prompt if alone else ""

    @property
    def kind(self) -> str:
        """What a result's name ends in, to tell it from an ordinary picture."""
        return f"sweep-{self.sweep.sweep.name}" if self.sweep else "compare" if self.compare else ""

    def fitted(self, *, flux: bool) -> Request:
        """The same for the kind of model that was found, with notes on what does not act on it."""
        if self.sweep is not None and not flux and (name := self.sweep.sweep.name) in _FLUX_ONLY:
            raise SettingsError(f"--sweep {name}: it acts on Flux models only; sweep another setting")
        settings, notes = self.settings, list(self.notes)
        if settings.method == "off":
            if settings.negative_prompt and flux:
                notes.append("method off reads no negative prompt with Flux: ignored")
            elif settings.negative_prompt and self.guidance_scale <= 1:
                notes.append(
                    "method off reads the negative prompt only with a --guidance-scale above 1: ignored"
                )
        elif not flux:
            for name in _FLUX_ONLY:
                if getattr(settings, name) != field(name).default:
                    notes.append(f"{name} acts on Flux models only: ignored")
                    settings = settings.changed(**{name: field(name).default})
        return replace(self, settings=settings, flux=flux, notes=tuple(notes))


def check_within(name: str, value: int, low: int, high: int) -> int:
    if not low <= value <= high:
        raise SettingsError(f"{name} is {value}, but must be a whole number from {low} to {high}")
    return value


def check_among(name: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise SettingsError(f"{name} is {value!r}, but must be one of {', '.join(choices)}")
    return value


def check_device(name: str) -> str:
    if not re.fullmatch(r"auto|(cuda|mps|cpu)(:\d{1,3})?", name, re.ASCII):
        raise SettingsError(f"device is {name!r}, but must be one of {', '.join(DEVICES)} or cuda:1")
    return name
