"""How much memory a job needs, by its files' headers, against the models themselves."""

from __future__ import annotations

import pytest

pytest.importorskip("wan_files")

import torch
from safetensors.torch import save_file

from vsf_lib.video import memory
from vsf_lib.video.job import VideoJob

ROOM = 2 * 2**30


def counted(folder):
    """Parameters in a part, by loading it."""
    from safetensors.torch import load_file

    return sum(tensor.numel() for file in folder.glob("*.safetensors") for tensor in load_file(file).values())


def test_the_larger_of_text_encoder_and_the_rest_counts(wan):
    parts = {part: counted(wan / part) for part in ("text_encoder", "transformer", "vae")}
    job = VideoJob.create(prompt="a car", model=str(wan))
    expected = max(parts["text_encoder"], parts["transformer"] + parts["vae"])
    assert memory.need(job, 4) - ROOM == 4 * expected
    assert memory.need(job, 2) - ROOM == 2 * expected


def test_single_files_count_by_what_they_become(tmp_path):
    sizes = {"model": 300, "vae": 50, "text_encoder": 500}
    for name, size in sizes.items():
        save_file({"x": torch.zeros(size, dtype=torch.float16)}, tmp_path / f"{name}.safetensors")
    job = VideoJob.create(prompt="a car", **{name: str(tmp_path / f"{name}.safetensors") for name in sizes})
    assert memory.need(job, 4) - ROOM == 2000
    (tmp_path / "model.gguf").write_bytes(b"x" * 7000)
    assert memory.need(job.changed(model=str(tmp_path / "model.gguf")), 4) - ROOM == 7000 + 200


def test_what_hardly_fits_is_told_with_its_figures(wan):
    job = VideoJob.create(prompt="a car", model=str(wan))
    needed = memory.need(job, 4)
    assert memory.shortage(job, bytes_each=4, free=needed) == ""
    said = memory.shortage(job, bytes_each=4, free=needed - 1)
    assert said == "this video needs about 2.1 GB of memory, and 2.1 GB are free"
    assert memory.shortage(job, bytes_each=4, free=None) == ""


def test_what_cannot_be_told_is_not(tmp_path):
    assert memory.need(VideoJob.create(prompt="a car", model="someone/model"), 4) is None
    (tmp_path / "x.safetensors").write_bytes(b"\xff" * 20)
    assert memory.parameters(tmp_path / "x.safetensors") is None


def test_this_machine_has_memory():
    pytest.importorskip("psutil")
    assert memory.free() > 2**20
