"""The methods that a benchmark compares, by name: those that a user has, at their presets' values.

Owns the names and how `NAME:FIELD=VALUE` changes one of them. Draws nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from vsf_lib.bench.drawing import Method
from vsf_lib.errors import SettingsError
from vsf_lib.presets import baseline, preset_for
from vsf_lib.settings import Settings
from vsf_lib.settings import field as setting

CFG_SCALE = 3.0
SCALE = "scale"
"""What a method called cfg takes beside the settings' fields."""

_MADE: dict[str, Callable[[str], Method]] = {
    "none": lambda model: Method("none", Settings(method="off")),
    "vsf": lambda model: Method("vsf", preset_for(model).settings()),
    "vsf-strong": lambda model: Method("vsf-strong", preset_for(model, strong=True).settings()),
    "difference": lambda model: Method("difference", preset_for(model).settings(method="difference")),
    "nag": lambda model: Method("nag", baseline("nag").settings()),
    "nag-strong": lambda model: Method("nag-strong", baseline("nag-strong").settings()),
    "nasa": lambda model: Method("nasa", baseline("nasa").settings()),
    "cfg": lambda model: Method("cfg", Settings(method="off"), guidance_scale=CFG_SCALE),
}
NAMES = tuple(_MADE)


def usual_methods(model: str) -> list[Method]:
    """All of them, with the values of the presets for `model`."""
    return [make(model) for make in _MADE.values()]


def method_named(text: str, model: str) -> Method:
    """The method behind `vsf`, or `vsf:alpha=2:beta=0.5`, which is also its name in tables."""
    name, *changes = (part.strip() for part in text.split(":"))
    if name not in _MADE:
        raise SettingsError(f"there is no method {name!r}: choose of {', '.join(NAMES)}")
    method = _MADE[name](model)
    for change in changes:
        field, equals, value = (part.strip() for part in change.partition("="))
        if not equals:
            raise SettingsError(f"the method {text!r} has {change!r}, but must be like {name}:alpha=2")
        if method.guidance_scale > 1 and field == SCALE:
            method = replace(method, guidance_scale=_scale(value))
        elif field in ("method", "negative_prompt") or method.settings.method == "off":
            raise SettingsError(f"the method {text!r} sets {field}, which {name} does not take: leave it out")
        elif method.settings.method not in setting(field).methods or setting(field).webui:
            raise SettingsError(f"the method {text!r} sets {field}, which {name} does not read: leave it out")
        else:
            method = replace(method, settings=method.settings.changed(**{field: value}))
    return replace(method, name=":".join([name, *changes]))


def methods_named(text: str, model: str) -> list[Method]:
    """The methods of a list with commas, each once."""
    found = [method_named(part, model) for part in text.split(",") if part.strip()]
    names = [method.name for method in found]
    if not found:
        raise SettingsError(f"the list of methods is empty: choose of {', '.join(NAMES)}")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise SettingsError(f"the method {twice} stands twice in the list: leave one out")
    return found


def _scale(value: str) -> float:
    try:
        scale = float(value)
    except ValueError:
        scale = 0.0
    if not 1 < scale <= 100:
        raise SettingsError(f"the scale of cfg is {value!r}, but must be a number above 1, up to 100")
    return scale
