"""Guidance on weights that are not as they were trained: LoRA, fp8 storage, GGUF. Against the masked form."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from forge_client import Forge, difference, same
from safetensors import safe_open
from safetensors.torch import save_file

ASKED = {"negative_prompt": "the wheels of a car", "alpha": 3.0, "beta": 0.2}
PREFIX = "model.diffusion_model."
ADAPTED = ("x_block.attn.qkv.weight", "img_attn.qkv.weight", "linear1.weight")


@pytest.fixture(params=["turbo", "dev"])
def lora(request: pytest.FixtureRequest, forge: Forge, model: Any) -> Iterator[tuple[str, str]]:
    """The title of a checkpoint, and the name of a LoRA that the host now has for it."""
    lora = f"vsf_trial_{request.param}"
    root = Path(os.environ["VSF_FORGE_ROOT"])
    title = model(request.param)
    weights: dict[str, torch.Tensor] = {}
    torch.manual_seed(0)
    with safe_open(root / "models" / "Stable-diffusion" / title.split(" [")[0], "pt") as checkpoint:
        for key in checkpoint.keys():  # noqa: SIM118, it is no dictionary
            if key.startswith(PREFIX) and key.endswith(ADAPTED):
                rows, columns = checkpoint.get_slice(key).get_shape()
                name = "lora_unet_" + key[len(PREFIX) : -len(".weight")].replace(".", "_")
                weights[f"{name}.lora_down.weight"] = torch.randn(4, columns) / columns**0.5
                weights[f"{name}.lora_up.weight"] = torch.randn(rows, 4) / 2
    path = root / "models" / "Lora" / f"{lora}.safetensors"
    save_file(weights, path)
    forge.request("/sdapi/v1/refresh-loras", {})
    yield title, lora
    path.unlink()
    forge.request("/sdapi/v1/refresh-loras", {})


def test_with_a_lora(forge: Forge, lora: tuple[str, str]) -> None:
    title, name = lora
    prompt = {"prompt": f"a red car <lora:{name}:1>"}
    without, plain = forge.txt2img(title), forge.txt2img(title, **prompt)
    assert difference(without.pictures, plain.pictures) > 1
    guided = forge.txt2img(title, {**ASKED, "negative_scale": 0, "negative_tokens": "all"}, **prompt)
    masked = forge.txt2img(title, trial={"masked": ASKED}, **prompt)
    effect = difference(guided.pictures, plain.pictures)
    assert effect > 1
    assert difference(guided.pictures, masked.pictures) < effect / 100
    assert same(forge.txt2img(title, **prompt), plain)
    assert same(forge.txt2img(title), without)


@pytest.mark.parametrize("storage", ["fp8", "gguf"])
@pytest.mark.parametrize("kind", ["turbo", "schnell"])
def test_stored_in_fewer_bits(forge: Forge, model: Any, kind: str, storage: str) -> None:
    title = model(kind, storage)
    part = "flux" if kind == "schnell" else "sd35"
    modules = [entry["filename"] for entry in forge.request("/sdapi/v1/sd-modules")]
    common = (
        {"forge_additional_modules": [name for name in modules if part in name]} if storage == "gguf" else {}
    )
    plain = forge.txt2img(title, options=common)
    assert not same(plain, forge.txt2img(model(kind))), "these are the weights of another file"
    guided = forge.txt2img(title, {**ASKED, "negative_scale": 0, "negative_tokens": "all"}, options=common)
    masked = forge.txt2img(title, trial={"masked": ASKED}, options=common)
    effect = difference(guided.pictures, plain.pictures)
    assert effect > 1
    assert difference(guided.pictures, masked.pictures) < effect / 100
    assert same(forge.txt2img(title, options=common), plain)
