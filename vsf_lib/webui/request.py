"""What a generation asks of the extension: the panel's values or an API's, with presets resolved.

Owns the order of the arguments (only ever appended to), the one-dictionary form, and which text is the
negative prompt of which picture. Imports no host module, so that all of this is tested without one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from vsf_lib.errors import SettingsError
from vsf_lib.presets import PRESETS, WAN, Preset, named, preset_for
from vsf_lib.settings import SHARING, Settings, field, fields
from vsf_lib.webui.networks import titles
from vsf_lib.webui.options import DEFAULTS, Options

AUTO, CUSTOM = "Auto", "Custom"
HEATMAP = "heatmap"
"""Whether a result comes with a picture of where VSF acted. No field of `Settings`: results are the same."""
HEATMAPS = ("off", "picture", "each step")
HEATMAP_OFF, _, HEATMAP_STEPS = HEATMAPS
PASSES = {False: "first", True: "second"}
"""What the setting "hires pass" calls a pass, by whether it is the second one of hires fix."""

_FIELDS = tuple(item.name for item in fields() if not item.pipeline)
_THEN = _FIELDS.index("negative_tokens") + 1
"""How many fields there were when the heat map came: those that came later have later positions."""
ARGUMENTS: tuple[str, ...] = ("enabled", "preset", *_FIELDS[:_THEN], HEATMAP, *_FIELDS[_THEN:])
"""The panel's values in their order, which is that of positional API arguments."""

STRENGTHS = ("alpha", "beta", "negative_scale", "negative_tokens")
"""What a preset of the WebUI's models decides; everything else is the user's."""


_KINDS = {"SD3.5": "sd3.5-large-turbo", "Flux": "flux-schnell", "Wan": WAN}
"""By network, the kind of its presets; Flux has another one where it takes distilled guidance."""


_NETWORK_TAG = re.compile(r"<[a-z]+:[^<>]+>", re.IGNORECASE)


def plain_text(text: str) -> str:
    """`text` without what only a positive prompt may hold: `<lora:...>` tags, and BREAK, which makes chunks
    of padding.
    """
    return " ".join(re.sub(r"\bBREAK\b", " ", _NETWORK_TAG.sub(" ", text)).split())


@dataclass(frozen=True)
class Checkpoint:
    """What is known of the loaded model."""

    name: str
    """File name or title."""
    network: str | None
    """`ForgeNetwork.title`, or None where nothing is guided."""
    guidance_embedding: bool = False
    """Flux: whether it takes distilled guidance, as dev does and schnell does not."""

    @property
    def kind(self) -> tuple[str | None, bool]:
        """Models of the same kind take the same values."""
        return (self.network, self.guidance_embedding)

    @property
    def turbo(self) -> bool:
        """Whether the name says that CFG was distilled away."""
        return "turbo" in self.name.lower()

    def preset(self, *, strong: bool = False) -> Preset:
        """The preset for this model: by what it is built like, then by its name."""
        if self.network == "Flux" and self.guidance_embedding:
            return preset_for("flux-dev", strong=strong)
        return preset_for(_KINDS.get(self.network or "", self.name), strong=strong)


@dataclass(frozen=True)
class Request:
    """A generation that is to be guided."""

    settings: Settings
    """Resolved: what the infotext says."""
    heatmap: str = HEATMAP_OFF
    """One of HEATMAPS."""

    def negatives(self, host: Sequence[str]) -> tuple[str, ...] | None:
        """One negative prompt per picture: the panel's for all, else the WebUI's own; None if all are empty.

        Raises SettingsError for one without a word, and if some are empty and others not: those pictures
        could not be called guided.
        """
        own = self.settings.negative_prompt
        texts = tuple(plain_text(text) for text in ((own,) * len(host) if own else host))
        if own and not any(texts):
            raise SettingsError(
                f"VSF's negative prompt is {own[:40]!r}, which has no word in it: name what to keep out"
            )
        if not any(texts):
            return None
        if not all(texts):
            raise SettingsError(
                f"picture {texts.index('') + 1} of this batch has no negative prompt while others have one: "
                "give each one, or write one in VSF's own box"
            )
        return texts


