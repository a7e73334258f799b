"""The small Wan as it is shipped, through the command line, as README's first command for videos calls it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("imageio_ffmpeg")
pytest.importorskip("peft")

from safetensors import safe_open

from vsf_lib.metadata import parse_parameters, read_png
from vsf_lib.presets import preset_for
from vsf_lib.scenes.model import SIZE, WAN, WAN_FOLDER, WAN_LORA, WAN_STEPS
from vsf_lib.scenes.motion import FRAMES
from vsf_lib.video import builtin

pytestmark = pytest.mark.skipif(not builtin.is_there(), reason="the small Wan is not in this copy")

README = ("video", "--prompt", "a red car driving on a field", "--negative-prompt", "wheels", "--seed", "1")
LARGEST = 8_000_000
"""Bytes of the model and its LoRA."""


def test_readme_command(run):
    outcome = run(*README, "--compare", "--out", "car.png")
    assert outcome.code == 0, outcome.err
    folder, still = map(Path, outcome.out.split("\n")[:2])
    assert still.name == "car-strip.png"
    text = read_png(still)
    told = parse_parameters(text)
    assert (told.model, told.steps, told.width, told.height) == (WAN, WAN_STEPS, SIZE, SIZE)
    assert told.settings == preset_for(WAN).settings("wheels").canonical()
    assert told.extra["VSF loras"] == "few-steps:1"
    frames = []
    for file in sorted(folder.iterdir()):
        assert read_png(file) == text
        with Image.open(file) as picture:
            frames.append(np.asarray(picture).copy())
    both = np.stack(frames)
    side = 4 * SIZE
    assert both.shape[0] == FRAMES
    without, guided = both[:, :side, :side], both[:, :side, -side:]
    assert np.abs(without.astype(int) - guided).mean() > 1
    assert np.abs(without[0].astype(int) - without[-1]).mean() > 1, "nothing moves"


def test_it_is_small_and_its_lora_has_kijais_keys():
    files = [file for file in WAN_FOLDER.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= LARGEST
    with safe_open(WAN_FOLDER / WAN_LORA, "np") as lora:
        keys = set(lora.keys())
    assert "diffusion_model.blocks.0.cross_attn.q.lora_down.weight" in keys
    endings = (".lora_down.weight", ".lora_up.weight", ".diff_b")
    assert all(key.startswith("diffusion_model.blocks.") and key.endswith(endings) for key in keys)
