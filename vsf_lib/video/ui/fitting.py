"""What the form shows for a model: the built-in one and real ones have other sizes, lengths, steps and words.

Owns these values; knows no desk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from vsf_lib.scenes.model import SIZE, WAN
from vsf_lib.video import builtin
from vsf_lib.video.desk import AUTOMATIC
from vsf_lib.video.job import SIZES, Lora, VideoJob

ALL_SIZES: Mapping[str, tuple[int, int]] = {**SIZES, f"{SIZE}x{SIZE}": (SIZE, SIZE)}
"""Those of real models, and of the built-in one."""
OWN_SIZE = "own size"
FITTED = (*builtin.USUAL, "compare")
"""What the built-in model and real ones have other values of."""


def usual(model: str) -> dict[str, Any]:
    """What the form shows of `FITTED` for a model."""
    values = {name: VideoJob.model_fields[name].default for name in FITTED}
    if model == WAN:  # where two videos take seconds
        values |= {**builtin.USUAL, "compare": True}
    values["loras"] = lines([Lora(**one) for one in values["loras"]])
    return values | {name: AUTOMATIC[name] for name in AUTOMATIC if name in values and values[name] is None}


def fitted(model: str | None, width: float, height: float) -> list[Any]:
    """Other values where the form had those of the other kind of model, told by their size."""
    if (model == WAN) == ((width, height) == (SIZE, SIZE)):
        return [gr.update()] * (len(FITTED) + 1)
    values = usual(model or "")
    shown = [gr.update(value=values[name]) for name in FITTED]
    return [*shown, gr.update(value=size_name(values["width"], values["height"]))]


def sized(chosen: str) -> list[Any]:
    """Updates of width and height to a size of that name."""
    if chosen not in ALL_SIZES:
        return [gr.update()] * 2
    return [gr.update(value=pixels) for pixels in ALL_SIZES[chosen]]


def size_name(width: int, height: int) -> str:
    """What the list of sizes calls it."""
    return next((name for name, size in ALL_SIZES.items() if size == (width, height)), OWN_SIZE)


def lines(loras: Sequence[Lora]) -> str:
    """As the form's text has them."""
    return "\n".join(map(str, loras))
