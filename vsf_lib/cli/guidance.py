"""The flags of guidance, made from the fields of `Settings`, for every command that has them."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from vsf_lib.preset_choice import preset_names
from vsf_lib.presets import PRESETS, kinds
from vsf_lib.settings import SettingField, Settings, fields
from vsf_lib.settings import field as setting


def add_guidance(parser: ArgumentParser, what: str) -> Any:
    """Adds the group and returns it. No flag has a default, so that an explicit one can be told from none."""
    guidance = parser.add_argument_group(f"keeping things out of {what}")
    for field in fields():
        if field.webui:
            continue
        guidance.add_argument(field.flag, dest=field.name, metavar=_metavar(field), help=_help(field))
    guidance.add_argument(
        "--preset",
        metavar="NAME",
        help=f"the values of flags that are not given: {', '.join(preset_names())}, or a kind of model such "
        f"as {kinds()[1]} or {kinds()[1]}-strong (default: auto, which goes by the model's name)",
    )
    return guidance


def explicit(args: Namespace) -> dict[str, Any]:
    """The settings that were given."""
    flags = {item.name: getattr(args, item.name) for item in fields() if not item.webui}
    return {name: value for name, value in flags.items() if value is not None}


def unread(args: Namespace, settings: Settings) -> list[str]:
    """A note on each flag that was given and that the method of `settings`, which came of it, does not read.

    Not where there is nothing to guide: that is told already, and the method is off for that reason alone.
    """
    if settings.method == "off" and args.method != "off" and not settings.negative_prompt:
        return []
    given = [setting(name) for name in explicit(args) if name not in ("method", "negative_prompt")]
    return [
        f"{item.flag} is not read by method {settings.method}: ignored"
        for item in given
        if settings.method not in item.methods
    ]


def _metavar(field: SettingField) -> str:
    if field.choices:
        return "{" + ",".join(field.choices) + "}"
    return "X" if field.kind is float else "TEXT"


def _help(field: SettingField) -> str:
    bounds = "" if field.low is None else f" {field.low:g} to {field.high:g};"
    default = f"{field.default:g}" if field.kind is float else field.default or "none"
    if any(field.name in preset.values for preset in PRESETS):
        default = f"the preset's, else {default}"
    return f"{field.help} ({bounds.lstrip()} default: {default})".replace("( ", "(").replace("%", "%%")
