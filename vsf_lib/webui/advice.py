"""The line in the panel about the selected checkpoint: what "Auto" means for it, or what else to do.

Owns its wording and when it is renewed: as the page loads, with the panel's switch, with another checkpoint.
"""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

from vsf_lib.webui.checkpoint_file import peek
from vsf_lib.webui.options import chosen
from vsf_lib.webui.request import STRENGTHS, Checkpoint


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
    values = ", ".join(f"{name.replace('_', ' ')} {getattr(settings, name):g}" for name in STRENGTHS)
    return f"Auto is here “{preset.name}”: {values}. At CFG 1 the WebUI's negative prompt needs VSF to act."


def keep_current(line: Any, enabled: Any) -> None:
    """Renews `line` (an HTML element) on its occasions; called while the page is built."""
    import gradio as gr
    from modules import script_callbacks

    quiet: dict[str, Any] = {"outputs": [line], "show_progress": False, "queue": False}
    enabled.change(_of_selected, inputs=[], **quiet)
    root = gr.context.Context.root_block
    if root is not None:
        root.load(_of_selected, inputs=[], **quiet)

    def made(component: Any, **_: Any) -> None:
        if isinstance(component, gr.Dropdown) and component.label == "Checkpoint":
            component.change(_of_title, inputs=[component], **quiet)

    script_callbacks.on_after_component(made)


def _of_selected() -> Any:
    from modules import shared

    return _of_title(shared.opts.sd_model_checkpoint)


def _of_title(title: str | None) -> Any:
    import gradio as gr
    from modules import sd_models

    known = sd_models.checkpoint_aliases.get(title or "")
    checkpoint = None if known is None else peek(Path(known.filename))
    text = advice(checkpoint, strong=chosen().strong_presets)
    return gr.update(value=html.escape(text), visible=bool(text))
