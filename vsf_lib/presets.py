"""Known good values per model, as data: what was published, what is suggested here, and what was measured.

The published alphas belong to another form of the method (the released code lets image and prompt also attend
to an unflipped negative), so they stand apart from the suggestions. Knows a model by its name only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from vsf_lib import measured
from vsf_lib.errors import SettingsError
from vsf_lib.settings import Settings


@dataclass(frozen=True)
class Published:
    """What a paper or its code recommends. A pair is the range that it gives, low to high."""

    alpha: float | tuple[float, float]
    beta: float | tuple[float, float]
    negative_scale: float | None = None


@dataclass(frozen=True)
class Preset:
    """Suggested values for one kind of model."""

    name: str
    kind: str
    """What `preset_for` takes beside a model's name; an ordinary and a strong preset share it."""
    pattern: str
    """Found in the model's name, written as `_plain` does."""
    values: Mapping[str, Any]
    """Fields of Settings: the suggestion, for this project's form of the method."""
    source: str
    measured: bool
    """Whether `values` were measured with this project's form."""
    note: str
    strong: bool = False
    published: Published | None = None
    steps: tuple[int, int] | None = None
    """Fewest and most steps that the values are meant for."""
    difference_alpha: float | None = None
    """The alpha for method "difference", which takes more of it for the same removal."""

    @property
    def alpha(self) -> float:
        """The suggested alpha."""
        return self.settings().alpha

    @property
    def beta(self) -> float:
        """The suggested beta."""
        return self.settings().beta

    def settings(self, negative_prompt: str = "", **others: Any) -> Settings:
        """Validated settings of this preset; `others` win over its values."""
        values = self.values_of(others.get("method"))
        return Settings.create(**{**values, "negative_prompt": negative_prompt, **others})

    def values_of(self, method: str | None) -> dict[str, Any]:
        """The values where `method` is asked for; None is the preset's own."""
        if method == "difference" and self.difference_alpha is not None:
            return {**self.values, "alpha": self.difference_alpha}
        return dict(self.values)


def _values(**values: Any) -> Mapping[str, Any]:
    return MappingProxyType(values)


# The built-in model, by the sweep of `bench scenes` on prompts that are not the benchmark's.
SCENES_VALUES = _values(alpha=3.0, beta=1.0, negative_tokens="words")
SCENES_STRONG_VALUES = _values(alpha=4.0, beta=1.0, negative_tokens="words")
SCENES_MEASURED = True
# The built-in model of videos, by `bench scenes --video` on tuning prompts.
SMALL_WAN_VALUES = _values(alpha=3.0, beta=1.0, negative_tokens="words")
SMALL_WAN_DIFFERENCE_ALPHA = 4.5
SMALL_WAN_MEASURED = True

_PAPER = "VSF paper (Guo & Du, Value Sign Flip)"
_CODE = f"{_PAPER} and released code (github.com/weathon/VSF)"
_HALVED = "alpha is half the published one, whose form of the method is weaker; CFG off"
_WAN = "T2V 1.3B with the CausVid LoRA (bidirect2, rank 32) at 0.5; UniPC, flow shift 3 at 480p, 5 at 720p"
# Form and strength by `bench scenes --questions` on the small models: docs/evidence.md.
_FLUX = (
    "measured on the small built-in model of this architecture, not on the real one; the published values "
    "are those of a form that guides half of the blocks, and do not transfer"
)
_FLUX_SOURCE = "this project: python -m vsf_lib bench scenes --questions"

