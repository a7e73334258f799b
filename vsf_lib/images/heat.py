"""What a guided drawing leaves behind for its heat map, and the heat map made of it.

Owns the way from a guidance's report and the pipeline's steps to a sheet and to what that says of itself.
Knows no flag and writes no file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from PIL import Image

from vsf_lib.adapters import Report
from vsf_lib.adapters.predictions import Predictions, decode, watch_predictions
from vsf_lib.errors import GuidanceError
from vsf_lib.heatmap import Scale, as_maps
from vsf_lib.heatmap_sheet import Step, draw_sheet, shown_steps
from vsf_lib.images.request import HEATMAP
from vsf_lib.metadata import Parameters


class Trace:
    """Of one guided picture."""

    def __init__(self) -> None:
        self.report: Report | None = None
        """The guidance's, once it has one."""
        self._predictions = Predictions()

    @contextmanager
    def watching(self, pipe: Any, steps: int) -> Iterator[None]:
        """Takes note of what the pipeline's `steps` expect."""
        with watch_predictions(pipe, shown_steps(steps)) as self._predictions:
            yield

    def draw(
        self, pipe: Any, images: Sequence[Image.Image], parameters: Parameters
    ) -> tuple[Image.Image, Parameters]:
        """The sheet, and the picture's parameters with what the sheet shows.

        `images` are the guided picture, or the unguided one before it. Each step that is shown is decoded
        now, and only now: with a large model that takes seconds.
        """
        report, settings = self.report, parameters.settings
        if report is None or report.share is None or settings is None:
            raise GuidanceError("guidance has recorded no share of attention, so there is no heat map")
        size = parameters.width, parameters.height
        maps = as_maps(report.share[:, 0].cpu().double().numpy(), *size)
        of_step = dict(zip(report.guided_steps, maps, strict=True))
        steps = [
            Step(seen.step, seen.sigma, decode(pipe, seen.latents, *size), of_step.get(seen.step))
            for seen in self._predictions.taken()
        ]
        pipe.maybe_free_model_hooks()  # decoding has brought the VAE back to the device
        mean = maps.mean(0)
        guided = f"{len(maps)} of {report.steps} steps guided, {len(report.layers)} layers"
        names = (
            ["with the negative prompt"] if len(images) == 1 else ["without (the same map over it)", "with"]
        )
        sheet = draw_sheet(
            f"not {settings.negative_prompt}: the negative prompt's share of attention ({guided})",
            mean,
            list(zip(names, images, strict=True)),
            steps,
        )
        told = f"share {Scale.of(mean)} in the mean of {guided}; {Scale.of(maps)} in its steps"
        return sheet, replace(parameters, extra={**parameters.extra, HEATMAP: told})
