"""Settings: bounds, one-line errors, one source for every front end, and infotext that loses nothing."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest
from host_rules import HOSTS, through
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vsf_lib import infotext
from vsf_lib.errors import SettingsError
from vsf_lib.settings import GUIDING, Settings, field, fields

hosts = pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)

PIECES = (
    *"\"'\\,: \n\r\t[]{x\x00\x85\u2028\ufeffé🚗",
    *(
        '["',
        '"]',
        "64x64",
        "日本",
        "👩\u200d🚀",
        "Civitai",
        "FLUX",
        "CFG scale: 2",
        "Steps: 3, Seed: 4, Size: 1x1",
    ),
    *("Negative prompt:", "VSF negative prompt", "VSF alpha: 9", "null", "(wheels:1.4)", "\\n", "\\u0041"),
)
NASTY = st.lists(st.sampled_from(PIECES), max_size=8).map("".join)
TEXTS = (NASTY | st.text(st.characters(exclude_categories=["Cs"]))).map(str.strip)


def number(name: str) -> st.SearchStrategy[float]:
    return st.floats(field(name).low, field(name).high)


@st.composite
def any_settings(draw: st.DrawFn) -> Settings:
    values = {item.name: draw(number(item.name)) for item in fields() if item.kind is float}
    start, end = sorted((values["start"], values["end"]))
    values |= {"start": start, "end": end} if start < end else {"start": 0.25, "end": 0.5}
    # A strength of nothing is refused with the method that reads it.
    values |= {name: values[name] or 0.5 for name in ("alpha", "nag_phi", "nag_alpha", "nasa_alpha")}
    return Settings(
        method=draw(st.sampled_from(field("method").choices)),
        negative_prompt=draw(TEXTS),
        negative_tokens=draw(st.sampled_from(field("negative_tokens").choices)),
        **values,
    )


# Infotext


@given(any_settings())
def test_pairs_come_back_exactly(value):
    back = Settings.from_infotext(value.infotext())
    assert back == (None if value.method == "off" else value.canonical())


@hosts
@settings(max_examples=300)
@given(any_settings())
def test_pairs_survive_a_hosts_picture_and_paste(host, value):
    back = Settings.from_infotext(through(host, value.infotext()))
    assert back == (None if value.method == "off" else value.canonical())


@hosts
@settings(max_examples=500)
@given(TEXTS)
@example('"quoted"')
@example('"\\"twice\\""')
@example('["wrapped"]')
@example('["unfinished')
@example("[blurry]")
@example('"open, VSF alpha: 3')
@example("512x512")
@example("VSF negative prompt")
@example("Civitai, FLUX")
@example("\\(paren\\)")
@example("a\r\nb\u2028c\x00d")
def test_any_stripped_text_survives(host, text):
    value = Settings(negative_prompt=text)
    assert value.negative_prompt == text
    for carried in (value.infotext(), through(host, value.infotext())):
        assert Settings.from_infotext(carried) == value


@pytest.mark.skipif("forge" not in HOSTS, reason="VSF_FORGE_ROOT names no Forge")
@given(st.lists(NASTY).map(", ".join) | st.text())
def test_the_scanner_reads_as_a_real_forge_does(text):
    read, real = HOSTS["scanner"].paste(text), HOSTS["forge"].paste(text)
    assert read.items() <= real.items()
    assert HOSTS["scanner"].quote(text) == HOSTS["forge"].quote(text)


@pytest.mark.parametrize(
    "text", ["wheels", "red hat, blue hat", "a (b:1.2)", "[blurry]", "l'été", "🚗 wheels", 'a "b"']
)
def test_ordinary_texts_stay_readable(text):
    assert Settings(negative_prompt=text).infotext()["VSF negative prompt"] == text


def test_a_leading_quote_is_written_as_json():
    assert json.loads(str(Settings(negative_prompt='"hats", wheels').infotext()["VSF negative prompt"])) == [
        '"hats", wheels'
    ]


@given(TEXTS | st.text())
def test_our_own_line_brings_any_text_back(text):
    pairs = {"First key": infotext.encode(text, "First key"), "Other": infotext.encode(text, "Other"), "n": 1}
    line = infotext.write_pairs({"Steps": 3, **pairs})
    assert "\n" not in line
    assert line.encode("utf-8")
    read = infotext.read_pairs(line)
    assert [infotext.decode(read[key]) for key in ("First key", "Other")] == [text, text]


@hosts
@given(TEXTS | NASTY | st.just(""))
def test_any_text_under_any_name_survives_a_host(host, text):
    value = infotext.encode(text, "Our key")
    assert infotext.decode(through(host, {"Our key": value})["Our key"]) == text
    assert len(f"{value}.".replace("\n", "").splitlines()) == 1
    assert not set("\x00\t\r\x85\u2028\ufeff") & set(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_is_written_exactly(value):
    assert float(infotext.read_pairs(infotext.write_pairs({"VSF alpha": value}))["VSF alpha"]) == value


def test_infotext_holds_what_was_applied_and_leaves_defaults_out():
    assert Settings(negative_prompt="wheels").infotext() == {
        "VSF negative prompt": "wheels",
        "VSF alpha": field("alpha").default,
        "VSF beta": field("beta").default,
    }
    assert Settings(method="off", negative_prompt="wheels", alpha=3).infotext() == {}
    assert Settings(
        method="nag", negative_prompt="hat", alpha=9, nag_tau=5, nasa_alpha=0.5, end=0.5
    ).infotext() == {
        "VSF method": "nag",
        "VSF negative prompt": "hat",
        "VSF end": 0.5,
        "VSF NAG tau": 5.0,
    }
    assert Settings(
        method="difference", alpha=3, pooled_shift=0.1, negative_tokens="words", nag_phi=1
    ).infotext() == {
        "VSF method": "difference",
        "VSF alpha": 3.0,
        "VSF beta": field("beta").default,
        "VSF negative tokens": "words",
        "VSF pooled shift": 0.1,
    }
    assert Settings(method="nasa", nasa_alpha=0.5, nag_phi=1).infotext() == {
        "VSF method": "nasa",
        "VSF NASA alpha": 0.5,
    }
    assert Settings(negative_scale=8).infotext()["VSF negative scale"] == 8


def test_pairs_of_others_are_none_of_ours():
    assert Settings.from_infotext({}) is None
    assert (
        Settings.from_infotext({"Steps": "8", "Negative prompt": "x", "VSF prompt": "y", "VSF future": "1"})
        is None
    )
    assert Settings.from_infotext({"VSF alpha": "2", "VSF future": "1"}) == Settings(alpha=2)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ({"VSF alpha": "much"}, "alpha is 'much'"),
        ({"VSF alpha": "nan"}, "alpha is 'nan'"),
        ({"VSF method": "vfs"}, "method is 'vfs'"),
        ({"VSF start": "0.5", "VSF end": "0.5"}, "start"),
    ],
)
def test_an_unreadable_pair_is_named(pairs, message):
    with pytest.raises(SettingsError, match=message):
        Settings.from_infotext(pairs)


# Bounds and messages


@pytest.mark.parametrize("name", [item.name for item in fields() if item.kind is float])
@pytest.mark.parametrize(
    "bad", [math.nan, math.inf, -math.inf, -0.001, 100.001, 1e308, "nan", "inf", "", None, "3,5", []]
)
def test_numbers_out_of_bounds_are_refused_in_one_line(name, bad):
    for make in (
        Settings,
        Settings.create,
        Settings().changed,
        lambda **values: Settings.model_validate(values),
    ):
        with pytest.raises(SettingsError) as caught:
            make(**{name: bad})
        message = str(caught.value)
        assert "\n" not in message
        assert message.startswith(f"{name} is {bad!r}, but must be a number from ")
        assert (f"try {field(name).default:g}" in message) is not field(name).always


@pytest.mark.parametrize("name", ["alpha", "beta"])
def test_alpha_and_beta_go_beyond_their_sliders(name):
    for value in (0, 0.0, 5e-324, 99.99, 100, "100"):
        assert getattr(Settings(**{name: value}), name) == float(value)
    assert field(name).slider.maximum == {"alpha": 10, "beta": 2}[name]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"method": "VSF"}, "method is 'VSF', but must be one of vsf, difference, nag, nasa, off"),
        ({"alpah": 1}, "there is no setting 'alpah': did you mean alpha?"),
        ({"zzz": 1}, "there is no setting 'zzz': the settings are method, negative_prompt, alpha"),
        ({"start": 0.7, "end": 0.5}, "start is 0.7 and end is 0.5, but start must be below end"),
        ({"start": 1.0}, "start is 1 and end is 1"),
        ({"method": "nag", "nag_phi": 0}, "nag_phi is 0, with which nag guides nothing"),
        ({"method": "nag", "nag_alpha": 0}, "nag_alpha is 0, with which nag guides nothing"),
        ({"method": "difference", "alpha": 0}, "alpha is 0, with which difference guides nothing"),
        ({"method": "nasa", "nasa_alpha": 0}, "nasa_alpha is 0, with which nasa guides nothing"),
        ({"negative_prompt": None}, "negative_prompt is None, but must be text"),
        ({"negative_prompt": "half \ud83d"}, r"negative_prompt is 'half \ud83d', but must be valid Unicode"),
        ({"negative_prompt": ["a\n" * 90]}, "negative_prompt is ['a"),
        ({"alpha": "x\ny" * 99}, "alpha is 'x"),
    ],
)
def test_bad_values_give_one_line_that_says_what_to_do(values, message):
    with pytest.raises(SettingsError) as caught:
        Settings.create(**values)
    text = str(caught.value)
    assert text.startswith(message)
    assert len(text.splitlines()) == 1
    assert len(text) < 240
    text.encode("utf-8")


def test_settings_are_values():
    value = Settings(negative_prompt="  wheels \n", alpha="3.5")
    assert (value.negative_prompt, value.alpha) == ("wheels", 3.5)
    assert value.changed(beta=1) == Settings(negative_prompt="wheels", alpha=3.5, beta=1)
    assert hash(value) == hash(value.changed())
    assert Settings.model_validate_json(value.model_dump_json()) == value
    with pytest.raises(Exception, match="frozen"):
        value.alpha = 1.0
    with pytest.raises(SettingsError, match="alpha is -1"):
        value.changed(alpha=-1)


# Steps


@given(st.integers(1, 200), st.integers(0, 200), st.integers(0, 200))
def test_fractions_of_the_steps_hit_exactly_those_steps(total, first, last):
    first, last = sorted((min(first, total), min(last, total)))
    if first < last:
        assert Settings(start=first / total, end=last / total).guided_steps(total) == range(first, last)


@given(any_settings(), st.integers(0, 60))
def test_guided_steps_follow_their_definition(value, total):
    expected = [i for i in range(total) if value.start <= i / total < value.end and value.method != "off"]
    assert list(value.guided_steps(total)) == expected


# The one source

PUBLISHED = [
    ("method", "VSF method", "VSF method", "vsf"),
    ("negative_prompt", "VSF negative prompt", "VSF negative prompt", ""),
    ("alpha", "VSF alpha", "VSF alpha", 1.6),
    ("beta", "VSF beta", "VSF beta", 0.2),
    ("negative_scale", "VSF negative scale", "VSF negative scale", 0.0),
    ("start", "VSF start", "VSF start", 0.0),
    ("end", "VSF end", "VSF end", 1.0),
    ("nag_phi", "NAG phi", "VSF NAG phi", 4.0),
    ("nag_tau", "NAG tau", "VSF NAG tau", 2.5),
    ("nag_alpha", "NAG alpha", "VSF NAG alpha", 0.125),
    ("nasa_alpha", "NASA alpha", "VSF NASA alpha", 0.25),
    ("blocks", "VSF blocks", "VSF blocks", "both"),
    ("hires_pass", "VSF hires pass", "VSF hires pass", "both"),
    ("negative_tokens", "VSF negative tokens", "VSF negative tokens", "all"),
    ("pooled_shift", "VSF pooled shift", "VSF pooled shift", 0.0),
]


def test_fields_are_only_appended_and_never_renamed():
    now = [(item.name, item.label, item.infotext, item.default) for item in fields()]
    assert now[: len(PUBLISHED)] == PUBLISHED


def test_every_field_says_what_a_front_end_needs():
    assert [item.name for item in fields()] == list(Settings.model_fields)
    for attribute in ("name", "label", "infotext", "flag", "help"):
        values = [getattr(item, attribute) for item in fields()]
        assert len(set(values)) == len(values)
        assert all(values)
    for item in fields():
        assert item.default == getattr(Settings(), item.name)
        assert infotext.is_key(item.infotext)
        assert item.infotext.startswith("VSF ")
        assert item.methods <= GUIDING
        if item.kind is float:
            assert item.low <= item.slider.minimum < item.slider.maximum <= item.high
            assert item.slider.minimum <= item.default <= item.slider.maximum
            assert item.slider.step > 0
            if item.name not in ("start", "end"):
                for bound in (item.low, item.high):
                    assert getattr(Settings(**{item.name: bound}), item.name) == bound
    assert field("method").choices == ("vsf", "difference", "nag", "nasa", "off")
    with pytest.raises(SettingsError, match="'alfa'"):
        field("alfa")


def test_the_model_is_light_enough_for_a_host_to_import_at_start():
    code = "import sys, vsf_lib.settings, vsf_lib.presets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", [item.name for item in fields() if item.kind is float])
@pytest.mark.parametrize("value", [True, False])
def test_a_boolean_is_no_number(name, value):
    with pytest.raises(SettingsError, match=rf"^{name} is {value}, but must be a number from "):
        Settings.create(**{name: value})


def test_no_default_is_advised_where_presets_know_better():
    """The small models' alpha is about twice the default, at which nothing much is to be seen."""
    for name, advised in (("alpha", False), ("beta", False), ("start", True)):
        with pytest.raises(SettingsError) as told:
            Settings(**{name: -1})
        assert ("the default" in str(told.value)) is advised
