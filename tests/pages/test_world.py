"""The hints for the small models."""

from __future__ import annotations

import pytest

pytest.importorskip("gradio")

from vsf_lib.controls import WHY
from vsf_lib.pages import world
from vsf_lib.scenes.model import MODELS, WAN, check_words
from vsf_lib.scenes.motion import VERBS
from vsf_lib.scenes.world import COLOURS, KINDS, PARTS, PLACES


@pytest.mark.parametrize("model", [*MODELS, WAN])
def test_a_small_model_s_hints_name_all_that_it_knows(model: str) -> None:
    prompt, negative = (update["info"] for update in world.told(model))
    for known in (*KINDS, *COLOURS, *PLACES.values()):
        assert known in prompt
        check_words(known, "prompt")
    assert ("driving" in prompt) is (model == WAN)
    assert all(verb in prompt for verb in VERBS) is (model == WAN)
    assert negative.startswith(WHY)
    assert all(part in negative for part in PARTS)


def test_of_other_models_nothing_is_said() -> None:
    for model in ("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "", None):
        assert [update["info"] for update in world.told(model)] == ["", WHY]
