"""Presets and recipes of the pages' forms, with the desks of both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

gr = pytest.importorskip("gradio")

from vsf_lib.pages.suggestions import OWN, STRONG, USUAL, Suggestions  # noqa: E402
from vsf_lib.preset_choice import STRENGTHS, strengths  # noqa: E402
from vsf_lib.presets import baseline, preset_for  # noqa: E402
from vsf_lib.recipes import WAN21, recipe_named  # noqa: E402
from vsf_lib.studio.desk import ImageDesk  # noqa: E402
from vsf_lib.video.desk import Desk, Places  # noqa: E402

REAL = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"
LARGE = "black-forest-labs/FLUX.1-dev"


def made(desk: Any) -> Suggestions:
    with gr.Blocks():
        suggestions = Suggestions(desk, "vsf_test", "video")
        suggestions.place_preset()
        suggestions.place_recipe("scenes")
    return suggestions


@pytest.fixture
def images(tmp_path: Path) -> Suggestions:
    return made(ImageDesk(tmp_path / "pictures"))


@pytest.fixture
def videos(tmp_path: Path) -> Iterator[Suggestions]:
    desk = Desk(Places(tmp_path / "data", tmp_path / "videos"))
    yield made(desk)
    desk.close()


def values(suggestions: Suggestions, preset: str, model: str | None, method: str) -> dict[str, Any]:
    updates = suggestions.suggested(preset, model, method)
    return {name: update["value"] for name, update in zip(STRENGTHS, updates, strict=True)}


def test_presets_follow_the_model_and_the_method(images: Suggestions, videos: Suggestions) -> None:
    for suggestions, preset, model, method, alpha in (
        (images, USUAL, "scenes", "vsf", preset_for("scenes").alpha),
        (images, STRONG, "scenes", "vsf", preset_for("scenes", strong=True).alpha),
        (images, USUAL, "scenes", "difference", preset_for("scenes").difference_alpha),
        (videos, USUAL, REAL, "vsf", 1.5),
        (videos, STRONG, REAL, "vsf", 1.7),
        (videos, USUAL, REAL, "difference", 2.25),
        (videos, USUAL, "/any/folder", "vsf", 1.5),
    ):
        assert values(suggestions, preset, model, method)["alpha"] == alpha
    strong = baseline("nag-strong").settings()
    for suggestions, model in ((images, LARGE), (videos, REAL)):
        found = values(suggestions, STRONG, model, "nag")
        assert (found["nag_phi"], found["nag_tau"]) == (strong.nag_phi, strong.nag_tau)
    assert values(videos, USUAL, None, "vsf")["alpha"] == 1.5, "an emptied list of models"


def test_own_values_stay(images: Suggestions) -> None:
    assert all("value" not in update for update in images.suggested(OWN, "scenes", "vsf"))
    assert images.unless_suggested("all", USUAL, "scenes", "vsf") == OWN
    assert images.unless_suggested("words", USUAL, "scenes", "vsf") == gr.update()


@pytest.mark.parametrize("method", ["vsf", "difference", "nag", "nasa"])
def test_values_are_known_as_those_of_their_preset(images: Suggestions, method: str) -> None:
    for preset in (USUAL, STRONG):
        own = strengths("scenes", method, strong=preset == STRONG)
        found = images.preset_of({**own, "prompt": "a cat"}, "scenes", method)
        assert found == preset or own == strengths("scenes", method), "nasa has one preset"
    other = strengths("scenes", method)
    for name in ("alpha", "nag_phi", "nasa_alpha"):
        assert images.preset_of({**other, name: other[name] + 0.01}, "scenes", method) == OWN


def test_a_recipe_fills_in_its_example_on_top_of_the_preset(images: Suggestions, videos: Suggestions) -> None:
    for suggestions, model, family in ((images, "scenes", "scenes"), (videos, "/any/folder", WAN21)):
        example = recipe_named("gentle").examples[family]
        prompt, negative, method, *strong, preset, said = suggestions.filled_in("gentle", model, "vsf")
        assert (prompt, negative, preset) == (example.prompt, example.negative_prompt, OWN)
        assert method == "vsf"
        found = dict(zip(STRENGTHS, strong, strict=True))
        assert {**found, **example.values} == found
        assert "gentle: press Generate" in said
    *_, preset, _ = images.filled_in("semi-abstract", "scenes", "vsf")
    assert preset == USUAL
    for recipe, says in (("camouflage", "cannot show it"), ("nothing", "no recipe")):
        *updates, said = images.filled_in(recipe, "scenes", "vsf")
        assert says in said
        assert all("value" not in update for update in updates)
    assert images.filled_in(None, "scenes", "vsf")[-1] == ""
    for chosen, becomes in (("off", "vsf"), ("nag", "vsf"), ("difference", "difference")):
        _, _, method, alpha, *_ = images.filled_in("remove", "scenes", chosen)
        assert method == becomes, "what cannot show the recipe gives way to what it was seen with"
        assert alpha == strengths("scenes", becomes)["alpha"]


def test_what_nobody_has_seen_of_a_recipe_is_not_said_to_be_seen(images: Suggestions) -> None:
    for model, measured in (("scenes", True), (LARGE, False)):
        *_, said = images.filled_in("semi-abstract", model, "vsf")
        assert ("seen: " in said, "nobody has measured it" in said) == (measured, not measured)


def test_the_recipes_are_those_that_the_model_can_show(images: Suggestions) -> None:
    names = {model: [name for _, name in images.offered(model)["choices"]] for model in ("scenes", LARGE)}
    assert "camouflage" in names[LARGE]
    assert "camouflage" not in names["scenes"]
    assert images.offered(None)["value"] is None
