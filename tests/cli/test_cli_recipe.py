"""`generate --recipe`: what it fills in, that flags win, and that its picture repeats without it."""

from __future__ import annotations

from pathlib import Path

import pytest

from vsf_lib.metadata import parse_parameters, read_png
from vsf_lib.presets import preset_for
from vsf_lib.recipes import RECIPES, SCENES, recipe_named

QUICK = ("--steps", "1", "--seed", "1", "--out", "x.png")


@pytest.mark.parametrize("name", [recipe.name for recipe in RECIPES if SCENES in recipe.examples])
def test_recipe_is_its_example_on_top_of_the_preset_and_repeats_alone(run, name):
    outcome = run("generate", "--recipe", name, *QUICK)
    assert (outcome.code, outcome.err) == (0, "")
    example = recipe_named(name).examples[SCENES]
    told = parse_parameters(read_png("x.png"))
    assert told.prompt == example.prompt
    assert (
        told.settings == preset_for("scenes").settings(example.negative_prompt, **example.values).canonical()
    )
    assert name not in read_png("x.png")
    assert run("generate", "--from-image", "x.png", "--out", "again.png").err == ""
    assert Path("x.png").read_bytes() == Path("again.png").read_bytes()


def test_flags_win_over_the_recipe(run):
    words = ("--prompt", "a blue fish", "--negative-prompt", "fish", "--beta", "2", "--preset", "strong")
    assert run("generate", "--recipe", "semi-abstract", *words, *QUICK).err == ""
    told = parse_parameters(read_png("x.png"))
    assert told.prompt == "a blue fish"
    assert told.settings == preset_for("scenes", strong=True).settings("fish", beta=2).canonical()


def test_the_difference_keeps_its_presets_alpha(run):
    """A recipe's alpha is VSF's."""
    assert run("generate", "--recipe", "gentle", "--method", "difference", *QUICK).err == ""
    told = parse_parameters(read_png("x.png")).settings
    assert told is not None
    assert (told.method, told.alpha, told.beta) == ("difference", preset_for("scenes").difference_alpha, 2)


def test_presets_are_of_both_methods_that_share_attention(run):
    words = ("--prompt", "a red car", "--negative-prompt", "wheels", *QUICK)
    assert run("generate", *words, "--method", "difference", "--preset", "strong").err == ""
    strong = preset_for("scenes", strong=True)
    told = parse_parameters(read_png("x.png")).settings
    assert told == strong.settings("wheels", method="difference").canonical()
    assert told is not None
    assert told.alpha == strong.difference_alpha
    assert run("generate", *words, "--method", "difference").err == ""
    assert run("generate", "--from-image", "x.png", "--preset", "strong", "--out", "y.png").err == ""
    assert parse_parameters(read_png("y.png")).settings == told
    assert run("generate", "--from-image", "x.png", "--out", "z.png").err == ""
    assert Path("x.png").read_bytes() == Path("z.png").read_bytes()


def test_a_recipes_alpha_and_a_preset_contradict(run):
    outcome = run("generate", "--recipe", "gentle", "--preset", "strong", *QUICK)
    assert outcome.code == 2
    assert "brings its own alpha and --preset strong another" in outcome.err
    assert run("generate", "--recipe", "baseline", "--method", "difference", *QUICK).code == 2


def test_half_an_example_is_told(run):
    outcome = run("generate", "--recipe", "semi-abstract", "--prompt", "a red car", *QUICK)
    assert outcome.code == 0
    assert outcome.err == (
        "note: the negative prompt is the example's, 'bird': --negative-prompt gives your own (THING)\n"
    )


def test_a_recipe_can_be_swept(run):
    assert run("generate", "--recipe", "baseline", "--sweep", "beta=0,2", *QUICK).code == 0
    told = parse_parameters(read_png("x.png"))
    assert told.settings is not None
    assert (told.settings.alpha, told.extra["VSF sweep"]) == (0, "beta=0,2")


@pytest.mark.parametrize("model", ["scenes", "black-forest-labs/FLUX.1-schnell"])
def test_list_tells_every_recipe_for_the_model(run, tmp_path, model):
    outcome = run("generate", "--recipe", "list", "--model", model)
    assert (outcome.code, outcome.err) == (0, "")
    for recipe in RECIPES:
        assert f"{recipe.name}: {recipe.summary}\n" in outcome.out
        assert f"source: {recipe.source}\n" in outcome.out
    assert ('--negative-prompt "bird"' in outcome.out) == (model == "scenes")
    assert ("no example: the recipe camouflage" in outcome.out) == (model == "scenes")
    assert ("seen: unmeasured" in outcome.out) == (model != "scenes")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("semi",), "no recipe 'semi': choose one of remove"),
        (("camouflage",), "has no example for scenes"),
        (("remove", "--from-image", __file__), "is not a PNG file"),
        (("baseline", "--method", "nag"), "sets alpha, which method nag does not read"),
        (("remove", "--prompt", ""), "prompt is empty"),
    ],
)
def test_refused_in_one_line(run, tmp_path, words, says):
    outcome = run("generate", "--recipe", *words)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.count("\n") == 1
    assert says in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_a_picture_and_a_recipe_contradict(run):
    run("generate", "--recipe", "remove", *QUICK)
    assert "drop one" in run("generate", "--recipe", "remove", "--from-image", "x.png").err
