"""Draws many prompts with one method, in batches, so that each picture depends on its own seed only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vsf_lib.adapters import Form, Guidance, Report, guided
from vsf_lib.adapters.call import Recording
from vsf_lib.bench.pairs import Pair
from vsf_lib.scenes.judge import Judge
from vsf_lib.scenes.model import MAX_SEQUENCE_LENGTH, MODELS, SIZE
from vsf_lib.settings import Settings

BATCH = 20
POSITIVE, NEGATIVE, QUALITY = range(3)
"""The columns of `outcomes`, and of all that is made of them."""

Encode = Callable[[Any, Settings, Sequence[str]], Sequence[Tensor]]
"""A pipeline, settings and negative prompts to their embeddings, as `adapters.encode_negatives`."""


@dataclass(frozen=True)
class Method:
    """One row of a comparison.

    `guidance_scale` above 1 is CFG with the negative prompt in the pipeline's own way. `form` stands in VSF's
    place, and `encode` makes the negative's embeddings in another way than the settings'.
    """

    name: str
    settings: Settings
    guidance_scale: float = 1.0
    form: Form | None = None
    encode: Encode | None = None

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
        if self.settings.blocks != "both":
            values.append(f"{self.settings.blocks} blocks only")
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


def draw(
    pipe: Any,
    pairs: Sequence[Pair],
    method: Method,
    *,
    seeds: Sequence[int],
    steps: int,
    reports: list[Report] | None = None,
) -> np.ndarray:
    """Pictures uint8 `[len(pairs) * len(seeds), 64, 64, 3]`, all pairs of the first seed first.

    `reports` gets those of the guided batches, in order, with each layer's share of attention.
    """
    jobs = [(pair, 1_000_003 * seed + index) for seed in seeds for index, pair in enumerate(pairs)]
    return draw_each(pipe, jobs, method, steps=steps, reports=reports)


def draw_each(
    pipe: Any,
    jobs: Sequence[tuple[Pair, int]],
    method: Method,
    *,
    steps: int,
    reports: list[Report] | None = None,
) -> np.ndarray:
    """Pictures uint8 `[len(jobs), 64, 64, 3]` of pairs with the seed that each of them begins with."""
    record: Recording = False if reports is None else "layers"
    pictures: list[np.ndarray] = []
    for start in range(0, len(jobs), BATCH):
        chunk = jobs[start : start + BATCH]
        negatives = [pair.negative_prompt for pair, _ in chunk]
        with _guidance_by(pipe, method, negatives, record) as guidance:
            result = pipe(
                [pair.prompt for pair, _ in chunk],
                **_scale(pipe, method.guidance_scale, negatives),
                num_inference_steps=steps,
                height=SIZE,
                width=SIZE,
                max_sequence_length=MAX_SEQUENCE_LENGTH,
                generator=[torch.Generator().manual_seed(seed) for _, seed in chunk],
                output_type="np",
            )
        if reports is not None:
            reports.extend(guidance.reports)
        pictures.append((result.images * 255).round().astype(np.uint8))
    return np.concatenate(pictures)


def _guidance_by(
    pipe: Any, method: Method, negatives: list[str], record: Recording
) -> AbstractContextManager[Guidance]:
    if method.settings.method == "off" or method.encode is None:
        return guided(pipe, method.settings, negatives, form=method.form, record_share=record)
    embeddings = method.encode(pipe, method.settings, negatives)
    return guided(
        pipe, method.settings, negative_embeddings=embeddings, form=method.form, record_share=record
    )


def _scale(pipe: Any, scale: float, negatives: list[str]) -> dict[str, Any]:
    """How a pipeline is told of CFG at `scale`; Flux's guidance_scale is another thing, distilled into it."""
    negative = {"negative_prompt": negatives if scale > 1 else None}
    if not hasattr(pipe.transformer.config, "guidance_embeds"):
        return {**negative, "guidance_scale": scale}
    return {**negative, "true_cfg_scale": scale, "guidance_scale": MODELS["flux-dev"].guidance_scale}


def outcomes(judge: Judge, pairs: Sequence[Pair], pictures: np.ndarray) -> np.ndarray:
    """What the judge says of each picture of `draw`, 0 or 1: `[seeds, len(pairs), 3]`."""
    rows = []
    for index, verdict in enumerate(judge(pictures)):
        pair = pairs[index % len(pairs)]
        rows.append((pair.positive(verdict), pair.negative(verdict), verdict.clean))
    return np.array(rows, dtype=float).reshape(-1, len(pairs), 3)


def score(judge: Judge, pairs: Sequence[Pair], pictures: np.ndarray) -> Score:
    """What the judge says of `pictures`, in the order of `draw`."""
    seen = outcomes(judge, pairs, pictures).reshape(-1, 3)
    positive, negative, quality = seen.mean(0).tolist()
    return Score(positive, negative, quality, len(seen))
