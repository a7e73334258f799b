"""The form and the result of the Image tab, called as gradio calls them."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

gr = pytest.importorskip("gradio")

from page_events import answered  # noqa: E402
from pictures import BASE, noise, save, save_group  # noqa: E402

from vsf_lib.errors import SettingsError  # noqa: E402
from vsf_lib.images.resolve import resolve, usual_steps  # noqa: E402
from vsf_lib.metadata import COMPARISON, COMPARISON_VALUE  # noqa: E402
from vsf_lib.pages import world  # noqa: E402
from vsf_lib.pages.suggestions import OWN, STRONG, USUAL  # noqa: E402
from vsf_lib.preset_choice import strengths  # noqa: E402
from vsf_lib.presets import preset_for  # noqa: E402
from vsf_lib.settings import Settings, fields  # noqa: E402
from vsf_lib.studio.desk import ImageDesk  # noqa: E402
from vsf_lib.studio.history import EXAMPLE, read_entry  # noqa: E402
from vsf_lib.studio.ui.form import Form, _sweep_for  # noqa: E402
from vsf_lib.studio.ui.result import BEFORE, STEPS, WHERE, Result  # noqa: E402


@pytest.fixture
def desk(tmp_path: Path) -> ImageDesk:
    return ImageDesk(tmp_path / "outputs")


@pytest.fixture
def form(desk: ImageDesk) -> Form:
    with gr.Blocks():
        made = Form(desk)
        made.connect()
        return made


def first(form: Form) -> dict[str, Any]:
    """What the form holds before anybody touches it."""
    return {name: element.value for name, element in form.elements.items()}


def after(form: Form, updates: list[Any]) -> dict[str, Any]:
    """What it holds after these updates of its outputs."""
    values = first(form)
    for name, update in zip(form.elements, updates, strict=False):
        values[name] = update.get("value", values[name])
    return values


def test_labels_bounds_and_help_are_those_of_the_settings(form: Form) -> None:
    settings = [item for item in fields() if not item.webui]
    for item in settings:
        element = form.elements[item.name]
        assert element.label.lower() == item.label.removeprefix("VSF ").lower()
        if item.slider is not None:
            slider = item.slider
            assert (element.minimum, element.maximum, element.step) == (
                slider.minimum,
                slider.maximum,
                slider.step,
            )
        if item.choices:
            assert tuple(value for _, value in element.choices) == item.choices
        if item.name != "negative_prompt":
            assert element.info == item.help
    assert "hires_pass" not in form.elements


def test_what_is_typed_comes_to_the_desk_as_it_is(form: Form, desk: ImageDesk) -> None:
    """Gradio's elements would refuse it in words of their own, or take the nearest number in silence."""
    for name in ("alpha", "beta", "steps", "start", "nag_tau", "fps", "seed"):
        element = form.elements[name]
        assert element.get_block_name() in ("slider", "number"), "what the browser knows"
        for typed in (None, -1, 1.5, 1000.25):
            assert element.preprocess(typed) == typed, name
        if isinstance(element, gr.Slider):  # an update makes it anew
            again = type(element)(**{**element.constructor_args, "maximum": 99})
            assert again.preprocess(None) is None, name
    for name, typed, says in (
        ("seed", 1.5, "seed is 1.5, but must be a whole number"),
        ("alpha", 101, "alpha is 101, but must be a number from 0 to 100"),
        ("steps", None, "steps is empty"),
    ):
        values = first(form) | {name: form.elements[name].preprocess(typed)}
        with pytest.raises(SettingsError, match=says):
            desk.asked(values)
            resolve(desk.asked(values))


def test_the_untouched_form_draws_the_small_model_s_preset(form: Form, desk: ImageDesk) -> None:
    request = resolve(desk.asked(first(form)))
    assert request.settings == preset_for("scenes").settings("wheels")
    assert (request.model, request.steps, request.compare, request.heatmap) == ("scenes", 8, True, True)


