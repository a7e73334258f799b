"""What a generation asks for: positions, the one dictionary, presets by model, and whose negative prompt."""

from __future__ import annotations

import pytest

from vsf_lib.errors import SettingsError
from vsf_lib.presets import PRESETS, preset_for
from vsf_lib.settings import Settings, fields
from vsf_lib.webui import request
from vsf_lib.webui.options import Options
from vsf_lib.webui.request import ARGUMENTS, AUTO, CUSTOM, HEATMAP, Checkpoint, preset_names, read

TURBO = Checkpoint("sd3.5_large_turbo.safetensors [1234]", "SD3.5")
MEDIUM = Checkpoint("sd3.5_medium.safetensors", "SD3.5")
DEV = Checkpoint("some_merge.safetensors", "Flux", guidance_embedding=True)
SCHNELL = Checkpoint("another_merge.gguf", "Flux")

# Positions are an interface: whoever sends a list today must be understood tomorrow.
PUBLISHED = (
    "enabled", "preset", "method", "negative_prompt", "alpha", "beta", "negative_scale", "start", "end",
    "nag_phi", "nag_tau", "nag_alpha", "nasa_alpha", "blocks", "hires_pass", "negative_tokens", "heatmap",
)  # fmt: skip


def test_positions_are_only_ever_appended():
    assert ARGUMENTS[: len(PUBLISHED)] == PUBLISHED


def panel(**values):
    """What the panel sends: every value."""
    defaults = {
        "enabled": True,
        "preset": AUTO,
        HEATMAP: "off",
        **{field.name: field.default for field in fields()},
    }
    return [{**defaults, **values}[name] for name in ARGUMENTS]


@pytest.mark.parametrize(
    ("checkpoint", "kind"),
    [
        (TURBO, "sd3.5-large-turbo"),
        (MEDIUM, "sd3.5-large-turbo"),
        (DEV, "flux-dev"),
        (SCHNELL, "flux-schnell"),
    ],
)
def test_auto_is_resolved_by_the_model(checkpoint, kind):
    wanted = preset_for(kind).settings()
    got = read(panel(negative_prompt="wheels", alpha=9.0, beta=1.0, start=0.25), checkpoint).settings
    assert (got.alpha, got.beta, got.negative_scale) == (wanted.alpha, wanted.beta, wanted.negative_scale)
    assert got.start == 0.25, "a preset decides strengths only"


def test_a_preset_decides_which_tokens_act():
    for checkpoint, tokens in ((SCHNELL, "words"), (DEV, "words"), (TURBO, "all")):
        other = "all" if tokens == "words" else "words"
        assert read(panel(negative_tokens=other), checkpoint).settings.negative_tokens == tokens
        assert read(panel(negative_tokens=other, preset=CUSTOM), checkpoint).settings.negative_tokens == other
        assert read([{"negative_tokens": other}], checkpoint).settings.negative_tokens == other
        assert read([{}], checkpoint).settings.negative_tokens == tokens


def test_a_named_preset_and_custom():
    strong = preset_for("sd3.5-large-turbo", strong=True)
    assert read(panel(preset=strong.name, alpha=9.0), TURBO).settings.alpha == strong.alpha
    assert read(panel(preset=CUSTOM, alpha=9.0), TURBO).settings.alpha == 9.0
    with pytest.raises(SettingsError, match="there is no preset 'Best'"):
        read(panel(preset="Best"), TURBO)


def test_in_a_dictionary_what_is_given_wins():
    got = read([{"enabled": True, "negative_prompt": "wheels", "alpha": 3.3}], SCHNELL).settings
    assert got.alpha == 3.3
    assert got.negative_scale == preset_for("flux-schnell").settings().negative_scale
    assert read([{"negative_prompt": "wheels"}], TURBO) is not None, "who sends settings wants them"
    behind = read([{"negative_prompt": "wheels", "alpha": 3.3}, *panel(alpha=9.0)[1:]], TURBO).settings
    assert behind.alpha == 3.3, "the host fills the list up with its panel's values"
    assert read([{"enabled": False, "alpha": 3.3}], TURBO) is None


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([{"alfa": 1}], "no argument 'alfa'"),
        ([{"negative_prompt": "wheels"}, {"alpha": 2}], "one dictionary"),
        ([{"alpha": float("nan")}], "alpha is nan"),
        ([{"alpha": "much"}], "alpha is 'much'"),
        ([{"enabled": "yes"}], "enabled is 'yes'"),
        (["on"], "enabled is 'on'"),
        ([{"heatmap": True}], "heatmap is True"),
        ([{"heatmap": ["picture"]}], "heatmap is"),
        ([True, "Custom", "vsf", "wheels", -1], "alpha is -1"),
        ([True] * 40, "not more"),
    ],
)
def test_bad_arguments_get_one_line(arguments, says):
    with pytest.raises(SettingsError, match=says) as caught:
        read(arguments, TURBO)
    assert "\n" not in str(caught.value)


