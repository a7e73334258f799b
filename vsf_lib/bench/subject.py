"""The model that a benchmark looks at, loaded, with the judge that looks at its pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vsf_lib.scenes.model import MODELS, NAME, STEPS


@dataclass(frozen=True)
class Subject:
    """A pipeline and what is known of it."""

    pipe: Any
    judge: Any
    model: str
    """Its name, as `presets.preset_for` takes it."""
    steps: int

    @property
    def two_kinds(self) -> bool:
        """Whether it is a Flux, with its two kinds of block."""
        return hasattr(self.pipe.transformer.config, "guidance_embeds")


def load_subject(model: str, steps: int | None) -> Subject:
    """A small model by its name or folder; `steps` None is the model's own number."""
    from vsf_lib.scenes.judge import Judge
    from vsf_lib.scenes.loading import load_pipeline

    known = MODELS.get(model)
    return Subject(
        load_pipeline(Path(model) if known is None else known.folder),
        Judge.load(),
        NAME if known is None else known.name,
        steps or (STEPS if known is None else known.steps),
    )