@pytest.mark.parametrize("method", ["vsf", "difference", "nag", "nasa"])
def test_a_file_comes_back_whole_from_the_form(
    form: Form, desk: ImageDesk, tmp_path: Path, method: str
) -> None:
    pick, rng = random.Random(), np.random.default_rng()
    for number in range(10):
        settings = Settings(
            method=method, negative_prompt="wheels", alpha=pick.uniform(0.1, 90), beta=pick.uniform(0, 90),
            nag_phi=pick.uniform(0.1, 90), nag_tau=pick.uniform(1, 90), nag_alpha=pick.uniform(0.1, 1),
            nasa_alpha=pick.uniform(0.1, 9), start=pick.uniform(0, 0.4), end=pick.uniform(0.6, 1),
            negative_tokens=pick.choice(["all", "words"]),
        ).canonical()  # fmt: skip
        told = replace(BASE, settings=settings, steps=pick.randint(20, 900), seed=pick.randrange(2**32))
        restored = desk.restored(save(tmp_path / f"{number}.png", noise(rng), told))
        updates = form.filled(restored)
        assert len(updates) == len(form.outputs)
        for element, update in zip(form.outputs, updates, strict=True):
            if isinstance(element, gr.Slider) and "value" in update:
                low, high = update.get("minimum", element.minimum), update.get("maximum", element.maximum)
                assert low <= update["value"] <= high, "a slider would send another value"
        again = resolve(desk.asked(after(form, updates)))
        assert again.settings.canonical() == settings
        assert (again.seed, again.steps, again.size) == (told.seed, told.steps, (64, 48))
        assert (again.prompt, again.model) == (told.prompt, "scenes")


def test_a_file_comes_back_with_its_preset_and_the_hints_of_its_model(
    form: Form, desk: ImageDesk, tmp_path: Path
) -> None:
    usual, strong = (preset_for("scenes", strong=strong).settings("wheels") for strong in (False, True))
    own = usual.model_copy(update={"alpha": usual.alpha + 0.01})
    for number, (settings, preset) in enumerate(((usual, USUAL), (strong, STRONG), (own, OWN))):
        told = replace(BASE, settings=settings)
        path = save(tmp_path / f"{number}.png", noise(np.random.default_rng()), told)
        updates = dict(zip(form.outputs, form.filled(desk.restored(path)), strict=True))
        assert updates[form._suggestions.preset]["value"] == preset
        assert updates[form.elements["prompt"]]["info"] == world.world("scenes") != ""


def test_another_model_brings_its_steps_hints_recipes_and_strengths(desk: ImageDesk) -> None:
    with gr.Blocks() as blocks:
        form = Form(desk)
        form.connect()
    for model in ("black-forest-labs/FLUX.1-dev", "scenes"):
        chosen = form.elements["model"]
        found = answered(blocks, chosen, "input", {chosen: model})
        assert found[form.elements["steps"]] == usual_steps(model)
        assert found[form.elements["alpha"]]["value"] == preset_for(model).alpha
        assert found[form.elements["prompt"]]["info"] == world.world(model)
        assert found[form.elements["negative_prompt"]]["info"] == world.parts(model)
        assert found[form._suggestions.recipe]["choices"] == desk.recipes(model)


def test_a_file_of_another_program_leaves_the_model_of_the_form(
    form: Form, desk: ImageDesk, tmp_path: Path
) -> None:
    told = replace(BASE, model="sd_xl_base_1.0", version="v1.10.1", seed=99)
    updates = form.filled(desk.restored(save(tmp_path / "x.png", noise(np.random.default_rng()), told)))
    assert len(updates) == len(form.outputs)
    values = dict(zip(form.elements, updates, strict=False))
    assert "value" not in values["model"]
    assert "info" not in values["prompt"]
    assert values["seed"]["value"] == 99


def test_an_unguided_file_leaves_the_guidance_of_the_form_alone(
    form: Form, desk: ImageDesk, tmp_path: Path
) -> None:
    path = save(tmp_path / "x.png", noise(np.random.default_rng()), replace(BASE, settings=None, seed=99))
    values = after(form, form.filled(desk.restored(path)))
    assert (values["negative_prompt"], values["seed"]) == ("", 99)
    assert resolve(desk.asked(values)).settings.method == "off"
    again = resolve(desk.asked({**values, "negative_prompt": "wheels"}))
    assert again.settings == preset_for("scenes").settings("wheels")


def test_the_form_comes_back_from_what_the_browser_has_kept(form: Form) -> None:
    values = first(form) | {
        "prompt": "a cat \"in\" the snow", "alpha": 33.5, "seed": -1, "steps": 700, "method": "difference",
        "heatmap": False, "model": "flux-schnell", "size": "64x32",
    }  # fmt: skip
    updates = form.kept(json.dumps(values))
    assert len(updates) == len(form.outputs)
    assert after(form, updates) == values
    for element, update in zip(form.outputs, updates, strict=True):
        if isinstance(element, gr.Slider) and "value" in update:
            assert update["value"] <= update.get("maximum", element.maximum), "its handle would be elsewhere"
    preset = dict(zip(form.outputs, updates, strict=True))[form._suggestions.preset]
    assert preset == OWN
    for name, strong in ((USUAL, False), (STRONG, True)):
        own = strengths("scenes", "nag", strong=strong)
        updates = form.kept(json.dumps(first(form) | {"method": "nag"} | own))
        assert dict(zip(form.outputs, updates, strict=True))[form._suggestions.preset] == name
    assert [row["visible"] for row in updates[-2:]] == [True, False], "the fields of nag"


