"""What the page says, as HTML: lines, errors and bars, in the classes of `style.css`."""

from __future__ import annotations

import html


def say(text: str, *, bad: bool = False) -> str:
    """A line, or an error; nothing for no text."""
    return f'<div class="{"vsf-error" if bad else "vsf-advice"}">{html.escape(text)}</div>' if text else ""


def bar(share: float) -> str:
    """How far something is, from 0 to 1."""
    return f'<progress class="vsf-progress" value="{share:.3f}" max="1"></progress>'
