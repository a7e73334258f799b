"""What somebody asks to have drawn. Every value may be left out, to tell an explicit one from none.

Plain data, from flags or from a form; what is left out is filled in by `resolve`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True)
class Asked:
    """The names are those of `generate`'s flags."""

    prompt: str | None = None
    given: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """The fields of Settings that were given."""
    preset: str | None = None
    recipe: str | None = None
    compare: bool | None = None
    heatmap: bool | None = None
    sweep: str | None = None
    fps: int | None = None
    loop: bool = False
    from_image: str | None = None
    model: str | None = None
    parts: str | None = None
    steps: int | None = None
    seed: int | None = None
    size: str | None = None
    batch: int | None = None
    guidance_scale: float | None = None
    device: str | None = None
    dtype: str | None = None
    offload: str | None = None

    @property
    def method(self) -> str | None:
        """The method that was given."""
        method: str | None = self.given.get("method")
        return method

    def told(self) -> dict[str, Any]:
        """For another process, in what JSON has."""
        return {**vars(self), "given": dict(self.given)}
