"""Videos in a real Forge Neo: its Wan, whose batch size is the number of frames, against a masked form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from forge_client import Answer, Forge, ForgeError, difference, same

SIZE = {"width": 128, "height": 128}
ON = {"negative_prompt": "wheels", "alpha": 2.0, "beta": 0.0}


def make(forge: Forge, title: str, vsf: Any = None, **values: Any) -> Answer:
    """Five frames, of a picture where the model wants one."""
    common = {"batch_size": 5, **SIZE, **values}
    if "i2v" not in title:
        return forge.txt2img(title, vsf, **common)
    picture = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    return forge.img2img(title, picture, vsf, denoising_strength=1.0, **common)


@pytest.fixture(params=["wan2.1-t2v", "wan2.1-i2v", "wan2.2-i2v"])
def title(request: pytest.FixtureRequest, model: Any) -> str:
    return str(model(request.param))


def test_on_off_and_again(forge: Forge, title: str) -> None:
    plain, on = make(forge, title), make(forge, title, ON)
    assert len(on.pictures) == 5
    assert all("VSF negative prompt: wheels, VSF alpha: 2" in text for text in on.infotexts)
    assert all(not np.array_equal(a, b) for a, b in zip(plain.pictures, on.pictures, strict=True))
    assert same(make(forge, title, ON), on)
    off = make(forge, title, {**ON, "enabled": False})
    assert same(off, plain)
    assert off.infotexts == plain.infotexts


@pytest.mark.parametrize(
    ("frames", "more"),
    [
        (5, {}),
        (1, {}),
        (5, {"alpha": 5.0, "beta": 1.0}),
        (5, {"alpha": 4.0, "method": "difference"}),
    ],
)
def test_equals_the_masked_form(forge: Forge, title: str, frames: int, more: dict[str, Any]) -> None:
    asked = {**ON, "negative_prompt": "the wheels of a car", **more}
    common = {"batch_size": frames}
    plain, guided = make(forge, title, **common), make(forge, title, asked, **common)
    masked = make(forge, title, trial={"masked": asked}, **common)
    effect = difference(guided.pictures, plain.pictures)
    assert effect > 1
    assert difference(guided.pictures, masked.pictures) < effect / 50


def test_ways_to_generate(forge: Forge, title: str) -> None:
    for name, values in {
        "cfg": {"cfg_scale": 3, "negative_prompt": "dark"},
        "host's box": {"negative_prompt": "wheels"},
        "two videos": {"n_iter": 2},
        "two calls a step": {"sampler_name": "Heun"},
        "schedule": {"negative_prompt": "[wheels:roof:0.5]"},
        "weights": {"negative_prompt": "(wheels:1.5) roof"},
    }.items():
        vsf = {**ON, "negative_prompt": "" if "negative_prompt" in values and name != "cfg" else "wheels"}
        plain, on = make(forge, title, **values), make(forge, title, vsf, **values)
        assert not same(on, plain), name
        assert all("VSF alpha: 2" in text for text in on.infotexts), name
        assert same(make(forge, title, **values), plain), name


@pytest.mark.parametrize("method", ["nag", "nasa"])
def test_other_methods(forge: Forge, title: str, method: str) -> None:
    on = make(forge, title, {"negative_prompt": "wheels", "method": method})
    assert f"VSF method: {method}" in on.infotexts[0]
    assert not same(on, make(forge, title))


def test_the_last_letter_counts(forge: Forge, model: Any) -> None:
    """The host drops it from prompts."""
    title = model("wan2.1-t2v")
    one, other = (make(forge, title, {**ON, "negative_prompt": text}) for text in ("a car", "a cat"))
    assert not same(one, other)


@pytest.mark.parametrize("error", ["RuntimeError", "OutOfMemoryError"])
@pytest.mark.parametrize("block", ["blocks.1", "blocks.2.cross_attn.norm_k"])
def test_an_error_in_the_middle_of_sampling(forge: Forge, model: Any, block: str, error: str) -> None:
    title = model("wan2.1-t2v")
    plain, on = make(forge, title), make(forge, title, ON)
    with pytest.raises(ForgeError, match="forced by a test"):
        make(forge, title, ON, trial={"raise": {"block": block, "call": 2, "error": error}})
    assert same(make(forge, title), plain)
    assert same(make(forge, title, ON), on)


def test_models_alternate_with_pictures(forge: Forge, model: Any) -> None:
    video, picture = model("wan2.1-t2v"), model("schnell")
    first = make(forge, video, ON), forge.txt2img(picture, ON)
    assert same(make(forge, video, ON), first[0])
    assert same(forge.txt2img(picture, ON), first[1])


def test_what_means_nothing_for_a_video_is_said(forge: Forge, model: Any) -> None:
    with pytest.raises(ForgeError, match="negative scale is 4, but it does nothing on Wan"):
        make(forge, model("wan2.1-t2v"), {**ON, "negative_scale": 4})


def test_auto_takes_the_preset_for_videos(forge: Forge, model: Any) -> None:
    presets = {entry["name"]: entry["values"] for entry in forge.request("/vsf/v1/presets")["presets"]}
    on = make(forge, model("wan2.1-t2v"), {"negative_prompt": "wheels"})
    assert f"VSF alpha: {presets['Wan 2.1 with CausVid']['alpha']:g}" in on.infotexts[0]


def test_a_refiner_is_guided_too(forge: Forge, model: Any) -> None:
    """Wan 2.2 comes in two models. One with the same weights under another name must change nothing."""
    title, same_one, other = (model(name) for name in ("wan2.1-t2v", "same-noise", "low-noise"))

    def refined(refiner: str, vsf: Any) -> Answer:
        make(forge, title)  # right after a refined video the host makes another one, also without VSF
        return make(forge, title, vsf, steps=4, refiner_checkpoint=refiner, refiner_switch_at=0.8)

    plain, on = refined(other, None), refined(other, ON)
    assert "Refiner:" in on.infotexts[0]
    assert "VSF alpha: 2" in on.infotexts[0]
    assert same(refined(same_one, ON), make(forge, title, ON, steps=4))
    assert same(refined(other, ON), on)
    assert not same(on, plain)
    assert not same(on, make(forge, title, ON, steps=4))
    assert same(refined(other, None), plain)
