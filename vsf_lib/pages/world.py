"""What the small built-in models can be asked for, as hints of a form; of other models nothing needs to be
said."""

from __future__ import annotations

from typing import Any

import gradio as gr

from vsf_lib.controls import WHY
from vsf_lib.scenes.model import MODELS, WAN
from vsf_lib.scenes.motion import VERBS
from vsf_lib.scenes.world import COLOURS, KINDS, PARTS, PLACES

HINTED = ("prompt", "negative_prompt")
"""The elements of a form that have a hint."""


def world(model: str) -> str:
    """Beside the prompt."""
    if not _is_small(model):
        return ""
    known = (KINDS, COLOURS, *([VERBS] if model == WAN else []), PLACES.values())
    return f"The small built-in model knows a little world: {'; '.join(map(', '.join, known))}."


def parts(model: str) -> str:
    """Beside the negative prompt, after why it is there."""
    return f"{WHY} The small model knows: {', '.join(PARTS)}." if _is_small(model) else WHY


def told(model: str | None) -> list[Any]:
    """Updates of `HINTED` to the hints for a model."""
    return [gr.update(info=world(model or "")), gr.update(info=parts(model or ""))]


def _is_small(model: str) -> bool:
    return model in (*MODELS, WAN)