PRESETS: tuple[Preset, ...] = (
    Preset(
        name="Scenes",
        kind="scenes",
        pattern=r"\bscenes\b",
        values=SCENES_VALUES,
        source="this project: python -m vsf_lib bench scenes",
        measured=SCENES_MEASURED,
        note="the small built-in model",
        steps=(4, 8),
        difference_alpha=4.5,
    ),
    Preset(
        name="Scenes, strong",
        kind="scenes",
        pattern=r"\bscenes\b",
        values=SCENES_STRONG_VALUES,
        source="this project: python -m vsf_lib bench scenes",
        measured=SCENES_MEASURED,
        note="the small built-in model; removes more and costs more of the object",
        strong=True,
        steps=(4, 8),
        difference_alpha=7.0,
    ),
    Preset(
        name="SD3.5 large turbo, quality",
        kind="sd3.5-large-turbo",
        pattern=r"\b(sd|stable-diffusion)-?3\.?5\b.*\blarge-turbo\b",
        values=_values(alpha=1.65, beta=0.2),
        source=f"{_CODE}: Quality",
        measured=False,
        note=_HALVED,
        published=Published(3.3, 0.2),
        steps=(8, 8),
        difference_alpha=3.0,
    ),
    Preset(
        name="SD3.5 large turbo, strong",
        kind="sd3.5-large-turbo",
        pattern=r"\b(sd|stable-diffusion)-?3\.?5\b.*\blarge-turbo\b",
        values=_values(alpha=1.9, beta=0.2),
        source=f"{_CODE}: Strong",
        measured=False,
        note=_HALVED,
        strong=True,
        published=Published(3.8, 0.2),
        steps=(8, 8),
        difference_alpha=4.0,
    ),
    Preset(
        name="Flux schnell",
        kind="flux-schnell",
        pattern=r"\bflux(?![.-]?2).*schnell",
        values=_values(alpha=2.0, beta=1.0, negative_tokens="words"),
        source=_FLUX_SOURCE,
        measured=False,
        note=_FLUX,
        published=Published((3.5, 6.0), 0.0, 8.0),
        steps=(4, 8),
        difference_alpha=3.0,
    ),
    Preset(
        name="Flux schnell, strong",
        kind="flux-schnell",
        pattern=r"\bflux(?![.-]?2).*schnell",
        values=_values(alpha=3.0, beta=1.0, negative_tokens="words"),
        source=_FLUX_SOURCE,
        measured=False,
        note=_FLUX,
        strong=True,
        published=Published((3.5, 6.0), 0.0, 8.0),
        steps=(4, 8),
        difference_alpha=4.5,
    ),
    Preset(
        name="Flux dev and Krea dev",
        kind="flux-dev",
        pattern=r"\bflux(?![.-]?2).*(dev|krea)",
        values=_values(alpha=2.0, beta=1.0, negative_tokens="words"),
        source=_FLUX_SOURCE,
        measured=False,
        note=f"{_FLUX}; their authors were not satisfied with them on dev, at distilled guidance 4",
        published=Published(3.4, 0.2),
        steps=(32, 32),
        difference_alpha=3.0,
    ),
    Preset(
        name="Flux dev and Krea dev, strong",
        kind="flux-dev",
        pattern=r"\bflux(?![.-]?2).*(dev|krea)",
        values=_values(alpha=3.0, beta=1.0, negative_tokens="words"),
        source=_FLUX_SOURCE,
        measured=False,
        note=_FLUX,
        strong=True,
        published=Published(3.4, 0.2),
        steps=(32, 32),
        difference_alpha=4.5,
    ),
    Preset(
        name="Wan 2.1 with CausVid",
        kind="wan2.1-causvid",
        pattern=r"\bwan-?2[.-]?1\b",
        values=_values(alpha=1.5, beta=0.1),
        source=f"{_CODE}: 0.8 / 0.1, 1.2 / 0.2 and 1.7 / 0.2",
        measured=False,
        note=_WAN,
        published=Published((0.8, 1.7), (0.1, 0.2)),
        steps=(8, 12),
        difference_alpha=2.25,
    ),
    Preset(
        name="Wan 2.1 with CausVid, strong",
        kind="wan2.1-causvid",
        pattern=r"\bwan-?2[.-]?1\b",
        values=_values(alpha=1.7, beta=0.2),
        source=f"{_CODE}: the highest of its three",
        measured=False,
        note=_WAN,
        strong=True,
        published=Published(1.7, 0.2),
        steps=(8, 12),
        difference_alpha=2.6,
    ),
    Preset(
        name="Small Wan",
        kind="wan",
        pattern=r"(?!)",  # by its kind alone: a folder of that name is a real one
        values=SMALL_WAN_VALUES,
        source="this project: python -m vsf_lib bench scenes --video",
        measured=SMALL_WAN_MEASURED,
        note="the small built-in model of videos",
        steps=(4, 8),
        difference_alpha=SMALL_WAN_DIFFERENCE_ALPHA,
    ),
)

