"""Where a model's parts are kept, by what fits."""

from __future__ import annotations

import pytest
import torch

from vsf_lib.adapters import guided
from vsf_lib.settings import Settings
from vsf_lib.video.loading import arrange, choose

GIB = 2**30


@pytest.mark.parametrize(
    ("sizes", "free", "way"),
    [
        ([3, 1], 12, "none"),
        ([3, 1], 8, "model"),
        ([3, 1], 6, "group"),
        ([28, 1], 80, "none"),
        ([28, 1], 33, "model"),
        ([28, 1], 24, "group"),
    ],
)
def test_the_fastest_way_that_fits(sizes, free, way):
    assert choose([size * GIB for size in sizes], free * GIB) == way


@pytest.mark.parametrize("offload", ["none", "model", "group"])
def test_guidance_is_the_same_wherever_the_parts_are_kept(offload, monkeypatch):
    """With the CPU in the place of a GPU: the hooks that move parts are the same there."""
    tiny_wan = pytest.importorskip("tiny_wan")
    pytest.importorskip("accelerate")
    accelerator = getattr(torch, "accelerator", None)
    if accelerator is not None:  # diffusers asks for its kind
        monkeypatch.setattr(accelerator, "current_accelerator", lambda *_: torch.device("cpu"))
    monkeypatch.setattr(torch.cpu, "empty_cache", lambda: None, raising=False)
    settings = Settings(negative_prompt="wheels", alpha=1.5, beta=0.1)

    def made(way):
        pipe = tiny_wan.make_pipeline()
        arrange(pipe, torch.device("cpu"), way)
        with guided(pipe, settings) as guidance:
            frames = tiny_wan.generate(pipe, output_type="np")
        return pipe, torch.as_tensor(frames), guidance.report

    _, expected, _ = made("none")
    pipe, frames, report = made(offload)
    assert torch.equal(frames, expected)
    assert len(report.layers) == tiny_wan.LAYERS
    assert pipe.vae.use_tiling == (offload != "none")
