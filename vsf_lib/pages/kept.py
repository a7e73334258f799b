"""What a browser keeps of a form, so that neither a reload nor a restart of the server loses it.

Owns its name there and the small scripts that put it in, as it was typed or sent the last time, and take it
out; and the way of its values back into its elements.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import gradio as gr

from vsf_lib.controls import shown

NOTHING = "() => null"
"""A script that empties an element."""


def keep_form(page: str, names: Iterable[str]) -> str:
    """A script that keeps the values of a page's form, by these names."""
    # A browser may be told to keep nothing, and then throws.
    return f"""(...values) => {{
    try {{
        const kept = Object.fromEntries({json.dumps([*names])}.map((name, at) => [name, values[at]]));
        localStorage.setItem('vsf-{page}-form', JSON.stringify(kept));
    }} catch {{}}
    return values;
}}"""


def keep_as_typed(page: str, elements: Mapping[str, Any]) -> None:
    """Keeps the form with each thing that is typed or chosen, in the browser alone."""
    gr.on(
        [element.input for element in elements.values()],
        None,
        inputs=[*elements.values()],
        js=keep_form(page, elements),
    )


def kept_form(page: str) -> str:
    """A script that hands them back as JSON, or nothing."""
    return f"""() => {{
    try {{ return localStorage.getItem('vsf-{page}-form') ?? ''; }} catch {{ return ''; }}
}}"""


def read_form(kept: str, elements: Mapping[str, Any]) -> dict[str, Any]:
    """What of it still fits these elements: choices and models come and go."""
    try:
        values = json.loads(kept)
    except ValueError:
        return {}
    if not isinstance(values, dict):
        return {}
    return {name: values[name] for name in elements if name in values and _fits(elements[name], values[name])}


def updates(elements: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """One for each element: to its value, if there is one."""
    return {
        name: shown(one, values[name]) if name in values else gr.update() for name, one in elements.items()
    }


def _fits(element: Any, value: Any) -> bool:
    if isinstance(element, gr.Checkbox):
        return isinstance(value, bool)
    if isinstance(element, gr.Slider | gr.Number):
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not isinstance(value, str):
        return False
    if isinstance(element, gr.Radio) or (isinstance(element, gr.Dropdown) and not element.allow_custom_value):
        return value in [choice for _, choice in element.choices]
    return True