def test_a_short_list_and_an_empty_one():
    assert read([], TURBO) is None
    assert read([False], TURBO) is None
    assert read([True, CUSTOM, "vsf", "wheels"], TURBO).settings == Settings(negative_prompt="wheels")
    assert read(panel(method="off"), TURBO) is None


def test_the_panels_text_goes_to_all_pictures_else_the_webuis_own_to_each():
    own = read(panel(negative_prompt="wheels"), TURBO)
    assert own.negatives(["roof", ""]) == ("wheels", "wheels")
    host = read(panel(), TURBO)
    assert host.negatives([" roof ", "sail"]) == ("roof", "sail")
    assert host.negatives(["", " "]) is None
    with pytest.raises(SettingsError, match="picture 2 of this batch"):
        host.negatives(["roof", ""])


def test_offered_presets_are_those_of_the_models_that_webuis_load():
    names = preset_names()
    assert names[0] == AUTO
    assert names[-1] == CUSTOM
    assert {preset.name for preset in PRESETS if "flux" in preset.kind} < set(names)
    assert not any("Scenes" in name for name in names)
    for name in names[1:-1]:
        assert read(panel(preset=name, negative_prompt="x"), TURBO) is not None


def test_the_small_models_presets_are_offered_by_no_webui(monkeypatch):
    monkeypatch.setattr(request, "titles", lambda: ("SD3.5", "Flux", "Wan"))
    real = {preset.name for preset in PRESETS if preset.kind not in ("scenes", "wan")}
    assert set(preset_names()) == {AUTO, CUSTOM, *real}


def test_the_settings_section_says_what_auto_takes_and_what_is_left_unsaid():
    options = Options(strong_presets=True, hires_pass="first")
    strong = preset_for("flux-schnell", strong=True)
    asked = read([{"negative_prompt": "wheels"}], SCHNELL, options).settings
    assert (asked.alpha, asked.hires_pass) == (strong.alpha, "first")
    said = read([{"negative_prompt": "wheels", "hires_pass": "both"}], SCHNELL, options).settings
    assert said.hires_pass == "both"
    whole = read(panel(negative_prompt="wheels"), SCHNELL, options).settings
    assert (whole.alpha, whole.hires_pass) == (strong.alpha, "both"), "the panel says everything"


def test_a_preset_has_strengths_for_the_difference():
    wanted = preset_for("flux-schnell").difference_alpha
    for arguments in (panel(method="difference"), [{"method": "difference"}]):
        assert read(arguments, SCHNELL).settings.alpha == wanted


def test_a_heat_map_is_asked_for_beside_the_settings():
    for asked in ("off", "picture", "each step"):
        for arguments in (panel(heatmap=asked), [{"heatmap": asked}]):
            request = read(arguments, TURBO)
            assert request.heatmap == asked
            assert request.settings == read(panel(), TURBO).settings
            assert not any("map" in key for key in request.settings.infotext())
    assert read([{}], TURBO).heatmap == "off"


def test_a_method_of_another_type_is_refused():
    for method in (["vsf"], {"vsf": 1}, 7):
        with pytest.raises(SettingsError, match="method is"):
            read([{"method": method}], SCHNELL)


def test_a_preset_is_of_the_method_vsf():
    for arguments in (panel(method="nag"), [{"method": "nasa"}]):
        assert read(arguments, SCHNELL).settings.negative_tokens == "all"
        assert read(arguments, SCHNELL).settings.negative_scale == 0
