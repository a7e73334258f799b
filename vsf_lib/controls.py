"""Elements of a page for fields of `Settings`: label, bounds, default and help come from the field.

Gradio is whichever the program has: a WebUI's or our own. Owns no arrangement.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from vsf_lib.settings import SettingField

QUIET: dict[str, Any] = {"show_progress": "hidden"}
"""For events whose result is there at once: nothing is laid over what they change meanwhile."""
BASELINES = ("nag", "nasa")
"""Methods with fields of their own, shown while they are chosen."""
WHY = (
    "These models run without classifier-free guidance, so an ordinary negative prompt does nothing; VSF "
    "puts it into their attention."
)
"""What a newcomer is told beside the negative prompt."""


def seen(visible: bool) -> Any:
    """`visible` of an element that is out of sight at times.

    Newer gradios first make an element that is not visible when it becomes so, and then may miss what it
    is to show.
    """
    return visible or ("hidden" if int(gr.__version__.split(".")[0]) >= 6 else False)


def control(
    item: SettingField,
    elem_id: str,
    *,
    label: str = "",
    value: Any = None,
    without: tuple[str, ...] = (),
    slider_class: Any = None,
) -> Any:
    """The element for a field; `label` and `value` in place of its own, less the choices in `without`."""
    common = {
        "label": label or item.label,
        "value": item.default if value is None else value,
        "elem_id": elem_id,
        "info": item.help,
    }
    if item.choices:
        return gr.Radio(choices=[choice for choice in item.choices if choice not in without], **common)
    slider = item.slider
    if slider is None:
        return gr.Textbox(**common)
    return (slider_class or gr.Slider)(
        minimum=slider.minimum, maximum=slider.maximum, step=slider.step, **common
    )


def shown(element: Any, value: Any) -> Any:
    """An update of the element to that value; a slider that ends before it is made longer."""
    if isinstance(element, gr.Slider) and not element.minimum <= value <= element.maximum:
        return gr.update(
            value=value, minimum=min(element.minimum, value), maximum=max(element.maximum, value)
        )
    return gr.update(value=value)


def shown_for(method: str) -> list[Any]:
    """Updates of the rows of `BASELINES`."""
    return [gr.update(visible=method == one) for one in BASELINES]
