"""Which preset is meant by a name, a method and a model, for every front end that offers presets by name."""

from __future__ import annotations

from vsf_lib.errors import SettingsError
from vsf_lib.presets import BASELINES, Preset, baseline, kinds, preset_for
from vsf_lib.settings import SHARING


def preset_names() -> tuple[str, ...]:
    """What `--preset` offers beside the kinds of model."""
    return ("auto", "strong", *BASELINES)


def preset_named(name: str | None, method: str | None, model: str) -> Preset:
    """The preset that `name` asks for; without a name the one for the method, or for the model."""
    if name is None or name == "auto":
        return baseline(method) if method is not None and method in BASELINES else preset_for(model)
    if name == "strong":
        found = preset_for(model, strong=True)
    elif name in BASELINES:
        found = baseline(name)
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
