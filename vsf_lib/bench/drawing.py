"""Draws many prompts with one method, in batches, so that each picture depends on its own seed only."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError

from vsf_lib.adapters import guided
from vsf_lib.bench.pairs import Pair
from vsf_lib.errors import ModelError
from vsf_lib.scenes.judge import Judge
from vsf_lib.scenes.model import MAX_SEQUENCE_LENGTH, SIZE
from vsf_lib.settings import Settings

BATCH = 20


@dataclass(frozen=True)
class Method:
    """One row of a comparison.

    `guidance_scale` above 1 is CFG with the negative prompt in the pipeline's own way.
    """

    name: str
    settings: Settings
    guidance_scale: float = 1.0

    def describe(self) -> str:
        """Its values in a few words."""
        if self.guidance_scale > 1:
            return f"scale {self.guidance_scale:g}, two passes a step"
        values = [
            f"{name.removeprefix('VSF ')} {value:g}"
            for name, value in self.settings.infotext().items()
            if isinstance(value, float)
        ]
        if self.settings.negative_tokens != "all":
            values.append(f"{self.settings.negative_tokens} only")
        return ", ".join(values) if values else "-"


@dataclass(frozen=True)
class Score:
    """Shares of pictures: the prompt followed, the negative part gone, a clean drawing."""

    positive: float
    negative: float
    quality: float
    count: int

    def as_json(self) -> dict[str, Any]:
        """The numbers, rounded to what `count` pictures can tell."""
        return {
            "positive": round(self.positive, 4),
            "negative": round(self.negative, 4),
            "quality": round(self.quality, 4),
        }


def load_pipeline(folder: Path) -> Any:
    """The small model, in float32 and quiet."""
    from diffusers import StableDiffusion3Pipeline
    from diffusers.utils.logging import disable_progress_bar

    if not (folder / "model_index.json").is_file():
        raise ModelError(
            f"{folder} holds no trained model: run `python -m vsf_lib scenes train`, or check it out again"
        )
    disable_progress_bar()
    try:
        pipe = StableDiffusion3Pipeline.from_pretrained(
            folder, torch_dtype=torch.float32, local_files_only=True
        )
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"the model in {folder} cannot be loaded ({reason}); check it out again") from error
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe: Any, pairs: Sequence[Pair], method: Method, *, seeds: Sequence[int], steps: int) -> np.ndarray:
    """Pictures uint8 `[len(pairs) * len(seeds), 64, 64, 3]`, all pairs of the first seed first."""
    jobs = [(pair, 1_000_003 * seed + index) for seed in seeds for index, pair in enumerate(pairs)]
    pictures: list[np.ndarray] = []
    for start in range(0, len(jobs), BATCH):
        chunk = jobs[start : start + BATCH]
        negatives = [pair.negative_prompt for pair, _ in chunk]
        cfg = method.guidance_scale > 1
        guidance = (
            nullcontext() if method.settings.method == "off" else guided(pipe, method.settings, negatives)
        )
        with guidance:
            result = pipe(
                [pair.prompt for pair, _ in chunk],
                negative_prompt=negatives if cfg else None,
                guidance_scale=method.guidance_scale,
                num_inference_steps=steps,
                height=SIZE,
                width=SIZE,
                max_sequence_length=MAX_SEQUENCE_LENGTH,
                generator=[torch.Generator().manual_seed(seed) for _, seed in chunk],
                output_type="np",
            )
        pictures.append((result.images * 255).round().astype(np.uint8))
    return np.concatenate(pictures)


def score(judge: Judge, pairs: Sequence[Pair], pictures: np.ndarray) -> Score:
    """What the judge says of `pictures`, in the order of `draw`."""
    rows = []
    for index, verdict in enumerate(judge(pictures)):
        pair = pairs[index % len(pairs)]
        rows.append((pair.positive(verdict), pair.negative(verdict), verdict.clean))
    positive, negative, quality = np.array(rows, dtype=float).mean(0).tolist()
    return Score(positive, negative, quality, len(rows))
