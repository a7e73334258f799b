"""What a browser keeps of the page, so that neither a reload nor a restart of the server loses it.

Owns the names and the small scripts: the form as it was sent the last time, and the key of the job that runs.
Each tab keeps its own key; the last one's is there for a tab that comes after another was closed. And the way
of a form's values back into its elements.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import gradio as gr

from vsf_lib.controls import shown

_FORM, _JOB = "vsf-image-form", "vsf-image-job"
NOTHING = "() => null"
# A browser may be told to keep nothing, and then throws.
KEEP_JOB = f"""(job) => {{
    try {{
        if (job) for (const place of [sessionStorage, localStorage]) place.setItem('{_JOB}', job);
    }} catch {{}}
    return job;
}}"""
KEPT_JOBS = f"""() => {{
    try {{ return [sessionStorage, localStorage].map((place) => place.getItem('{_JOB}') ?? ''); }} catch {{}}
    return ['', ''];
}}"""
KEPT_FORM = f"""() => {{
    try {{ return localStorage.getItem('{_FORM}') ?? ''; }} catch {{ return ''; }}
}}"""


def keep_form(names: Iterable[str]) -> str:
    """A script that keeps the values of a form, by these names, as they are sent."""
    return f"""(...values) => {{
    try {{
        const kept = Object.fromEntries({json.dumps([*names])}.map((name, at) => [name, values[at]]));
        localStorage.setItem('{_FORM}', JSON.stringify(kept));
    }} catch {{}}
    return values;
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
