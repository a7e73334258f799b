"""A slider that passes on what is typed beside it, however far off or empty: the desk checks bounds.

Gradio's own answers with an error of its own, or with none: in the browser it moves what is typed to the
nearer end, and an emptied number to 0. `vsf.js` keeps it from that, in elements of the class `vsf-typed`.
"""

from __future__ import annotations

from abc import ABCMeta
from typing import Any

import gradio as gr


def _as_typed(self: Any, payload: Any) -> Any:
    """None for nothing."""
    return payload


# Not by a class statement, at which gradio writes an interface file beside this one. As a template it is
# gradio's slider to the browser.
Slider: Any = ABCMeta.__new__(
    type(gr.Slider), "Slider", (gr.Slider,),
    {"preprocess": _as_typed, "is_template": True, "__module__": __name__, "__doc__": __doc__},
)  # fmt: skip
