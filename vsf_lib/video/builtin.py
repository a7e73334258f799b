"""The small Wan that comes with this package, by the names that jobs have for it and for its LoRA.

Owns what such a video is unless told otherwise, and what cannot be one. A video's parameters hold these names
and no paths, so that they mean the same on every machine. Loads nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from vsf_lib.errors import ModelError, SettingsError
from vsf_lib.program import program
from vsf_lib.scenes import model as scenes
from vsf_lib.scenes.model import SIZE, WAN, WAN_LORA, WAN_STEPS, check_words
from vsf_lib.scenes.motion import FRAMES, VERBS

if TYPE_CHECKING:
    from vsf_lib.video.job import VideoJob

FEW_STEPS = "few-steps"
"""The name of its LoRA. No file has it: those end in .safetensors."""
USUAL: Mapping[str, Any] = MappingProxyType({
    "width": SIZE,
    "height": SIZE,
    "frames": FRAMES,
    "fps": 8,
    "steps": WAN_STEPS,
    "drop_frames": 0,
    "offload": "none",
    "loras": ({"file": FEW_STEPS, "weight": 1.0},),
})  # fmt: skip
"""Fields of a job with it."""


def is_there() -> bool:
    """Whether its weights are in this copy of the package."""
    return (scenes.WAN_FOLDER / "model_index.json").is_file()


def model_path(model: str) -> Path:
    """Where a job's model is, if that is a path or this one; raises ModelError where this one is missing."""
    if model != WAN:
        return Path(model).expanduser()
    if not is_there():
        raise ModelError(
            f"the built-in model {WAN} is not at {scenes.WAN_FOLDER}: get the whole repository again, train "
            f"it with {program('scenes train')} --model {WAN}, or take a real Wan"
        )
    return scenes.WAN_FOLDER


def lora_path(name: str) -> Path:
    """Where a job's LoRA is."""
    return scenes.WAN_FOLDER / WAN_LORA if name == FEW_STEPS else Path(name).expanduser()


def fingerprint(model: str) -> str:
    """Changes with its weights; empty for other models, which are too big to read twice."""
    if model != WAN or not is_there():
        return ""
    digest = hashlib.sha256()
    for file in sorted(scenes.WAN_FOLDER.rglob("*.safetensors")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:10]


def check(job: VideoJob) -> None:
    """Raises SettingsError or PromptError for what this model cannot make, or others with its LoRA."""
    if job.model != WAN:
        if any(lora.file == FEW_STEPS for lora in job.loras):
            raise SettingsError(
                f"the LoRA {FEW_STEPS} belongs to the built-in model {WAN} and fits no other: leave it out"
            )
        return
    if (job.width, job.height) != (SIZE, SIZE):
        raise SettingsError(
            f"the built-in model {WAN} makes videos of {SIZE}x{SIZE}, not {job.width}x{job.height}: leave "
            "the size out, or take a real Wan"
        )
    if job.vae or job.text_encoder:
        raise SettingsError(
            f"the built-in model {WAN} has a VAE and a text encoder of its own: leave out "
            f"{job.vae or job.text_encoder}"
        )
    check_words(job.prompt, "prompt", model=WAN, verbs=VERBS)
    check_words(job.settings.negative_prompt, "negative prompt", model=WAN, verbs=VERBS)
