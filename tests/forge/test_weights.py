"""Guidance on weights that are not as they were trained: LoRA, fp8, GGUF, NF4. Against the masked form.

Files that the host does not come with are made from its checkpoints, put into its folders and taken away.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from forge_client import Answer, Forge, ForgeError, difference, same
from safetensors import safe_open
from safetensors.torch import save_file

ASKED = {"negative_prompt": "the wheels of a car", "alpha": 3.0, "beta": 0.2}
ON = {**ASKED, "negative_scale": 0, "negative_tokens": "all"}
PREFIX = "model.diffusion_model."
ADAPTED = ("x_block.attn.qkv.weight", "img_attn.qkv.weight", "linear1.weight")
FIRST_BLOCK = {"turbo": "joint_blocks.1", "dev": "double_blocks.1", "schnell": "double_blocks.1"}
OWN = ("fp8", "gguf")
"""Storages that the host has files of; all others are those of `stored.WRITERS`."""

Stored = Callable[[str, str], tuple[str, dict[str, Any]]]


@pytest.fixture(scope="module")
def stored(forge: Forge, model: Any) -> Iterator[Stored]:
    """`stored("turbo", "Q4_K")` is the title of that checkpoint in that storage, and its options."""
    folder = Path(os.environ["VSF_FORGE_ROOT"]) / "models" / "Stable-diffusion"
    made: dict[tuple[str, str], Path] = {}
    modules = [entry["filename"] for entry in forge.request("/sdapi/v1/sd-modules")]

    def find(kind: str, storage: str) -> tuple[str, dict[str, Any]]:
        part = "flux" if kind == "schnell" else "sd35"
        theirs = {"forge_additional_modules": [name for name in modules if part in name]}
        if storage in OWN:
            return model(kind, storage), theirs if storage == "gguf" else {}
        if not theirs["forge_additional_modules"]:
            pytest.skip(f"this Forge has no modules for VAE and text encoders with {part} in their names")
        if (kind, storage) not in made:
            pytest.importorskip("gguf", reason="the files are made by the gguf package")
            import stored as files

            source = folder / model(kind).split(" [")[0]
            made[kind, storage] = files.write(source, folder, f"vsf_trial_gguf_{kind}", storage)
            forge.request("/sdapi/v1/refresh-checkpoints", {})
        name = made[kind, storage].name
        titles = [str(entry["title"]) for entry in forge.request("/sdapi/v1/sd-models")]
        return next(title for title in titles if title.startswith(name)), theirs

    yield find
    for path in made.values():
        path.unlink()
    forge.request("/sdapi/v1/refresh-checkpoints", {})


@pytest.fixture(scope="module")
def lora(forge: Forge, model: Any) -> Iterator[Callable[[str], dict[str, str]]]:
    """`lora("turbo")` is a prompt with a LoRA that the host now has for that checkpoint."""
    root = Path(os.environ["VSF_FORGE_ROOT"])
    made: dict[str, Path] = {}

    def prompt(kind: str) -> dict[str, str]:
        if kind not in made:
            made[kind] = root / "models" / "Lora" / f"vsf_trial_{kind}.safetensors"
            source = root / "models" / "Stable-diffusion" / model(kind).split(" [")[0]
            save_file(lora_weights(source), made[kind])
            forge.request("/sdapi/v1/refresh-loras", {})
        return {"prompt": f"a red car <lora:{made[kind].stem}:1>"}

    yield prompt
    for path in made.values():
        path.unlink()
    forge.request("/sdapi/v1/refresh-loras", {})


def lora_weights(source: Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = {}
    torch.manual_seed(0)
    with safe_open(source, "pt") as checkpoint:
        for key in checkpoint.keys():  # noqa: SIM118, it is no dictionary
            if key.startswith(PREFIX) and key.endswith(ADAPTED):
                rows, columns = checkpoint.get_slice(key).get_shape()
                name = "lora_unet_" + key[len(PREFIX) : -len(".weight")].replace(".", "_")
                weights[f"{name}.lora_down.weight"] = torch.randn(4, columns) / columns**0.5
                weights[f"{name}.lora_up.weight"] = torch.randn(rows, 4) / 2
    return weights


def check(forge: Forge, kind: str, title: str, **common: Any) -> Answer:
    """Guided as the reference, and after that and after an error in the middle as if nothing had been.

    Returns the picture without guidance.
    """
    plain = forge.txt2img(title, **common)
    guided = forge.txt2img(title, ON, **common)
    masked = forge.txt2img(title, trial={"masked": ASKED}, **common)
    effect = difference(guided.pictures, plain.pictures)
    assert effect > 1
    assert difference(guided.pictures, masked.pictures) < effect / 100
    broken = {"raise": {"block": FIRST_BLOCK[kind], "call": 2, "error": "RuntimeError"}}
    with pytest.raises(ForgeError, match="forced by a test"):
        forge.txt2img(title, ON, trial=broken, **common)
    assert same(forge.txt2img(title, **common), plain)
    assert same(forge.txt2img(title, ON, **common), guided)
    return plain


@pytest.mark.parametrize("kind", ["turbo", "dev"])
def test_with_a_lora(forge: Forge, model: Any, lora: Callable[[str], dict[str, str]], kind: str) -> None:
    without = forge.txt2img(model(kind))
    plain = check(forge, kind, model(kind), **lora(kind))
    assert difference(without.pictures, plain.pictures) > 1
    assert same(forge.txt2img(model(kind)), without)


@pytest.mark.parametrize(
    ("kind", "storage"),
    [
        *((kind, storage) for kind in ("turbo", "schnell") for storage in (*OWN, "Q4_K", "nf4")),
        *(("turbo", storage) for storage in ("fp8-e5m2", "Q4_0", "Q5_1")),
    ],
)
def test_stored_in_fewer_bits(forge: Forge, model: Any, stored: Stored, kind: str, storage: str) -> None:
    title, options = stored(kind, storage)
    if storage == "nf4":
        try:
            forge.txt2img(title, options=options)
        except ForgeError as error:
            pytest.skip(f"this Forge cannot use NF4, without VSF neither: {str(error)[:200]}")
    plain = check(forge, kind, title, options=options)
    assert not same(plain, forge.txt2img(model(kind))), "these are the weights of another file"


@pytest.mark.parametrize("kind", ["turbo", "schnell"])
@pytest.mark.parametrize("bits", ["float8-e4m3fn", "float8-e5m2"])
def test_diffusion_in_low_bits(forge: Forge, model: Any, kind: str, bits: str) -> None:
    memory = {"options": {"forge_unet_storage_dtype": bits}}
    full = forge.txt2img(model(kind))
    plain = check(forge, kind, model(kind), memory=memory)
    assert f"Diffusion in Low Bits: {bits}" in plain.infotexts[0]
    assert not same(plain, full)
    assert same(forge.txt2img(model(kind)), full)


def test_what_the_host_cannot_quantise_is_the_hosts_error(forge: Forge, model: Any) -> None:
    """Quantising to NF4 takes bitsandbytes and a GPU."""
    full, on = forge.txt2img(model("turbo")), forge.txt2img(model("turbo"), ON)
    memory = {"options": {"forge_unet_storage_dtype": "bnb-nf4"}}
    try:
        plain = forge.txt2img(model("turbo"), memory=memory)
    except ForgeError:
        with pytest.raises(ForgeError):
            forge.txt2img(model("turbo"), ON, memory=memory)
    else:
        assert not same(forge.txt2img(model("turbo"), ON, memory=memory), plain)
    assert same(forge.txt2img(model("turbo")), full)
    assert same(forge.txt2img(model("turbo"), ON), on)


@pytest.mark.parametrize(
    ("storage", "bits"),
    [
        (None, "float8-e4m3fn"),
        (None, "float8-e4m3fn (fp16 LoRA)"),
        ("gguf", "Automatic"),
        ("gguf", "Automatic (fp16 LoRA)"),
        ("Q4_0", "Automatic"),
        ("Q4_K", "Automatic (fp16 LoRA)"),
        ("nf4", "Automatic (fp16 LoRA)"),
    ],
)
def test_a_lora_merged_and_on_the_fly(
    forge: Forge,
    model: Any,
    stored: Stored,
    lora: Callable[[str], dict[str, str]],
    storage: str | None,
    bits: str,
) -> None:
    title, options = (model("turbo"), {}) if storage is None else stored("turbo", storage)
    common = {"options": options, "memory": {"options": {"forge_unet_storage_dtype": bits}}}
    if storage == "nf4":
        try:
            forge.txt2img(title, **common, **lora("turbo"))
        except ForgeError as error:
            pytest.skip(f"this Forge cannot use NF4 with a LoRA, without VSF neither: {str(error)[:200]}")
    without = forge.txt2img(title, **common)
    plain = check(forge, "turbo", title, **common, **lora("turbo"))
    assert difference(without.pictures, plain.pictures) > 1
    assert same(forge.txt2img(title, **common), without)


def test_a_lora_that_the_host_cannot_merge_is_the_hosts_error(
    forge: Forge, stored: Stored, lora: Callable[[str], dict[str, str]]
) -> None:
    title, options = stored("turbo", "Q4_K")
    plain = forge.txt2img(title, options=options)
    for vsf in (None, ON):
        with pytest.raises(ForgeError, match="Low bit LoRA"):
            forge.txt2img(title, vsf, options=options, **lora("turbo"))
    assert same(forge.txt2img(title, options=options), plain)


def test_storages_take_turns(forge: Forge, model: Any, stored: Stored) -> None:
    """In one process; each picture is the one that its storage gave the first time."""
    fp8 = {"memory": {"options": {"forge_unet_storage_dtype": "float8-e4m3fn"}}}
    ways: list[tuple[str, dict[str, Any]]] = [(model("turbo"), {}), (model("turbo"), fp8)]
    for kind, storage in (("turbo", "Q4_0"), ("schnell", "gguf"), ("turbo", "Q4_K")):
        title, options = stored(kind, storage)
        ways.append((title, {"options": options}))
    first = [forge.txt2img(title, ON, **common) for title, common in ways]
    for i in range(len(first)):
        assert not any(same(first[i], other) for other in first[:i])
    for (title, common), made in zip(reversed(ways), reversed(first), strict=True):
        assert same(forge.txt2img(title, ON, **common), made)
