"""Keeps the WebUI's own negative boxes usable at CFG 1 while VSF is on, and the host's rule while it is off.

The host greys a box when its CFG slider moves to 1. That is a gradio event, so it is answered with another:
script code in the page would be overwritten by the next update. Knows the elements by their ids only.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import gradio as gr


class _Pair(NamedTuple):
    """A CFG slider and the negative box that the host greys with it."""

    slider: str
    box: str


_PAIRS = (
    _Pair("txt2img_cfg_scale", "txt2img_neg_prompt"),
    _Pair("txt2img_hr_cfg", "hires_neg_prompt"),
    _Pair("img2img_cfg_scale", "img2img_neg_prompt"),
)


class NegativeBoxes:
    """Gathers one tab's elements as the page is built, in whatever order, and connects each pair once."""

    def __init__(self) -> None:
        self._waiting = list(_PAIRS)
        self._found: dict[str, Any] = {}
        self._switch: Any = None

    def switch(self, enabled: Any) -> None:
        """The panel's own checkbox is there."""
        self._switch = enabled
        self._connect()

    def component(self, component: Any, elem_id: str | None) -> None:
        """Any element of the page was made."""
        if elem_id is not None and any(elem_id in pair for pair in self._waiting):
            self._found[elem_id] = component
            self._connect()

    def _connect(self) -> None:
        if self._switch is None:
            return
        for pair in list(self._waiting):
            if pair.slider in self._found and pair.box in self._found:
                self._waiting.remove(pair)
                self._listen(self._found[pair.slider], self._found[pair.box])

    def _listen(self, slider: Any, box: Any) -> None:
        event: dict[str, Any] = {
            "inputs": [self._switch, slider],
            "outputs": [box],
            "show_progress": False,
            "queue": False,
        }
        self._switch.change(usable, **event)
        # The host listens too, and answers may overtake each other: the second answer settles it.
        slider.change(usable, **event).then(usable, **event)
        root = gr.context.Context.root_block
        if root is not None:
            root.load(usable_on_load, **event)


def usable(enabled: bool, cfg_scale: float) -> Any:
    """With VSF on a box is always usable, with VSF off as the host has it: not at CFG 1."""
    return gr.update(interactive=bool(enabled) or cfg_scale != 1)


def usable_on_load(enabled: bool, cfg_scale: float) -> Any:
    """A page that was just loaded is the host's, unless VSF begins switched on."""
    return gr.update(interactive=True) if enabled else gr.update()
