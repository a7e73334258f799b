"""A LoRA as a job names it, and whether its file is there and whole. Imports no torch and loads nothing."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from vsf_lib.errors import ModelError, SettingsError
from vsf_lib.video.builtin import FEW_STEPS, lora_path
from vsf_lib.video.checked import checked
from vsf_lib.video.single_file.headers import SAFETENSORS, read_header

_WEIGHT = re.compile(r".{2,}:[^:/\\]*", re.DOTALL)
"""A name with a weight behind it; a drive's letter is one sign, and a path goes on."""


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
        file, typed = match["file"] or match["other"], match["weight"] or match["number"] or ""
        if match["other"] and not typed and _WEIGHT.fullmatch(file):
            file, _, typed = file.rpartition(":")
        try:
            weight = float(typed or 1)
        except ValueError:
            raise SettingsError(
                f"the weight {typed!r} of the LoRA {file} is no number: give it as {file}:1"
            ) from None
        made: Lora = checked(cls, {"file": file, "weight": weight})
        return made

    def __str__(self) -> str:
        short = f"{self.weight:g}"
        return f"{self.file}:{short if float(short) == self.weight else repr(self.weight)}"


def check_lora(lora: Lora) -> Path:
    """The file of a LoRA; raises ModelError unless it is a whole safetensors file."""
    path = lora_path(lora.file)
    if path.suffix.lower() != SAFETENSORS:
        if difflib.get_close_matches(lora.file, [FEW_STEPS], cutoff=0.75):
            raise ModelError(f"there is no LoRA {lora.file}: did you mean the built-in {FEW_STEPS}?")
        if not path.exists():
            raise ModelError(f"there is no LoRA {path}: give the name of a {SAFETENSORS} file")
        raise ModelError(
            f"{path.name} is no {SAFETENSORS} file: other formats can run code, so none is read; get "
            f"the LoRA as {SAFETENSORS}"
        )
    if not path.is_file():
        raise ModelError(f"there is no LoRA {path}: check its name, or have it downloaded first")
    read_header(path)
    return path


def check_loras(loras: Iterable[Lora]) -> None:
    """Raises ModelError for the first of a job's LoRAs that is not there or cannot be read."""
    for lora in loras:
        check_lora(lora)
