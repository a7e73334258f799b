"""How a value that is wrong becomes one line: what it is, and what it must be, by the bounds of its field.

Knows pydantic's models by their schema alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from vsf_lib.errors import SettingsError

_NUMBERS = {"integer": "a whole number", "number": "a number"}
_OTHERS = {"boolean": "true or false", "string": "text", "array": "a list", "object": "values by name"}


def checked(kind: type[BaseModel], values: Mapping[str, Any]) -> Any:
    """A model of that kind; raises SettingsError for the first thing wrong.

    In the words of `Settings` where it is one of its fields.
    """
    for name, value in values.items():
        wanted = _wanted(kind, (name,)) if isinstance(value, bool) else ""
        if any(number in wanted for number in _NUMBERS.values()):  # pydantic takes True for 1
            raise SettingsError(f"{name} is {value}, but must be {wanted}")
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = problem["loc"]
        name = ".".join(map(str, place)) or "the job"
        if problem["type"] == "value_error":
            raise SettingsError(str(problem["ctx"]["error"])) from None
        if problem["type"] == "extra_forbidden":
            raise SettingsError(
                f"a video has no {name!r}: the fields are {', '.join(kind.model_fields)}"
            ) from None
        given = problem["input"]
        shown = "empty" if given in (None, "") or problem["type"] == "missing" else repr(given)[:60]
        wanted = _wanted(kind, place) or f"otherwise: {problem['msg'][0].lower()}{problem['msg'][1:]}"
        raise SettingsError(f"{name} is {shown}, but must be {wanted}") from None


def _wanted(kind: type[BaseModel], place: Sequence[str | int]) -> str:
    """What the field at `place` takes; nothing where there is none."""
    whole = kind.model_json_schema()
    schema: Mapping[str, Any] = whole
    for part in place:
        schema = _resolved(schema, whole)
        if isinstance(part, int):
            schema = schema.get("items", {})
        else:
            schema = schema.get("properties", {}).get(part, {})
    options = [_resolved(option, whole) for option in schema.get("anyOf", [schema])]
    told = [_said(option) for option in options if option.get("type") != "null"]
    return " or ".join(filter(None, told))


def _resolved(schema: Mapping[str, Any], whole: Mapping[str, Any]) -> Mapping[str, Any]:
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    return whole["$defs"][name] if name else schema


def _said(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return f"one of {', '.join(map(str, schema['enum']))}"
    kind = str(schema.get("type", ""))
    if kind not in _NUMBERS:
        return _OTHERS.get(kind, "")
    low, above, high = (schema.get(name) for name in ("minimum", "exclusiveMinimum", "maximum"))
    if above is not None:
        return f"{_NUMBERS[kind]} above {above:g}" + ("" if high is None else f", up to {high:.10g}")
    return _NUMBERS[kind] + ("" if low is None or high is None else f" from {low:.10g} to {high:.10g}")
