"""Recipes: every example is valid for the models it is for, and nothing is claimed that was not seen."""

from __future__ import annotations

import pytest

from vsf_lib.errors import SettingsError
from vsf_lib.presets import preset_for
from vsf_lib.recipes import (
    FAMILIES,
    FLUX,
    MOVING,
    RECIPES,
    SCENES,
    SD3,
    UNMEASURED,
    WAN21,
    family,
    names,
    offered,
    recipe_named,
)
from vsf_lib.scenes.model import MODELS, WAN, check_words
from vsf_lib.scenes.motion import VERBS
from vsf_lib.scenes.world import KINDS
from vsf_lib.settings import Settings

MODEL = {
    SCENES: "scenes",
    SD3: "stabilityai/stable-diffusion-3.5-large-turbo",
    FLUX: "black-forest-labs/FLUX.1-schnell",
    MOVING: WAN,
    WAN21: "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
}
EXAMPLES = [(recipe, kind, example) for recipe in RECIPES for kind, example in recipe.examples.items()]


@pytest.mark.parametrize(("recipe", "kind", "example"), EXAMPLES, ids=lambda item: getattr(item, "name", ""))
def test_every_example_is_valid_guidance_on_top_of_the_preset(recipe, kind, example):
    assert kind in FAMILIES
    settings = preset_for(MODEL[kind]).settings(example.negative_prompt, **example.values)
    assert settings.negative_prompt == example.negative_prompt != ""
    assert settings.guided_steps(8)
    assert settings.canonical() == settings, "it sets nothing that the method does not read"
    assert Settings.from_infotext(settings.infotext()) == settings, "the infotext repeats it"
    assert recipe.example(MODEL[kind]) is example
    if kind in (SCENES, MOVING):
        verbs = VERBS if kind == MOVING else ()
        check_words(example.prompt, "prompt", verbs=verbs)
        check_words(example.negative_prompt, "negative prompt", verbs=verbs)
        assert sum(word in KINDS for word in example.prompt.split()) == 1


def test_the_ways_that_were_asked_for_are_there():
    assert len(set(names())) == len(names())
    for name in ("remove", "semi-abstract", "style-avoidance", "baseline"):
        assert set(recipe_named(name).examples) == set(FAMILIES)
    for example in recipe_named("semi-abstract").examples.values():
        assert example.negative_prompt in example.prompt.split()
    for example in recipe_named("style-avoidance").examples.values():
        assert example.negative_prompt not in example.prompt
    for kind, example in recipe_named("gentle").examples.items():
        assert example.values["beta"] > preset_for(MODEL[kind]).beta
    assert all(example.values["alpha"] == 0 for example in recipe_named("baseline").examples.values())


def test_nothing_is_claimed_of_models_that_nobody_ran():
    for _, kind, example in EXAMPLES:
        assert (example.seen == UNMEASURED) == (kind != SCENES)
    for recipe in RECIPES:
        assert recipe.source
        assert "\n" not in recipe.summary


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        *((name, SCENES) for name in MODELS),
        ("/trained/scenes", SCENES),
        ("stabilityai/stable-diffusion-3.5-medium", SD3),
        ("something else", SD3),
        ("black-forest-labs/FLUX.1-dev", FLUX),
        ("/models/flux1-schnell-fp8.safetensors", FLUX),
        ("my-flux-finetune", FLUX),
        (WAN, MOVING),
        ("/models/Wan2.1-T2V-14B-Diffusers", WAN21),
    ],
)
def test_models_find_their_family(model, kind):
    assert family(model) == kind


def test_among_models_of_one_kind_an_unknown_name_is_of_that():
    assert family("my own folder", usual=WAN21) == WAN21
    assert recipe_named("camouflage").example("my own folder", usual=WAN21).negative_prompt
    listed = dict(offered("my own folder", usual=WAN21))
    assert set(listed.values()) == set(names()), "videos are what camouflage was made for"
    assert "camouflage" not in dict(offered(WAN)).values()
    assert next(text for text, name in listed.items() if name == "remove").startswith("remove: the ordinary")


def test_what_is_not_there_is_named():
    with pytest.raises(SettingsError, match=r"no recipe 'semi': choose one of remove, .*semi-abstract"):
        recipe_named("semi")
    with pytest.raises(SettingsError, match="camouflage has no example for scenes"):
        recipe_named("camouflage").example("scenes")
