"""Where a model's parts are kept, by what fits; and what is said of a part that cannot be loaded."""

from __future__ import annotations

import shutil
import sys

import pytest
import torch

from vsf_lib.adapters import guided
from vsf_lib.errors import ModelError
from vsf_lib.settings import Settings
from vsf_lib.video.job import VideoJob
from vsf_lib.video.loading import arrange, choose, load, load_text_encoder

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


HUB_ID = "somebody/Wan-klein"
CPU = torch.device("cpu")


@pytest.fixture
def cached(wan, tmp_path, monkeypatch):
    """The small Wan as the hub's cache keeps it."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / f"models--{HUB_ID.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("a" * 40)
    folder = repository / "snapshots" / ("a" * 40)
    shutil.copytree(wan, folder)
    return folder


def job(**values):
    return VideoJob.create(**{"prompt": "a car", "model": HUB_ID, **values})


def said_of(act, *arguments):
    with pytest.raises(ModelError) as raised:
        act(*arguments)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_cached_model_is_loaded_and_one_that_is_not_there_is_to_be_fetched(cached):
    pipe, _ = load(job(), CPU, torch.float32)
    assert pipe.transformer is not None
    assert load_text_encoder(job(), torch.float32).text_encoder is not None
    for part in (cached / "vae").glob("*.safetensors"):
        part.unlink()
    said = said_of(load, job(), CPU, torch.float32)
    assert said.startswith(f"the vae of {HUB_ID} is not on this machine yet: fetch it with --download")
    said = said_of(load, job(model="somebody/else"), CPU, torch.float32)
    assert said.startswith("somebody/else is not on this machine yet: fetch it with --download")


def test_what_is_there_but_damaged_is_named_with_its_part(cached):
    (file,) = (cached / "transformer").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-10])
    said = said_of(load, job(), CPU, torch.float32)
    assert said.startswith(f"cannot load {HUB_ID}: of its transformer, {file.name} is damaged or cut off")
    assert load_text_encoder(job(), torch.float32).text_encoder is not None, "which is whole"


def test_a_missing_package_and_a_failing_gpu_are_not_called_a_missing_model(cached, monkeypatch):
    diffusers = pytest.importorskip("diffusers")

    def fail(*_, **__):
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nmore lines")

    with monkeypatch.context() as patch:
        patch.setattr(diffusers.WanPipeline, "from_pretrained", fail)
        said = said_of(load, job(), CPU, torch.float32)
        assert said == f"cannot load {HUB_ID}: CUDA error: an illegal memory access was encountered"
    monkeypatch.setitem(sys.modules, "diffusers", None)
    said = said_of(load_text_encoder, job(), torch.float32)
    assert said.startswith(f"cannot load {HUB_ID}: import of diffusers halted")


def test_of_single_files_the_one_that_fails_is_named(wan, tmp_path, monkeypatch):
    wan_files = pytest.importorskip("wan_files")
    files = wan_files.save_files(tmp_path)
    parts = {"vae": str(files.vae), "text_encoder": str(files.text_encoder)}
    made = job(model=str(files.transformer), **parts)

    def fail(*_):
        raise RuntimeError("it went wrong")

    for module, what in (
        ("transformer", f"the transformer {files.transformer}"),
        ("vae", f"the VAE {files.vae}"),
        ("text_encoder", f"the text encoder {files.text_encoder}"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(f"vsf_lib.video.single_file.{module}.load", fail)
            act = load_text_encoder if module == "text_encoder" else load
            arguments = (made, torch.float32) if module == "text_encoder" else (made, CPU, torch.float32)
            assert said_of(act, *arguments) == f"cannot load {what}: it went wrong"
