"""Files as the studio and the command line leave them, made without a model."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from vsf_lib.heatmap_sheet import draw_sheet
from vsf_lib.images.request import HEATMAP
from vsf_lib.metadata import COMPARISON, COMPARISON_VALUE, Parameters, format_parameters, write_png
from vsf_lib.settings import Settings

SIZE = (64, 48)
BASE = Parameters(
    prompt="a red car on a field",
    steps=8,
    sampler="Euler",
    cfg_scale=1.0,
    seed=7,
    width=SIZE[0],
    height=SIZE[1],
    model="scenes",
    version="vsf 0.1.0",
    settings=Settings(negative_prompt="wheels", alpha=2.33, beta=1.0, negative_tokens="words"),
)


def noise(rng: np.random.Generator, width: int = SIZE[0], height: int = SIZE[1]) -> Image.Image:
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))


def save(path: Path, image: Image.Image, parameters: Parameters = BASE, *, age: int = 0) -> Path:
    """Written `age` seconds ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, image, format_parameters(parameters))
    then = 1_700_000_000 - age
    os.utime(path, (then, then))
    return path


def save_group(folder: Path, rng: np.random.Generator, *, age: int = 0) -> dict[str, Image.Image]:
    """A picture `car-7.png`, the one without guidance, and their heat map, as the worker leaves them."""
    made = {"with": noise(rng), "without": noise(rng)}
    save(folder / "car-7.png", made["with"], age=age)
    save(folder / "car-7-without.png", made["without"], replace(BASE, settings=None), age=age)
    shares = rng.random((6, 8))
    sheet = draw_sheet("title", shares, [("without", made["without"]), ("with", made["with"])])
    told = replace(BASE, extra={COMPARISON: COMPARISON_VALUE, HEATMAP: "share 0 to 1"})
    save(folder / "car-7-heatmap.png", sheet, told, age=age)
    made["shares"] = shares  # type: ignore[assignment]
    return made
