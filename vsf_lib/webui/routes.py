"""Two read-only routes for programs: what the settings are, and the presets."""

from __future__ import annotations

from typing import Any

from vsf_lib.presets import PRESETS
from vsf_lib.settings import fields
from vsf_lib.webui.request import ARGUMENTS, HEATMAP, HEATMAP_OFF, HEATMAPS, STRENGTHS, preset_names


def schema() -> dict[str, Any]:
    """The arguments in their order, with types, bounds, choices and infotext names."""
    named = {field.name: field for field in fields()}
    arguments: list[dict[str, Any]] = []
    for name in ARGUMENTS:
        if name == "enabled":
            arguments.append({"name": name, "type": "boolean", "default": False})
        elif name == "preset":
            choices = list(preset_names())
            arguments.append({"name": name, "type": "string", "default": choices[0], "choices": choices})
        elif name == HEATMAP:
            arguments.append(
                {"name": name, "type": "string", "default": HEATMAP_OFF, "choices": list(HEATMAPS)}
            )
        else:
            field = named[name]
            entry: dict[str, Any] = {
                "name": name,
                "type": "number" if field.kind is float else "string",
                "default": field.default,
                "infotext": field.infotext,
                "help": field.help,
            }
            if field.choices:
                entry["choices"] = list(field.choices)
            if field.low is not None:
                entry |= {"minimum": field.low, "maximum": field.high}
            arguments.append(entry)
    return {"arguments": arguments}


def presets() -> dict[str, Any]:
    """The presets that the panel offers, with what they set."""
    offered = set(preset_names())
    return {
        "presets": [
            {
                "name": preset.name,
                "values": {name: getattr(preset.settings(), name) for name in STRENGTHS},
                "source": preset.source,
                "note": preset.note,
                "measured": preset.measured,
            }
            for preset in PRESETS
            if preset.name in offered
        ]
    }


def add(app: Any) -> None:
    """Adds both to the host's FastAPI application."""
    app.get("/vsf/v1/schema")(schema)
    app.get("/vsf/v1/presets")(presets)
