"""The section "VSF" in the WebUI's settings."""

from __future__ import annotations

import gradio as gr

from vsf_lib.webui.forge_host import SKIP, STOP, STRICTNESS


def add() -> None:
    """Adds the options; called by the host when it builds its settings."""
    from modules import shared

    shared.opts.add_option(
        STRICTNESS,
        shared.OptionInfo(
            STOP,
            "When a picture cannot be guided as asked",
            gr.Radio,
            {"choices": [STOP, SKIP]},
            section=("vsf", "VSF"),
        ).info(f"{STOP}: end the generation with a message; {SKIP}: go on unguided, with a notice"),
    )
