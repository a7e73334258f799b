"""What the panel shows for the selected checkpoint and preset: a line of advice, and the values that it sets.

Owns when they are renewed: as the page loads, and with another preset, method or checkpoint. Switching the
panel on renews the line alone: the values are there already, and a late answer would move a slider back.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vsf_lib.presets import Preset, named
from vsf_lib.settings import SHARING
from vsf_lib.webui.advice import advice
from vsf_lib.webui.checkpoint_file import peek
from vsf_lib.webui.options import chosen
from vsf_lib.webui.request import AUTO, STRENGTHS, Checkpoint


def strengths(
    preset: str, checkpoint: Checkpoint | None, *, strong: bool, method: str = "vsf"
) -> dict[str, Any]:
    """What the strengths' widgets are set to; nothing under "Custom", or where "Auto" is not known yet."""
    found: Preset | None = named(preset)
    if preset == AUTO and checkpoint is not None and checkpoint.network is not None:
        found = checkpoint.preset(strong=strong)
    if found is None or method not in SHARING:
        return {}
    settings = found.settings(method=method)
    return {name: getattr(settings, name) for name in STRENGTHS}


def follow(line: Any, widgets: Mapping[str, Any], told: Any) -> None:
    """Connects `line` (an HTML element), the widgets of the strengths and the memory of their negative tokens
    `told`; called as the page is built."""
    import gradio as gr
    from modules import script_callbacks

    quiet: dict[str, Any] = {"show_progress": False, "queue": False}
    every: dict[str, Any] = {"outputs": [line, told, *(widgets[name] for name in STRENGTHS)], **quiet}
    asked = [widgets["preset"], widgets["method"]]
    widgets["enabled"].change(_line_of_selected, inputs=[widgets["method"]], outputs=[line], **quiet)
    for event in (widgets["preset"].input, widgets["method"].input):
        event(_of_selected, inputs=asked, **every)
    root = gr.context.Context.root_block
    if root is not None:
        root.load(_of_selected, inputs=asked, **every)

    def made(component: Any, **_: Any) -> None:
        # While the page is used, gradio makes copies of its elements, outside of any page.
        built = gr.context.Context.root_block is not None
        # The Refiner's list of checkpoints has the same label.
        if (
            built
            and isinstance(component, gr.Dropdown)
            and component.label == "Checkpoint"
            and "model_selection" in component.elem_classes
        ):
            component.change(_of_title, inputs=[*asked, component], **every)

    script_callbacks.on_after_component(made)


def _of_selected(preset: str, method: str) -> list[Any]:
    return _of_title(preset, method, _selected())


def _line_of_selected(method: str) -> Any:
    return _line(_checkpoint(_selected()), method)


def _of_title(preset: str, method: str, title: str | None) -> list[Any]:
    import gradio as gr

    checkpoint = _checkpoint(title)
    values = strengths(preset, checkpoint, strong=chosen().strong_presets, method=method)
    widgets = [gr.update(value=values[name]) if name in values else gr.update() for name in STRENGTHS]
    told = values.get("negative_tokens", gr.update())
    return [_line(checkpoint, method), told, *widgets]


def _line(checkpoint: Checkpoint | None, method: str) -> Any:
    import gradio as gr

    text = advice(checkpoint, strong=chosen().strong_presets, method=method)
    return gr.update(value=html.escape(text), visible=bool(text))


def _selected() -> str | None:
    from modules import shared

    title: str | None = shared.opts.sd_model_checkpoint
    return title


def _checkpoint(title: str | None) -> Checkpoint | None:
    from modules import sd_models

    known = sd_models.checkpoint_aliases.get(title or "")
    return None if known is None else peek(Path(known.filename))
