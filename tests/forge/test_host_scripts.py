"""Scripts that Forge itself brings along and that touch the model, with VSF on and off.

What one of them changes, it changes with VSF too; what does nothing on SD3.5 and Flux, does nothing.
"""

from __future__ import annotations

from typing import Any

import pytest
from forge_client import LABEL, ON, Forge, ForgeError, difference, picture_of, same

SCRIPTS: dict[str, dict[str, Any]] = {
    "controlnet": {},
    "dynamicthresholding": {"Enabled": True},
    "freeu": {"FreeU Integrated (SD 1.x, SD 2.x, SDXL)": True},
    "kohya hrfix": {"Kohya HRFix Integrated": True},
    "latentmodifier": {"Enabled": True, "Sharpness Multiplier": 1.0, "Rescale Cfg Phi": 0.7},
    "multidiffusion": {"Enabled": True, "Tile Width": 128, "Tile Height": 128, "Tile Overlap": 32},
    "mixture of diffusers": {
        "Enabled": True,
        "Method": "Mixture of Diffusers",
        "Tile Width": 128,
        "Tile Height": 128,
        "Tile Overlap": 32,
    },
    "never oom": {
        "Enabled for UNet (always maximize offload)": True,
        "Enabled for VAE (always tiled)": True,
    },
    "perturbedattentionguidance": {"PerturbedAttentionGuidance Integrated": True},
    "stylealign": {"Share attention in batch": True},
}
"""What is switched on, by what the script's title begins with."""

IDLE = {"freeu", "kohya hrfix", "stylealign"}
"""These reach no part of SD3.5 and Flux."""


def arguments(forge: Forge, name: str) -> dict[str, list[Any]]:
    """A script's part of a request: what its panel begins with, but for what is switched on."""
    begins = "multidiffusion" if name == "mixture of diffusers" else name
    for script in forge.request("/sdapi/v1/script-info"):
        if script["name"].startswith(begins) and not script["is_img2img"]:
            wanted = SCRIPTS[name]
            assert set(wanted) <= {part["label"] for part in script["args"]}
            return {script["name"]: [wanted.get(part["label"], part["value"]) for part in script["args"]]}
    pytest.skip(f"this Forge has no {name}")


@pytest.mark.parametrize("kind", ["turbo", "schnell"])
@pytest.mark.parametrize("cfg_scale", [1, 3])
def test_scripts_of_the_hosts(forge: Forge, model: Any, kind: str, cfg_scale: int) -> None:
    title, common = model(kind), {"cfg_scale": cfg_scale}
    plain, on = forge.txt2img(title, **common), forge.txt2img(title, ON, **common)
    moved = difference(on.pictures, plain.pictures)
    for name in set(SCRIPTS) - {"controlnet"}:
        scripts = arguments(forge, name)
        theirs, both = (forge.txt2img(title, vsf, scripts=scripts, **common) for vsf in (None, ON))
        assert LABEL in both.infotexts[0], name
        assert "VSF" not in theirs.infotexts[0], name
        assert moved / 2 < difference(both.pictures, theirs.pictures) < moved * 2.5, name
        if name in IDLE:
            assert same(theirs, plain), name
            assert same(both, on), name
    assert same(forge.txt2img(title, **common), plain)
    assert same(forge.txt2img(title, ON, **common), on)


@pytest.mark.parametrize("kind", ["turbo", "schnell"])
def test_a_batch_in_tiles_has_a_negative_per_picture(forge: Forge, model: Any, kind: str) -> None:
    """Tile by tile the model has the rows of all pictures, whose negative prompts differ in length."""
    texts, common = ["wheels", "the windows of a very long house"], {"batch_size": 2}
    common["scripts"] = arguments(forge, "multidiffusion")
    strength = {name: value for name, value in ON.items() if name != "negative_prompt"}
    both = forge.txt2img(model(kind), strength, trial={"negatives": texts}, cfg_scale=3, **common)
    for i, text in enumerate(texts):
        one = forge.txt2img(model(kind), strength, negative_prompt=text, cfg_scale=3, **common)
        apart = difference(one.pictures[i : i + 1], both.pictures[i : i + 1])
        across = difference(one.pictures[1 - i : 2 - i], both.pictures[1 - i : 2 - i])
        assert apart < across / 20


@pytest.mark.parametrize("kind", ["turbo", "schnell"])
@pytest.mark.parametrize("module", ["None", "canny"])
def test_controlnet_without_a_model(forge: Forge, model: Any, kind: str, module: str) -> None:
    """Its panel is in every request; a unit without a model shows its picture beside and changes none."""
    scripts, title = arguments(forge, "controlnet"), model(kind)
    plain, on = forge.txt2img(title), forge.txt2img(title, ON)
    unit = {"enabled": True, "module": module, "model": "None", "image": picture_of(plain.pictures[0])}
    for vsf, wanted in ((None, plain), (ON, on)):
        made = forge.txt2img(title, vsf, scripts={script: [unit] for script in scripts})
        assert difference(made.pictures[:1], wanted.pictures) == 0
        assert (LABEL in made.infotexts[0]) == (vsf is not None)


def test_the_refiner_is_guided_too(forge: Forge, model: Any) -> None:
    """It loads another checkpoint in the middle; one of another kind cannot be guided by the same values."""
    title, common = model("turbo"), {"steps": 6}
    refined = {**common, "refiner_checkpoint": model("medium"), "refiner_switch_at": 0.5}
    plain, on = forge.txt2img(title, **common), forge.txt2img(title, ON, **common)
    theirs, half = forge.txt2img(title, **refined), forge.txt2img(title, {**ON, "end": 0.5}, **refined)
    whole = forge.txt2img(title, ON, **refined)
    assert "Refiner: " in whole.infotexts[0]
    assert f"{LABEL}.0, VSF beta: 0.0, VSF end: 0.5" in half.infotexts[0]
    assert difference(half.pictures, theirs.pictures) > 0.1
    assert difference(whole.pictures, half.pictures) > 0.1
    assert same(forge.txt2img(title, **common), plain)
    other = {**refined, "refiner_checkpoint": model("schnell")}
    with pytest.raises(ForgeError, match=r"which is no SD3\.5: switch the refiner off"):
        forge.txt2img(title, ON, **other)
    theirs, half = forge.txt2img(title, **other), forge.txt2img(title, {**ON, "end": 0.5}, **other)
    assert "VSF end: 0.5" in half.infotexts[0]
    assert difference(half.pictures, theirs.pictures) > 0.1
    assert same(forge.txt2img(title, **common), plain)
    assert same(forge.txt2img(title, ON, **common), on)