@pytest.mark.parametrize("kept", ["", "{", "[]", "3", "null", json.dumps({"no such": 1})])
def test_nothing_comes_of_what_no_form_was_kept_as(form: Form, kept: str) -> None:
    assert form.kept(kept) == [gr.skip()] * len(form.outputs)


def test_what_does_not_fit_any_more_stays_as_it_is(tmp_path: Path) -> None:
    with gr.Blocks():
        public = Form(ImageDesk(tmp_path, paths=False))
    kept = {
        "prompt": 3, "model": "/a/model/of/before", "method": "no such", "alpha": "much", "beta": None,
        "steps": True, "compare": "yes", "negative_tokens": "all",
    }  # fmt: skip
    values = after(public, public.kept(json.dumps(kept)))
    assert values == first(public) | {"negative_tokens": "all"}
    infinite = '{"alpha": Infinity, "negative_tokens": "all"}'
    assert after(public, public.kept(infinite)) == first(public) | {"negative_tokens": "all"}


@pytest.mark.parametrize(
    ("method", "text", "becomes"),
    [
        ("nag", "alpha=0:6:0.5", "nag_phi=1:11:1"),
        ("nag", "alpha=0,2", "nag_phi=1:11:1"),
        ("nag", "nag_tau=1,2", None),
        ("vsf", "--alpha=0,3", None),
        ("difference", "alpha=0:6:0.5", "alpha=0.5:8:0.5"),
        ("off", "alpha=0,3", None),
        ("vsf", "", "alpha=0:6:0.5"),
    ],
)
def test_another_method_brings_its_sweep_in_place_of_one_that_it_cannot_do(
    method: str, text: str, becomes: str | None
) -> None:
    """A restored sweep's method changes, too, and must not take the restored range away."""
    found = _sweep_for(method, text)
    assert found == becomes if becomes is not None else found == gr.skip()


def test_an_entry_is_shown_by_what_it_has(tmp_path: Path) -> None:
    rng = np.random.default_rng()
    with gr.Blocks():
        result = Result()
    save_group(tmp_path, rng)
    entry = read_entry(tmp_path / "car-7.png")
    slider, picture, film, caption, view, infotext, file = result.shown(entry)
    assert [image.size for image in slider["value"]] == [(512, 384)] * 2
    assert (slider["visible"], picture["visible"], film["visible"]) == (True, "hidden", "hidden")
    assert (view["value"], view["visible"]) == (BEFORE, True)
    assert "left without, right with" in caption
    assert infotext == entry.infotext
    assert file["value"] == str(entry.path)
    slider, *_ = result.shown(entry, WHERE)
    assert [image.size for image in slider["value"]] == [(448, 336)] * 2
    slider, picture, *_ = result.shown(entry, STEPS)
    assert (slider["visible"], picture["value"]) == ("hidden", str(tmp_path / "car-7-heatmap.png"))
    (tmp_path / "car-7-heatmap.png").unlink()
    slider, *_, view, _, _ = result.shown(entry, WHERE)
    assert len(slider["value"]) == 2, "the pictures, where there is no heat map"
    assert (view["value"], view["visible"]) == (BEFORE, "hidden")
    (tmp_path / "car-7.png").unlink()
    slider, _, _, caption, *_ = result.shown(entry)
    assert slider["value"] is None
    assert "cannot read car-7.png" in caption


def test_the_example_is_shown_and_not_for_download() -> None:
    with gr.Blocks():
        result = Result()
    slider, *_, file = result.example()
    assert len(slider["value"]) == 2
    assert file["value"] is None
    assert EXAMPLE.is_file()


def test_a_comparison_s_file_is_halved(tmp_path: Path) -> None:
    with gr.Blocks():
        result = Result()
    image = noise(np.random.default_rng(), 128, 48)
    path = save(tmp_path / "x.png", image, replace(BASE, extra={COMPARISON: COMPARISON_VALUE}))
    slider, *_ = result.shown(read_entry(path))
    assert [side.size for side in slider["value"]] == [(512, 384)] * 2
