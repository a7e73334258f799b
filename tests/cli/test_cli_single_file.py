"""A model in one file: the very picture of its folder, and every reason why it is not taken."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from published_sd3 import published
from safetensors.torch import load_file, save_file

from vsf_lib.errors import ModelError
from vsf_lib.images.model import find_model
from vsf_lib.metadata import parse_parameters, read_png

WEIGHTS = Path("transformer", "diffusion_pytorch_model.safetensors")
CAR = ("generate", "--prompt", "a red car", "--steps", "2", "--seed", "5", "--negative-prompt", "wheels")


@pytest.fixture(scope="module")
def file(model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The transformer of `model` as one file."""
    path = tmp_path_factory.mktemp("single") / "sd3.5_small.safetensors"
    save_file(published(load_file(Path(model) / WEIGHTS)), path)
    return path


@pytest.fixture
def parts(model: str, tmp_path: Path) -> Path:
    """The folder without the transformer's weights."""
    copy = tmp_path / "parts"
    shutil.copytree(model, copy)
    (copy / WEIGHTS).unlink()
    return copy


def pixels(path: str) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture).copy()


def test_the_file_draws_what_its_folder_does_and_repeats(run, model, file, parts):
    assert run(*CAR, "--model", model, "--alpha", "2", "--out", "folder.png").code == 0
    flags = ("--model", str(file), "--parts", str(parts), "--alpha", "2")
    outcome = run(*CAR, *flags, "--out", "file.png")
    assert outcome.code == 0, outcome.err
    # Weights lie elsewhere in memory, which can round the last bit of a product otherwise.
    assert np.abs(pixels("folder.png").astype(int) - pixels("file.png")).max() <= 2
    told = parse_parameters(read_png("file.png"))
    assert told.settings is not None
    assert Path(told.model).name == file.name
    assert Path(told.extra["VSF model parts"]).name == "parts"
    outcome = run("generate", "--from-image", "file.png", "--out", "again.png")
    assert outcome.code == 0, outcome.err
    assert np.array_equal(pixels("again.png"), pixels("file.png"))
    assert read_png("again.png") == read_png("file.png")


def test_what_else_the_file_holds_is_told_to_be_unread(run, file, parts, tmp_path):
    whole = tmp_path / "whole.safetensors"
    more = {"first_stage_model.x": torch.zeros(1), "text_encoders.clip_l.x": torch.zeros(1)}
    save_file({**load_file(file), **more}, whole)
    outcome = run(*CAR, "--model", str(whole), "--parts", str(parts), "--alpha", "2", "--out", "x.png")
    assert outcome.code == 0, outcome.err
    assert "note: the file's own VAE and text encoders are not read, but those of --parts\n" in outcome.err


def test_without_parts_they_are_asked_for(run, file):
    outcome = run(*CAR, "--model", str(file), "--out", "new/x.png")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(f"error: {file} is a single file, without tokenizers")
    assert "--parts" in outcome.err
    assert outcome.err.count("\n") == 1
    assert not Path("new").exists()


def flux(path: Path, *, distilled: bool, doubles: int = 2, singles: int = 3) -> Path:
    """The names of a Flux file; the values are of no importance before loading."""
    names = [f"double_blocks.{i}.txt_mod.lin.weight" for i in range(doubles)]
    names += [f"single_blocks.{i}.linear1.weight" for i in range(singles)]
    names += ["guidance_in.in_layer.weight"] if distilled else []
    save_file({name: torch.zeros(1) for name in names}, path)
    return path


@pytest.mark.parametrize("kind", ["dev", "schnell"])
def test_flux_files_are_told_apart(tmp_path, kind):
    from tiny_flux import make_pipeline

    folder = tmp_path / "parts"
    make_pipeline(dev=kind == "dev").save_pretrained(folder)
    own = flux(tmp_path / "own.safetensors", distilled=kind == "dev")
    found = find_model(str(own), str(folder)).folder
    assert found is not None
    assert found.flux
    assert found.file is not None
    assert found.file.path == own
    assert found.distilled == (kind == "dev")
    other = flux(tmp_path / "other.safetensors", distilled=kind != "dev")
    with pytest.raises(ModelError, match=rf"are {kind}'s: name"):
        find_model(str(other), str(folder))
    for counts, says in (
        ({"doubles": 4}, "4 blocks where .* num_layers 2"),
        ({"singles": 1}, "num_single_l"),
    ):
        odd = flux(tmp_path / "odd.safetensors", distilled=kind == "dev", **counts)
        with pytest.raises(ModelError, match=says):
            find_model(str(odd), str(folder))


def test_parts_of_another_model_are_refused(model, tmp_path):
    with pytest.raises(ModelError, match=r"is Flux\.1, but the parts in .* are of Stable Diffusion 3"):
        find_model(str(flux(tmp_path / "flux.safetensors", distilled=True)), model)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"transformer_blocks.0.attn.to_q.weight": 1}, "holds neither"),
        ({"double_blocks.0.txt_mod.lin.weight": 1, "scaled_fp8": 1}, r"is quantized \(scaled_fp8\)"),
        (
            {"joint_blocks.0.x_block.a": 1, "joint_blocks.0.x_block.b.scale_weight": 1},
            "is quantized .*use its 16 bit",
        ),
    ],
)
def test_files_that_cannot_be_read_are_named(model, tmp_path, content, says):
    path = tmp_path / "x.safetensors"
    save_file({name: torch.zeros(1) for name in content}, path)
    with pytest.raises(ModelError, match=says):
        find_model(str(path), model)


def test_damaged_and_other_files_are_named(model, file, tmp_path):
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ModelError, match="is cut off"):
        find_model(str(cut), model)
    other = tmp_path / "model.ckpt"
    other.write_bytes(b"x")
    with pytest.raises(ModelError, match=r"is a file, but the model must be a \.safetensors file"):
        find_model(str(other), model)


def test_parts_without_a_file_or_a_folder_are_refused(model, file, tmp_path):
    for asked in (model, "scenes", "nobody/nothing"):
        with pytest.raises(ModelError, match=r"--parts goes with a single \.safetensors file"):
            find_model(asked, model)
    with pytest.raises(ModelError, match="which is no folder"):
        find_model(str(file), str(tmp_path / "nothing"))
