"""A LoRA as a job names it, and how a value that is wrong becomes one line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from vsf_lib.errors import SettingsError
from vsf_lib.video.single_file.headers import SAFETENSORS


class Lora(BaseModel):
    """A LoRA file and how strongly it acts."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    file: str
    weight: Annotated[float, Field(ge=-4, le=4)] = 1.0

    @field_validator("file")
    @classmethod
    def _file(cls, name: str) -> str:
        if not name.strip() or "|" in name or any(ord(sign) < 32 for sign in name):
            raise ValueError(f"{name!r} cannot be a LoRA's file: it is empty or has | or control signs in it")
        return name.strip()

    @classmethod
    def parse(cls, text: str) -> Lora:
        """`FILE` or `FILE:WEIGHT`; a Windows drive's colon is none."""
        ending = re.escape(SAFETENSORS)
        match = re.fullmatch(
            rf"(?P<file>.+{ending})(?::(?P<weight>.*))?|(?P<other>.+?)(?::(?P<number>[-+.\d]+(?:e[-+]?\d+)?))?",
            text.strip(),
            re.IGNORECASE,
        )
        if match is None:
            raise SettingsError("a LoRA is empty: give FILE or FILE:WEIGHT")
        try:
            weight = float(match["weight"] or match["number"] or 1)
        except ValueError:
            raise SettingsError(f"the LoRA's weight in {text!r} is no number: give FILE:WEIGHT") from None
        made: Lora = checked(cls, {"file": match["file"] or match["other"], "weight": weight})
        return made

    def __str__(self) -> str:
        short = f"{self.weight:g}"
        return f"{self.file}:{short if float(short) == self.weight else repr(self.weight)}"


def checked(kind: Any, values: Mapping[str, Any]) -> Any:
    """One line for the first thing wrong, in the words of `Settings` where it is one of its fields."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        name = ".".join(map(str, problem["loc"])) or "the job"
        if problem["type"] == "value_error":
            raise SettingsError(str(problem["ctx"]["error"])) from None
        if problem["type"] == "extra_forbidden":
            raise SettingsError(
                f"a video has no {name!r}: the fields are {', '.join(kind.model_fields)}"
            ) from None
        shown = repr(problem["input"])[:60]
        raise SettingsError(f"{name} is {shown}: {problem['msg'][0].lower()}{problem['msg'][1:]}") from None
