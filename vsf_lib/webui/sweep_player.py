"""The films of the job that the page shows, under the settings of the script "VSF sweep".

The host's gallery shows pictures alone. A film is put into the page itself, so that it needs no leave to be
served from the user's folder; of a page's own word for what to show only what this process wrote is believed.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from vsf_lib.webui.sweep_script import FILMS

_LARGEST = 32 * 2**20
"""Bytes of a film that is put into the page; of a larger one its path stands there."""
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
        known = [Path(film) for film in films if film in written]
    except (ValueError, KeyError, TypeError):
        return ""
    return "".join(map(_film, known))


def _film(path: Path) -> str:
    name = f"<p>{html.escape(str(path))}</p>"
    try:
        if path.stat().st_size > _LARGEST:
            return name
        content = base64.b64encode(path.read_bytes()).decode()
    except OSError:  # deleted since
        return ""
    source = f"data:video/mp4;base64,{content}"
    return f'<video controls autoplay loop muted style="max-width: 100%" src="{source}"></video>{name}'
