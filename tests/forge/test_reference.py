"""The extension's pictures against a plain masked float64 guidance that runs in the same host.

The bound is the issue of this folder: a picture may differ from the reference's by less than a tenth of what
guidance changes. What is found is far smaller.
"""

from __future__ import annotations

from typing import Any

import pytest
from forge_client import Forge, difference


@pytest.mark.parametrize("kind", ["large_tiny", "turbo", "medium", "dev", "schnell"])
@pytest.mark.parametrize("t5", [False, True])
@pytest.mark.parametrize(
    ("alpha", "beta", "more"),
    [
        (2.0, 0.0, {}),
        (5.0, 1.0, {}),
        (4.0, 0.2, {"blocks": "double"}),
        (1.5, 0.0, {"negative_scale": 6.0}),
        (8.0, 0.0, {"method": "difference"}),
    ],
)
def test_equals_the_masked_form(
    forge: Forge, model: Any, kind: str, t5: bool, alpha: float, beta: float, more: dict[str, str]
) -> None:
    if t5 and kind in ("dev", "schnell"):
        pytest.skip("Flux always has its T5")
    if "negative_scale" in more and kind not in ("dev", "schnell"):
        pytest.skip("equation 10 is Flux's")
    asked = {"negative_prompt": "the wheels of a car", "alpha": alpha, "beta": beta, **more}
    # The host does not notice that T5 was switched when the prompt stays the same.
    common = {"options": {"sd3_enable_t5": t5}, "prompt": f"a red car {'with' if t5 else 'without'} roof"}
    plain = forge.txt2img(model(kind), **common)
    # What a preset would decide is said.
    guided = forge.txt2img(model(kind), {"negative_scale": 0, "negative_tokens": "all", **asked}, **common)
    masked = forge.txt2img(model(kind), trial={"masked": asked}, **common)
    effect = difference(guided.pictures, plain.pictures)
    assert effect > 1
    assert difference(guided.pictures, masked.pictures) < effect / 100
