"""Which preset is meant by a name, a method and a model, for every front end that offers presets by name."""

from __future__ import annotations

from typing import Any

from vsf_lib.errors import SettingsError
from vsf_lib.presets import BASELINES, Preset, baseline, kinds, preset_for
from vsf_lib.settings import SHARING, Settings


def preset_names() -> tuple[str, ...]:
    """What `--preset` offers beside the kinds of model."""
    return ("auto", "strong", *BASELINES)


def preset_named(name: str | None, method: str | None, model: str) -> Preset:
    """The preset that `name` asks for; without a name the one for the method, or for the model."""
    if name is None or name == "auto":
        return baseline(method, model) if method is not None and method in BASELINES else preset_for(model)
    if name == "strong":
        found = preset_for(model, strong=True)
    elif name in BASELINES:
        found = baseline(name, model)
    else:
        kind = name.removesuffix("-strong")
        if kind not in kinds():
            raise SettingsError(
                f"there is no preset {name!r}: choose one of {', '.join((*preset_names(), *kinds()))}"
            )
        found = preset_for(kind, strong=kind != name)
    own = found.settings().method
    if method not in (None, "off", own) and not {method, own} <= SHARING:
        raise SettingsError(f"the preset {name} is for method {own}, but --method says {method}: drop one")
    return found


STRENGTHS = ("alpha", "beta", "negative_tokens", "nag_phi", "nag_tau", "nag_alpha", "nasa_alpha")
"""The fields of Settings that presets are about."""


def strengths(model: str, method: str, *, strong: bool = False, usual: str = "") -> dict[str, Any]:
    """The values of `STRENGTHS` that are suggested for a model and a method; `usual` as in `preset_for`."""
    name = f"{method}-strong" if strong else method
    if method in SHARING:
        values = preset_for(model, strong=strong, usual=usual).settings(method=method)
    elif method in BASELINES:
        values = baseline(name if name in BASELINES else method, model).settings()
    else:
        values = Settings()
    return {one: getattr(values, one) for one in STRENGTHS}
