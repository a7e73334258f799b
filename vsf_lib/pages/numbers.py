"""What a form's fields of numbers hold, in the words of the page: an emptied one is refused and never a 0.

Bounds stay where they are checked for everybody, in Settings and `resolve`. Knows no gradio.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from vsf_lib.errors import SettingsError
from vsf_lib.pages.words import label
from vsf_lib.settings import fields


def settings_given(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of Settings among them; raises SettingsError for an emptied one that the method reads."""
    given = {}
    for item in fields():
        if item.name not in values:
            continue
        value = values[item.name]
        if item.kind is not float or value not in (None, ""):
            given[item.name] = value
        elif values.get("method") in item.methods:
            raise SettingsError(
                f"{label(item.label)} is empty, but must be a number from {item.low:g} to {item.high:g}"
            )
    return given


def count(name: str, value: Any, most: int) -> int:
    """A whole number from 1 to `most`; raises SettingsError."""
    if value in (None, ""):
        raise SettingsError(f"{name} is empty, but must be a whole number from 1 to {most}")
    number = _whole(name, value)
    if not 1 <= number <= most:
        raise SettingsError(f"{name} is {number}, but must be a whole number from 1 to {most}")
    return number


def optional(name: str, text: str) -> float | None:
    """A number that may be left out; raises SettingsError."""
    if not text.strip():
        return None
    try:
        return float(text.strip().replace(",", "."))
    except ValueError:
        raise SettingsError(f"the {name} is {text.strip()!r}, but must be a number") from None


def _whole(name: str, value: Any) -> int:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not number.is_integer():
        raise SettingsError(f"{name} is {value}, but must be a whole number")
    return int(value) if isinstance(value, int) else int(number)
