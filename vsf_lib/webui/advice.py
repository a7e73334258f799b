"""The line in the panel about the selected checkpoint: what "Auto" means for it, or what else to do.

Owns its wording and when it is renewed: as the page loads, with the panel's switch, with another preset or
checkpoint. While the preset is Auto the sliders show what it means.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vsf_lib.webui.checkpoint_file import peek
from vsf_lib.webui.options import chosen
from vsf_lib.webui.request import AUTO, STRENGTHS, Checkpoint


def advice(checkpoint: Checkpoint | None, *, strong: bool = False) -> str:
    """One line for the selected checkpoint; empty for one that cannot be told before it is loaded."""
    if checkpoint is None:
        return ""
    if checkpoint.network is None:
        return f"VSF guides SD3.5 and Flux, and {checkpoint.name} is neither: switch VSF off for it."
    if checkpoint.network == "SD3.5" and not checkpoint.turbo:
        return (
            "This SD3.5 does not look distilled (no “turbo” in its name): with CFG above 1 the WebUI's own "
            "negative prompt is the better tool."
        )
    preset = checkpoint.preset(strong=strong)
    settings = preset.settings()
    given = {name: getattr(settings, name) for name in STRENGTHS}
    if not given["negative_scale"]:
        del given["negative_scale"]
    values = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in given.items())
    return f"“Auto” means {preset.name} here: {values}."


def keep_current(line: Any, widgets: Mapping[str, Any]) -> None:
    """Renews `line` (an HTML element), and the sliders under Auto; called as the page is built."""
    import gradio as gr
    from modules import script_callbacks

    quiet: dict[str, Any] = {
        "outputs": [line, *(widgets[name] for name in STRENGTHS)],
        "show_progress": False,
        "queue": False,
    }
    preset = widgets["preset"]
    for event in (widgets["enabled"].change, preset.input):
        event(_of_selected, inputs=[preset], **quiet)
    root = gr.context.Context.root_block
    if root is not None:
        root.load(_of_selected, inputs=[preset], **quiet)

    def made(component: Any, **_: Any) -> None:
        # While the page is used, gradio makes copies of its elements, outside of any page.
        built = gr.context.Context.root_block is not None
        if built and isinstance(component, gr.Dropdown) and component.label == "Checkpoint":
            component.change(_of_title, inputs=[preset, component], **quiet)

    script_callbacks.on_after_component(made)


def _of_selected(preset: str) -> list[Any]:
    from modules import shared

    return _of_title(preset, shared.opts.sd_model_checkpoint)


def _of_title(preset: str, title: str | None) -> list[Any]:
    import gradio as gr
    from modules import sd_models

    known = sd_models.checkpoint_aliases.get(title or "")
    checkpoint = None if known is None else peek(Path(known.filename))
    strong = chosen().strong_presets
    text = advice(checkpoint, strong=strong)
    sliders = [gr.update() for _ in STRENGTHS]
    if preset == AUTO and checkpoint is not None and checkpoint.network is not None:
        settings = checkpoint.preset(strong=strong).settings()
        sliders = [gr.update(value=getattr(settings, name)) for name in STRENGTHS]
    return [gr.update(value=html.escape(text), visible=bool(text)), *sliders]
