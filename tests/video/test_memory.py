"""How much memory a job needs, by its files' headers, against the models themselves."""

from __future__ import annotations

import json
import shutil
import struct

import pytest

wan_files = pytest.importorskip("wan_files")

import torch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from vsf_lib.video import memory  # noqa: E402
from vsf_lib.video.job import VideoJob  # noqa: E402

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


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return wan_files.save_files(tmp_path_factory.mktemp("files"))


def of_files(files, **values):
    parts = {"model": files.transformer, "vae": files.vae, "text_encoder": files.text_encoder}
    return VideoJob.create(prompt="a car", **{name: str(path) for name, path in {**parts, **values}.items()})


def counts(files):
    """Parameters of the parts by name."""
    parts = {name: getattr(files.pipe, name) for name in ("transformer", "vae", "text_encoder")}
    return {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}


def test_single_files_count_by_what_they_become(files, tmp_path):
    counted = counts(files)
    rest = counted["transformer"] + counted["vae"]
    assert memory.need(of_files(files), 4) - ROOM == 4 * max(rest, counted["text_encoder"])
    state = {k: v.half() for k, v in wan_files.own_transformer(files.pipe.transformer.state_dict()).items()}
    half = wan_files.write(state, tmp_path / "half.safetensors")
    assert memory.need(of_files(files, model=half), 4) == memory.need(of_files(files), 4)


def test_a_gguf_file_stays_as_small_as_it_is(files, tmp_path):
    pytest.importorskip("gguf")
    state = wan_files.own_transformer(files.pipe.transformer.state_dict())
    file = wan_files.write_gguf(state, tmp_path / "wan.gguf")
    needed = memory.need(of_files(files, model=file), 4) - ROOM
    assert needed == max(file.stat().st_size + 4 * counts(files)["vae"], 4 * counts(files)["text_encoder"])


def test_a_whole_pipeline_given_for_its_vae_counts_by_the_vae(files):
    rest = memory.need(of_files(files), 4)
    assert memory.need(of_files(files, vae=files.folder), 4) == rest
    assert memory.need(of_files(files, vae=files.folder, text_encoder=files.folder), 4) == rest


def test_a_checkpoint_with_everything_in_it_is_counted_by_its_parts(files, tmp_path):
    texts = wan_files.comfy_text_encoder(files.pipe, files.words)
    everything = {
        **{f"model.diffusion_model.{k}": v for k, v in own(files).items()},
        **{f"vae.{k}": v for k, v in wan_files.own_vae(files.pipe.vae.state_dict()).items()},
        **{f"text_encoders.umt5xxl.transformer.{k}": v for k, v in texts.items()},
    }
    file = wan_files.write(everything, tmp_path / "all.safetensors")
    job = of_files(files, model=file, vae=file, text_encoder=file)
    assert memory.need(job, 4) == memory.need(of_files(files), 4)


def test_variants_beside_the_weights_do_not_count(files, tmp_path):
    folder = tmp_path / "wan"
    shutil.copytree(files.folder, folder)
    job = VideoJob.create(prompt="a car", model=str(folder))
    before = memory.need(job, 4)
    file = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    shutil.copy(file, file.with_name("diffusion_pytorch_model.fp16.safetensors"))
    assert memory.need(job, 4) == before


def own(files):
    return wan_files.own_transformer(files.pipe.transformer.state_dict())


def test_what_hardly_fits_is_told_with_its_figures(wan):
    job = VideoJob.create(prompt="a car", model=str(wan))
    needed = memory.need(job, 4)
    assert memory.shortage(job, bytes_each=4, free=needed) == ""
    said = memory.shortage(job, bytes_each=4, free=needed - 1)
    assert said == "this video needs about 2.1 GB of memory, and 2.1 GB are free"
    assert memory.shortage(job, bytes_each=4, free=None) == ""


HEADERS = [[], 3, None, {"x": 1}, {"x": {}}, {"x": {"dtype": "F32", "shape": [None], "data_offsets": [0, 4]}}]


@pytest.mark.parametrize("header", [*map(json.dumps, HEADERS), "{", "", None])
def test_what_cannot_be_told_is_not(wan, tmp_path, header):
    assert memory.need(VideoJob.create(prompt="a car", model="someone/model"), 4) is None
    file = tmp_path / "x.safetensors"
    text = None if header is None else header.encode()
    file.write_bytes(b"\xff" * 20 if text is None else struct.pack("<Q", len(text)) + text)
    assert memory.parameters(file) is None
    assert memory.need(VideoJob.create(prompt="a car", model=str(wan), vae=str(file)), 4) is None
    save_file({"x": torch.zeros(3, 5), "y": torch.zeros(())}, file)
    assert memory.parameters(file) == 16


def test_this_machine_has_memory():
    psutil = pytest.importorskip("psutil")
    assert 2**20 < memory.free() < psutil.virtual_memory().total - 2**20, "others have some of it"
