"""Presets: every suggestion is valid and says where it comes from, and models find theirs by name."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from vsf_lib import presets
from vsf_lib.errors import SettingsError
from vsf_lib.preset_choice import preset_named, strengths
from vsf_lib.presets import BASELINES, PRESETS, UNKNOWN, Published, baseline, kinds, preset_for
from vsf_lib.settings import Settings, fields

EVIDENCE = Path(__file__).parents[1] / "docs" / "evidence"


@pytest.mark.parametrize("preset", [*PRESETS, *BASELINES.values(), UNKNOWN], ids=lambda preset: preset.name)
def test_every_preset_makes_valid_settings_and_names_its_source(preset):
    settings = preset.settings("wheels")
    assert settings.negative_prompt == "wheels"
    assert {name: getattr(settings, name) for name in preset.values} == dict(preset.values)
    assert preset.source
    assert preset.note
    assert preset.steps is None or 1 <= preset.steps[0] <= preset.steps[1]


def test_names_are_unique_and_each_kind_has_one_ordinary_preset():
    names = [preset.name for preset in (*PRESETS, *BASELINES.values(), UNKNOWN)]
    assert len(set(names)) == len(names)
    for kind in kinds():
        assert [preset.strong for preset in PRESETS if preset.kind == kind].count(False) == 1


def test_nothing_but_the_built_in_models_is_called_measured():
    assert not [preset.name for preset in PRESETS if preset.measured and preset.kind not in ("scenes", "wan")]
    assert {preset.measured for preset in PRESETS if preset.kind == "scenes"} == {presets.SCENES_MEASURED}


def test_suggestions_for_the_published_joint_form_are_half_of_it():
    halves = [preset for preset in PRESETS if preset.kind.startswith("sd3.5")]
    for preset in halves:
        low, high = (
            preset.published.alpha
            if isinstance(preset.published.alpha, tuple)
            else (preset.published.alpha,) * 2
        )
        assert preset.alpha == pytest.approx((high if preset.strong else low) / 2)


def test_suggestions_for_flux_are_the_small_models_answers_and_say_so():
    flux = [preset for preset in PRESETS if preset.kind.startswith("flux")]
    assert len(flux) == 4
    for preset in flux:
        settings = preset.settings()
        assert (settings.beta, settings.negative_tokens, settings.negative_scale) == (1, "words", 0)
        assert "small built-in model" in preset.note


def test_the_published_values_stand_as_published():
    published = {preset.name: preset.published for preset in PRESETS if preset.published}
    assert published["SD3.5 large turbo, quality"] == Published(3.3, 0.2)
    assert published["SD3.5 large turbo, strong"] == Published(3.8, 0.2)
    assert published["Flux schnell"] == Published((3.5, 6.0), 0.0, 8.0)
    assert published["Flux dev and Krea dev"] == Published(3.4, 0.2)


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("scenes", "scenes"),
        ("C:\\Bilder für mich\\scenes\\", "scenes"),
        ("stabilityai/stable-diffusion-3.5-large-turbo", "sd3.5-large-turbo"),
        ("sd3.5_large_turbo.safetensors", "sd3.5-large-turbo"),
        ("/home/me/scenes/sd3.5-large-turbo", "sd3.5-large-turbo"),
        ("/hub/stable-diffusion-3.5-large-turbo/snapshots/0f1e", "sd3.5-large-turbo"),
        ("black-forest-labs/FLUX.1-schnell", "flux-schnell"),
        ("flux1-dev-bnb-nf4-v2", "flux-dev"),
        ("black-forest-labs/FLUX.1-Krea-dev", "flux-dev"),
        ("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "wan2.1-causvid"),
        ("Wan2_1-T2V-14B_fp8_e4m3fn.safetensors", "wan2.1-causvid"),
        ("black-forest-labs/FLUX.2-dev", "unknown"),
        ("stabilityai/stable-diffusion-3.5-medium", "unknown"),
        ("sd_xl_base_1.0", "unknown"),
        ("", "unknown"),
    ],
)
def test_a_model_finds_its_preset_by_name(model, kind):
    assert preset_for(model).kind == kind
    assert not preset_for(model).strong
    assert preset_for(model, strong=True).kind == kind


def test_strong_means_strong_and_falls_back_to_the_ordinary_one():
    for kind in kinds():
        strong, ordinary = preset_for(kind, strong=True), preset_for(kind)
        if strong.strong:
            assert (strong.alpha, strong.beta) > (ordinary.alpha, ordinary.beta)
        else:
            assert strong is ordinary
    assert preset_for("scenes", strong=True).strong
    assert preset_for("wan2.1-causvid", strong=True).strong


def test_the_difference_has_an_alpha_of_its_own():
    for preset in PRESETS:
        settings = preset.settings("hat", method="difference")
        assert settings.alpha == preset.difference_alpha > preset.alpha
        assert (settings.beta, settings.negative_tokens) == (
            preset.beta, preset.settings().negative_tokens,
        )  # fmt: skip
        assert preset.settings(method="difference", alpha=1).alpha == 1
        assert preset.values_of(None) == preset.values_of("vsf") == dict(preset.values)


def test_an_unknown_model_gets_the_defaults():
    assert UNKNOWN.settings() == Settings()


def test_baselines_are_the_papers():
    assert baseline("nag").settings("x") == Settings(method="nag", negative_prompt="x")
    strong = baseline("nag-strong").settings()
    assert (strong.nag_phi, strong.nag_alpha, strong.nag_tau) == (11, 0.5, 5)
    assert 0.15 <= baseline("nasa").settings().nasa_alpha <= 0.5
    with pytest.raises(SettingsError, match=r"'nagg'.*nag-strong"):
        baseline("nagg")


@pytest.mark.parametrize(
    ("file", "model"),
    [("scenes-scenes", "scenes"), ("scenes-flux-schnell", "flux-schnell"), ("scenes-flux-dev", "flux-dev"),
     ("video-wan", "wan")],
)  # fmt: skip
def test_baselines_of_built_in_models_are_as_recorded(file, model):
    """Against the evidence's own file, whose values leave out defaults."""
    recorded = json.loads((EVIDENCE / f"{file}.json").read_text(encoding="utf-8"))
    methods = recorded["methods"]
    named = methods if isinstance(methods, dict) else {row["name"]: row for row in methods}
    rows = {name: named[name]["values"] for name in ("nag", "nasa") if name in named}
    assert set(rows) >= {"nag"}
    for method, told in rows.items():
        numbers = dict(re.findall(r"(N\w+ \w+) ([\d.]+)", told))
        expected = {
            item.name: float(numbers.get(item.label, item.default))
            for item in fields()
            if item.methods == {method}
        }
        found = preset_named(None, method, model)
        assert found.measured
        assert {name: value for name, value in found.values.items() if name != "method"} == expected
        assert strengths(model, method).items() >= expected.items()
        assert preset_named(method, None, model).values == found.values


def test_other_models_get_the_published_baselines():
    for model in ("models/wan", "Wan-AI/Wan2.1-T2V-1.3B", "FLUX.1-schnell", "nowhere", ""):
        for method in ("nag", "nasa"):
            assert preset_named(None, method, model) is BASELINES[method]
    assert preset_named("nag-strong", None, "wan") is BASELINES["nag-strong"]
    assert strengths("wan", "nag", strong=True)["nag_phi"] == 11


def test_given_values_win_and_presets_cannot_be_edited_by_accident():
    assert preset_for("scenes").settings("hat", alpha=3).alpha == 3
    with pytest.raises(SettingsError, match="nan"):
        preset_for("scenes").settings("hat", alpha=float("nan"))
    with pytest.raises(TypeError):
        preset_for("scenes").values["alpha"] = 9