UNKNOWN = Preset(
    name="Unknown model",
    kind="unknown",
    pattern=r"(?!)",
    values=_values(),
    source="none: the defaults of the settings",
    measured=False,
    note="nothing is known of this model; begin here and move alpha",
)

# The methods that VSF is compared with, at the VSF paper's settings for SD3.5 large turbo.
BASELINES: Mapping[str, Preset] = MappingProxyType(
    {
        "nag": Preset(
            name="NAG",
            kind="nag",
            pattern=r"(?!)",
            values=_values(method="nag", nag_phi=4.0, nag_tau=2.5, nag_alpha=0.125),
            source=_PAPER,
            measured=False,
            note="its authors' code writes the scale as phi + 1",
        ),
        "nag-strong": Preset(
            name="NAG, strong",
            kind="nag",
            pattern=r"(?!)",
            values=_values(method="nag", nag_phi=11.0, nag_tau=5.0, nag_alpha=0.5),
            source=f"{_PAPER}: NAG Strong",
            measured=False,
            note="its authors' code writes the scale as phi + 1",
            strong=True,
        ),
        "nasa": Preset(
            name="NASA",
            kind="nasa",
            pattern=r"(?!)",
            values=_values(method="nasa", nasa_alpha=0.25),
            source="NASA poster (SNOOPI): 0.15 to 0.5",
            measured=False,
            note="inside the published range",
        ),
    }
)


WAN = "wan2.1-causvid"
"""The kind of the models that videos are made with."""


def kinds() -> tuple[str, ...]:
    """The kinds of model that have a preset of their own."""
    return tuple(dict.fromkeys(preset.kind for preset in PRESETS))


def preset_for(model: str, *, strong: bool = False, usual: str = "") -> Preset:
    """The preset for a kind, a model's name, hub id, file or folder.

    Without a strong preset of its own a model gets its ordinary one. An unknown one gets that of the kind
    `usual`, where only such models can be meant, else `UNKNOWN`.
    """
    name = _plain(model)
    # A folder on the way ("scenes/sd3.5-large-turbo") must not win over the model's own name.
    last = _plain(re.split(r"[\\/]", model.rstrip("\\/"))[-1])
    found = (
        [preset for preset in PRESETS if preset.kind == name]
        or [preset for preset in PRESETS if re.search(preset.pattern, last)]
        or [preset for preset in PRESETS if re.search(preset.pattern, name)]
        or [preset for preset in PRESETS if preset.kind == usual]
    )
    kind = [preset for preset in found if preset.kind == found[0].kind]
    return next((preset for preset in kind if preset.strong == strong), kind[0] if kind else UNKNOWN)


def named(name: str) -> Preset | None:
    """The preset of exactly that name."""
    return next((preset for preset in PRESETS if preset.name == name), None)


def baseline(name: str, model: str = "") -> Preset:
    """The preset of a method that VSF is compared with: nag, nag-strong or nasa.

    As measured on a built-in `model`, as published for all others.
    """
    if name not in BASELINES:
        raise SettingsError(f"there is no baseline {name!r}: choose one of {', '.join(BASELINES)}")
    published = BASELINES[name]
    found = measured.BASELINES.get((model, name))
    if found is None:
        return published
    return replace(
        published,
        name=f"{published.name}, {model}",
        values=_values(method=published.kind, **found.values),
        source=found.source,
        measured=True,
        note=f"the small built-in model {model}",
    )


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")
