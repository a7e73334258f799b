"""Guidance while the host swaps a part of the model, and the memory that it is asked to keep free.

Without a GPU the host is told that there is little memory: what it decides then, and the layers that bring
their weights along at each call, are its own. Pictures are bit for bit those of a host with enough.
"""

from __future__ import annotations

from typing import Any

import pytest
from forge_client import HIRES, Answer, Forge, ForgeError, same

ON = {"negative_prompt": "the wheels of a car", "alpha": 3.0, "beta": 0.2, "negative_scale": 0}
RECORD: dict[str, Any] = {"memory": {"options": {}}}


def number(answer: Answer, name: str) -> int:
    """What stands in the first picture's parameters under `Trial name`."""
    pairs = dict(
        pair.split(": ", 1) for pair in answer.infotexts[0].split("\n")[-1].split(", ") if ": " in pair
    )
    return int(pairs[f"Trial {name}"])


@pytest.mark.parametrize("kind", ["turbo", "medium", "schnell"])
@pytest.mark.parametrize(
    ("weights", "options"),
    [
        (0, {}),
        (10_000_000, {}),
        (10_000_000, {"forge_async_loading": "Async"}),
        (10_000_000, {"forge_async_loading": "Async", "forge_pin_shared_memory": "Shared"}),
        (10_000_000, {"forge_unet_storage_dtype": "float8-e4m3fn"}),
    ],
    ids=["all swapped", "a part", "async", "shared", "fp8"],
)
def test_pictures_are_those_of_a_host_with_memory(
    forge: Forge, model: Any, kind: str, weights: int, options: dict[str, str]
) -> None:
    title = model(kind)
    bits = {name: value for name, value in options.items() if name == "forge_unet_storage_dtype"}
    enough: dict[str, Any] = {"memory": {"options": bits}}
    little: dict[str, Any] = {"memory": {"options": options, "weights": weights}}
    plain, guided = forge.txt2img(title, **enough), forge.txt2img(title, ON, **enough)
    assert not same(plain, guided)
    for vsf, wanted in ((None, plain), (ON, guided)):
        made = forge.txt2img(title, vsf, **little)
        assert number(made, "swapped") > 0
        assert same(made, wanted)
    broken = {"raise": {"block": next(iter(BLOCKS[kind])), "call": 2, "error": "OutOfMemoryError"}}
    with pytest.raises(ForgeError, match="forced by a test"):
        forge.txt2img(title, ON, trial=broken, **little)
    assert same(forge.txt2img(title, **little), plain)
    assert same(forge.txt2img(title, **enough), plain)
    assert same(forge.txt2img(title, ON, **enough), guided)


BLOCKS = {"turbo": ["joint_blocks.1"], "medium": ["joint_blocks.1"], "schnell": ["double_blocks.1"]}


@pytest.mark.parametrize("kind", ["turbo", "dev"])
def test_guidance_declares_its_memory_and_off_nothing(forge: Forge, model: Any, kind: str) -> None:
    title = model(kind)
    plain = forge.txt2img(title, **RECORD)
    assert number(plain, "preserved") == 0
    on = forge.txt2img(title, ON, **RECORD)
    asked = number(on, "preserved")
    assert asked > 0
    for method in ("nag", "nasa", "difference"):
        assert number(forge.txt2img(title, {**ON, "method": method}, **RECORD), "preserved") > 0
    assert number(forge.txt2img(title, ON, batch_size=2, **RECORD), "preserved") == 2 * asked
    doubled = forge.txt2img(title, ON, cfg_scale=3, negative_prompt="dark", **RECORD)
    assert number(doubled, "preserved") == 2 * asked
    larger = number(forge.txt2img(title, ON, width=512, **RECORD), "preserved")
    assert asked < larger < 2 * asked
    assert number(forge.txt2img(title, ON, **HIRES, **RECORD), "preserved") > asked
    broken = {"raise": {"block": "final_layer", "call": 2, "error": "OutOfMemoryError"}}
    with pytest.raises(ForgeError, match="forced by a test"):
        forge.txt2img(title, ON, trial=broken, **RECORD)
    off = forge.txt2img(title, **RECORD)
    assert number(off, "preserved") == 0
    assert same(off, plain)


@pytest.mark.parametrize("kind", ["turbo", "medium", "schnell"])
@pytest.mark.parametrize("method", ["vsf", "nag"])
def test_what_is_declared_bounds_what_is_taken(forge: Forge, model: Any, kind: str, method: str) -> None:
    """The whole of a real network's calls. (Flux's own attention on a CPU takes more than guidance does.)"""
    common: dict[str, Any] = {"width": 512, "height": 512, "memory": {"peak": True}}
    off = forge.txt2img(model(kind), **common)
    on = forge.txt2img(model(kind), {**ON, "method": method}, **common)
    more = number(on, "peak") - number(off, "peak")
    assert more <= number(on, "preserved")
    assert more > 0 or kind == "schnell"


def test_the_host_swaps_for_it_where_the_model_just_fits(forge: Forge, model: Any) -> None:
    """The declared memory is what the host decides by: with it the weights no longer fit as a whole."""
    title, just = model("turbo"), {"memory": {"spare": 100_000}}
    plain, on = forge.txt2img(title), forge.txt2img(title, ON)
    off = forge.txt2img(title, **just)
    assert number(off, "swapped") == 0
    made = forge.txt2img(title, ON, **just)
    assert number(made, "swapped") > 0
    assert same(made, on)
    roomy = forge.txt2img(title, ON, memory={"spare": number(made, "preserved") + 100_000})
    assert number(roomy, "swapped") == 0
    assert same(off, plain)
    assert number(forge.txt2img(title, **just), "swapped") == 0
