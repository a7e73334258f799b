"""What pages say and show as HTML: lines, errors and bars, in the classes of `style.css`, and films.

Knows no gradio.
"""

from __future__ import annotations

import base64
import html
from pathlib import Path

_LARGEST = 32 * 2**20
"""Bytes of a film that is put into a page; of a larger one its name stands there."""


def say(text: str, *, bad: bool = False) -> str:
    """A line, or an error; nothing for no text."""
    return f'<div class="{"vsf-error" if bad else "vsf-advice"}">{html.escape(text)}</div>' if text else ""


def bar(share: float) -> str:
    """How far something is, from 0 to 1."""
    return f'<progress class="vsf-progress" value="{share:.3f}" max="1"></progress>'


def film(path: Path) -> str:
    """A player with the film in it, so that it needs no leave to be served from the user's folder."""
    name = f"<p>{html.escape(path.name)}</p>"
    try:
        if path.stat().st_size > _LARGEST:
            return name
        content = base64.b64encode(path.read_bytes()).decode()
    except OSError:  # deleted since
        return ""
    source = f"data:video/{path.suffix[1:].lower()};base64,{content}"
    return f'<video controls autoplay loop muted style="max-width: 100%" src="{source}"></video>{name}'