def preset_names() -> tuple[str, ...]:
    """What the panel offers: presets of the models that this WebUI loads, by name."""
    kinds = tuple(_KINDS[title].split("-")[0] for title in titles())
    return (AUTO, *(preset.name for preset in PRESETS if preset.kind.startswith(kinds)), CUSTOM)


def read(
    arguments: Sequence[Any],
    checkpoint: Checkpoint,
    options: Options = DEFAULTS,
    axes: Mapping[str, Any] = MappingProxyType({}),
) -> Request | None:
    """The request in a script's arguments, or None where VSF is off; raises SettingsError.

    Positional arguments in the order of ARGUMENTS, of which any number may be missing at the end, or one
    dictionary of any of them, behind which the host may have put its panel's defaults. In a dictionary, what
    is given wins over the preset; positionally (the panel always sends all), a preset wins over the
    strengths, and "Custom" leaves them as they are. A preset's strengths are those of the methods "vsf" and
    "difference".

    `axes` is what a plot's cell varies, by argument. It wins over the arguments like a hand on the panel: a
    strength over any preset, and a preset over the strengths that the arguments give.
    """
    given, in_words = _given(arguments)
    if in_words:
        given = {"hires_pass": options.hires_pass, **given}
    enabled = given.pop("enabled", in_words)
    heatmap = given.pop(HEATMAP, HEATMAP_OFF)
    varied = {"preset": given.pop("preset", AUTO), **axes}
    preset, method = varied.pop("preset"), varied.get("method", given.get("method"))
    strengths = _strengths(preset, method, checkpoint, options)
    if in_words and "preset" not in axes:
        values = {**strengths, **given, **varied}
    else:
        values = {**given, **strengths, **varied}
    if not isinstance(enabled, bool):
        raise SettingsError(f"enabled is {repr(enabled)[:40]}, but must be true or false")
    if not enabled:
        return None
    if heatmap not in HEATMAPS:
        raise SettingsError(f"{HEATMAP} is {repr(heatmap)[:40]}: choose one of {', '.join(HEATMAPS)}")
    settings = Settings.create(**values)
    if checkpoint.network not in (None, "Flux"):  # one kind of block, so there is nothing to choose
        if axes.get("blocks", "both") != "both":
            raise SettingsError(
                f"VSF blocks is {axes['blocks']}, but {checkpoint.network} has one kind: use both"
            )
        settings = settings.changed(blocks="both")
    return None if settings.method == "off" else Request(settings, heatmap)


def _given(arguments: Sequence[Any]) -> tuple[dict[str, Any], bool]:
    """The arguments by name, and whether they came in a dictionary."""
    if arguments and isinstance(arguments[0], Mapping):
        given = dict(arguments[0])
        if any(isinstance(argument, Mapping) for argument in arguments[1:]):
            raise SettingsError("VSF takes one dictionary: put all that is asked for into the first")
        for name in given:
            if name not in ARGUMENTS:
                raise SettingsError(
                    f"VSF has no argument {str(name)[:40]!r}: choose from {', '.join(ARGUMENTS)}"
                )
        return given, True
    if len(arguments) > len(ARGUMENTS):
        raise SettingsError(f"VSF takes {len(ARGUMENTS)} arguments ({', '.join(ARGUMENTS)}), not more")
    return dict(zip(ARGUMENTS, arguments, strict=False)), False


def method_of(arguments: Sequence[Any]) -> str:
    """The method that the arguments name, or the usual one."""
    return str(_given(arguments)[0].get("method", field("method").default))


def _strengths(name: Any, method: Any, checkpoint: Checkpoint, options: Options) -> dict[str, Any]:
    if name == CUSTOM:
        return {}
    preset = checkpoint.preset(strong=options.strong_presets) if name == AUTO else named(str(name))
    if preset is None:
        raise SettingsError(f"there is no preset {name!r}: choose one of {', '.join(preset_names())}")
    if method is not None and not (isinstance(method, str) and method in SHARING):
        return {}
    resolved = preset.settings(method=method or "vsf")
    return {strength: getattr(resolved, strength) for strength in STRENGTHS}
