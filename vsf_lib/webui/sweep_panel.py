"""The widgets of the script "VSF sweep", and how a strip's parameters bring them back.

Owns the arrangement. Gradio comes from the host, and only where the widgets are built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from vsf_lib.errors import SettingsError
from vsf_lib.infotext import decode
from vsf_lib.sweep import FPS, INFOTEXT, LOOP, MOST_FPS, Sweep
from vsf_lib.webui.sweep_request import ARGUMENTS, DEFAULTS, settings_to_sweep
from vsf_lib.webui.sweep_script import UNGUIDED


def build(elem_id: Callable[[str], str]) -> dict[str, Any]:
    """The widgets by argument, in the order of ARGUMENTS."""
    import gradio as gr

    made: dict[str, Any] = {}
    gr.HTML(
        "One picture per value and seed, as a strip and one by one; everything else is what the VSF panel "
        "says, which must be on. Values are LOW:HIGH:STEP, or a list such as 0, 1, 2.5."
    )
    with gr.Row():
        made["setting"] = gr.Dropdown(
            label="Sweep setting",
            choices=list(settings_to_sweep()),
            value=DEFAULTS["setting"],
            elem_id=elem_id("setting"),
        )
        made["values"] = gr.Textbox(
            label="Sweep values",
            value=DEFAULTS["values"],
            max_lines=1,
            elem_id=elem_id("values"),
        )
    with gr.Row():
        for name, label in (
            ("unguided", "Unguided picture first"),
            ("film", "Film (MP4) of the sweep"),
            ("loop", "Film there and back"),
        ):
            made[name] = gr.Checkbox(label=label, value=DEFAULTS[name], elem_id=elem_id(name))
    made["fps"] = gr.Slider(
        label="Film: values per second",
        minimum=1,
        maximum=MOST_FPS,
        step=1,
        value=DEFAULTS["fps"],
        elem_id=elem_id("fps"),
    )
    return {name: made[name] for name in ARGUMENTS}


def _sweep(pairs: Mapping[str, Any]) -> tuple[str, str] | None:
    """The setting and the values that an infotext names, if they can be swept here."""
    told = decode(str(pairs.get(INFOTEXT, "")))
    try:
        name = Sweep.parse(told).name
    except SettingsError:
        return None
    return (name, told.partition("=")[2]) if name in settings_to_sweep() else None


def _part(index: int) -> Callable[[Mapping[str, Any]], Any]:
    def read(pairs: Mapping[str, Any]) -> Any:
        found = _sweep(pairs)
        return None if found is None else found[index]

    return read


def _fps(pairs: Mapping[str, Any]) -> int | None:
    told = str(pairs.get(FPS, ""))
    return int(told) if told.isdecimal() and 1 <= int(told) <= MOST_FPS else None


def _if_swept(read: Callable[[Mapping[str, Any]], Any]) -> Callable[[Mapping[str, Any]], Any]:
    return lambda pairs: None if _sweep(pairs) is None else read(pairs)


READERS: Mapping[str, Callable[[Mapping[str, Any]], Any]] = MappingProxyType(
    {
        "setting": _part(0),
        "values": _part(1),
        "unguided": _if_swept(lambda pairs: UNGUIDED not in pairs),
        "film": _if_swept(lambda pairs: True if FPS in pairs else None),
        "fps": _if_swept(_fps),
        "loop": _if_swept(lambda pairs: LOOP in pairs if FPS in pairs else None),
    }
)
"""Per argument, what it is set to by the pairs of an infotext; None leaves it as it is."""
