"""What a page's events do, without a browser: by gradio's own table of who is called for what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def answered(blocks: Any, element: Any, event: str, values: Mapping[Any, Any]) -> dict[Any, Any]:
    """By element what becomes of it at this event; `values` are those of other elements than their first."""
    found: dict[Any, Any] = {}
    for function in blocks.fns.values():
        if (element._id, event) not in function.targets:
            continue
        given = [values.get(one, one.value) for one in function.inputs]
        result = function.fn(*given)
        found |= zip(function.outputs, result if len(function.outputs) > 1 else [result], strict=True)
    return found
