"""Folders that are no model, or no whole one: the file at fault is named before anything is loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from vsf_lib.errors import ModelError, is_out_of_memory
from vsf_lib.images.model import find_model

TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(model: str, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    copy = tmp_path / "model"
    shutil.copytree(model, copy)
    return copy


def cut(file: Path, left: int) -> None:
    file.write_bytes(file.read_bytes()[:left])


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


DAMAGES = {
    "no index": (lambda f: (f / "model_index.json").unlink(), "has no model_index.json"),
    "index cut off": (lambda f: cut(f / "model_index.json", 40), "model_index.json is damaged"),
    "index is a list": (lambda f: (f / "model_index.json").write_text("[]"), "holds no JSON object"),
    "another pipeline": (
        lambda f: replace(f / "model_index.json", "StableDiffusion3Pipeline", "FluxFillPipeline"),
        "is of a FluxFillPipeline, but only StableDiffusion3Pipeline (Stable Diffusion 3 and 3.5) and Flux",
    ),
    "part not listed": (
        lambda f: replace(f / "model_index.json", '"vae"', '"other"'),
        "lists no vae",
    ),
    "part missing": (lambda f: shutil.rmtree(f / "text_encoder_2"), "has no folder text_encoder_2"),
    "weights missing": (lambda f: (f / TRANSFORMER).unlink(), f"{TRANSFORMER} is missing"),
    "weights empty": (lambda f: cut(f / TRANSFORMER, 0), f"{TRANSFORMER} is damaged or cut off"),
    "weights cut in head": (lambda f: cut(f / TRANSFORMER, 500), f"{TRANSFORMER} is damaged or cut off"),
    "weights cut at end": (lambda f: cut(f / TRANSFORMER, 100_000), f"{TRANSFORMER} is cut off"),
    "weights one byte short": (
        lambda f: cut(f / TRANSFORMER, (f / TRANSFORMER).stat().st_size - 1),
        f"{TRANSFORMER} is cut off",
    ),
    "weights are noise": (
        lambda f: (f / TRANSFORMER).write_bytes(bytes(range(256)) * 40),
        f"{TRANSFORMER} is damaged",
    ),
    "weights are a pointer": (
        lambda f: (f / TRANSFORMER).write_text(
            "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
        ),
        "git lfs pull",
    ),
    "shard missing": (
        lambda f: (
            (f / TRANSFORMER).unlink(),
            (f / f"{TRANSFORMER}.index.json").write_text(
                json.dumps({"weight_map": {"x": "part-1.safetensors"}})
            ),
        ),
        "transformer/part-1.safetensors",
    ),
    "configuration missing": (lambda f: (f / "vae/config.json").unlink(), "vae/config.json is missing"),
    "configuration cut off": (lambda f: cut(f / "transformer/config.json", 99), "config.json is damaged"),
    "configuration of another network": (
        lambda f: replace(f / "transformer/config.json", '"patch_size"', '"other"'),
        "lack 'patch_size'",
    ),
    "tokenizer missing": (lambda f: (f / "tokenizer_3/tokenizer.json").unlink(), "tokenizer_3 has none of"),
    "scheduler missing": (
        lambda f: (f / "scheduler/scheduler_config.json").unlink(),
        "scheduler/scheduler_config.json is missing",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_file_at_fault_is_named(folder, damage):
    act, says = DAMAGES[damage]
    find_model(str(folder))  # it was whole
    act(folder)
    with pytest.raises(ModelError) as caught:
        find_model(str(folder))
    assert says in str(caught.value).replace("\\", "/")
    assert "\n" not in str(caught.value)


def test_damaged_folder_ends_the_command_in_one_line(run, folder):
    cut(folder / TRANSFORMER, 100_000)
    outcome = run("generate", "--prompt", "a car", "--model", str(folder), "--out", "new/x.png")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    assert not Path("new").exists()


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("transformer/config.json", '"num_layers": 6', '"num_layers": 6.5'),
        ("transformer/config.json", '"joint_attention_dim": 128', '"joint_attention_dim": 64'),
        ("tokenizer/tokenizer.json", '"version"', '"other"'),
        ("scheduler/scheduler_config.json", '"shift": 2.0', '"shift": "much"'),
        ("model_index.json", '"AutoencoderKL"', '"NoSuchClass"'),
    ],
)
def test_what_only_loading_finds_is_one_line_too(run, folder, file, old, new):
    replace(folder / file, old, new)
    outcome = run(
        "generate", "--prompt", "a car", "--model", str(folder), "--steps", "1", "--out", "new/x.png"
    )
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("error: cannot load the model in ")
    assert outcome.err.count("\n") == 1
    assert not Path("new").exists()


def test_fp16_variant_and_a_left_out_t5_are_drawn_with(run, model, tmp_path):
    from diffusers import StableDiffusion3Pipeline

    pipe = StableDiffusion3Pipeline.from_pretrained(model, torch_dtype=torch.float16)
    pipe.text_encoder_3 = pipe.tokenizer_3 = None
    pipe.save_pretrained(tmp_path / "half", variant="fp16")
    found = find_model(str(tmp_path / "half"))
    assert found.folder is not None
    assert found.folder.variant == "fp16"
    outcome = run(
        *("generate", "--prompt", "a car", "--negative-prompt", "wheels", "--model", str(tmp_path / "half")),
        *("--steps", "1", "--size", "16", "--out", "x.png"),
    )
    assert outcome.code == 0, outcome.err


def test_mixed_variants_are_refused(folder):
    (folder / TRANSFORMER).rename(folder / "transformer" / "diffusion_pytorch_model.fp16.safetensors")
    with pytest.raises(ModelError, match="has fp16 weights only"):
        find_model(str(folder))


def test_hub_model_that_cannot_be_reached(run, tmp_path, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    outcome = run("generate", "--prompt", "a car", "--model", "nobody/nothing", "--out", "new/x.png")
    assert outcome.code == 2
    assert outcome.err.startswith("error: cannot get 'nobody/nothing': ")
    assert outcome.err.count("\n") == 1
    assert not Path("new").exists()


def test_out_of_memory_is_recognised():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("shapes differ"))
