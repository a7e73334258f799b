"""The model that a benchmark looks at, loaded, with the judge that looks at its pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vsf_lib.scenes.model import MODELS, NAME, WAN, WAN_FOLDER, WAN_STEPS


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
    """A small model by its name or folder; `steps` None is the model's own number.

    A folder of the name of a model that is shipped holds one of that kind, as after training it again.
    """
    from vsf_lib.scenes.judge import Judge
    from vsf_lib.scenes.loading import load_pipeline

    shipped = MODELS.get(model)
    kind = shipped or MODELS.get(Path(model).name, MODELS[NAME])
    folder = Path(model) if shipped is None else shipped.folder
    return Subject(load_pipeline(folder), Judge.load(), kind.name, steps or kind.steps)


def load_video_subject(model: str, steps: int | None) -> Subject:
    """The small Wan with its LoRA, or the one in the folder `model`."""
    from vsf_lib.scenes.judge import Judge
    from vsf_lib.scenes.loading import load_video_pipeline

    folder = WAN_FOLDER if model == NAME else Path(model)
    return Subject(load_video_pipeline(folder), Judge.load(), WAN, steps or WAN_STEPS)
