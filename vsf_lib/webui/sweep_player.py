"""The films of the job that the page shows, under the settings of the script "VSF sweep".

The host's gallery shows pictures alone. Of a page's own word for what to show only what this process wrote is
believed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from vsf_lib.pages.said import film
from vsf_lib.webui.sweep_script import FILMS

SOURCE = "generation_info_{tab}"
"""The host's hidden element with what a job has told, as JSON."""


def build(elem_id: Callable[[str], str]) -> Any:
    import gradio as gr

    return gr.HTML(elem_id=elem_id("films"), visible=False)


def follow(player: Any, source: Any, written: Collection[str]) -> None:
    """Connects the player to the host's element; called as the page is built. `written` may grow."""
    import gradio as gr

    def show(told: str) -> Any:
        shown = page(told, written)
        return gr.update(value=shown, visible=bool(shown))

    source.change(show, inputs=[source], outputs=[player], show_progress=False, queue=False)


def page(told: str, written: Collection[str]) -> str:
    """The films that a job's JSON names, as HTML; empty where it names none."""
    try:
        films = json.loads(told)["extra_generation_params"][FILMS]
        known = [Path(name) for name in films if name in written]
    except (ValueError, KeyError, TypeError):
        return ""
    return "".join(map(film, known))
