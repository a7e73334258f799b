"""Sweeps: how they are written, counted without float noise, and refused before anything is drawn."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vsf_lib.errors import SettingsError
from vsf_lib.settings import Settings, fields
from vsf_lib.sweep import MOST, Sweep, number, sweepable

DECIMALS = st.integers(-(10**6), 10**6).flatmap(
    lambda whole: st.integers(0, 6).map(lambda places: Fraction(whole, 10**places))
)
STEPS = DECIMALS.map(abs).filter(bool)


def written(value: Fraction) -> str:
    """A decimal as a person might write it, from its digits alone."""
    digits, places = abs(value.numerator), 0
    denominator = value.denominator
    while denominator != 1:
        digits, places = digits * 10, places + 1
        common = Fraction(digits, denominator)
        digits, denominator = common.numerator, common.denominator
    text = str(digits).rjust(places + 1, "0")
    text = f"{text[:-places]}.{text[-places:]}" if places else text
    return f"-{text}" if value < 0 else text


def counted(low: Fraction, high: Fraction, step: Fraction) -> list[Fraction]:
    """The values of a range, one after the other in exact fractions."""
    values, sign = [low], 1 if low <= high else -1
    while abs(values[-1] + sign * step - low) <= abs(high - low) and len(values) <= MOST:
        values.append(values[-1] + sign * step)
    return values


@given(DECIMALS, DECIMALS, STEPS)
@example(Fraction(0), Fraction(1), Fraction(1, 10))
@example(Fraction(0), Fraction(1), Fraction(3, 10))
@example(Fraction(8), Fraction(0), Fraction(1, 2))
@example(Fraction(2), Fraction(2), Fraction(1))
def test_ranges_are_counted_exactly(low, high, step):
    text = f"beta={written(low)}:{written(high)}:{written(step)}"
    expected = counted(low, high, step)
    if len(expected) > MOST:
        with pytest.raises(SettingsError, match=f"at most {MOST}"):
            Sweep.parse(text)
        return
    sweep = Sweep.parse(text)
    assert sweep.values == tuple(float(value) for value in expected), "the floats nearest to the exact values"
    assert [number(value) for value in sweep.values] == [written(value) for value in expected]


PARTS = DECIMALS.map(written) | st.builds(
    lambda low, count: f"{written(low)}:{written(low + count)}:1", DECIMALS, st.integers(1, 9)
)


@given(st.sampled_from(sweepable()), st.lists(PARTS, min_size=1, max_size=9))
def test_the_short_form_means_the_same(name, parts):
    spaced = f" {name.replace('_', '-')} = {' , '.join(parts)} "
    sweep = Sweep.parse(spaced)
    assert sweep.name == name
    assert Sweep.parse(sweep.text) == sweep
    assert " " not in sweep.text
    assert sweep.text == f"{name}={','.join(parts)}"


def test_tenths_are_tenths():
    sweep = Sweep.parse("alpha=0:1:0.1")
    assert sweep.values == (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    assert [sweep.label(value) for value in sweep.values[2:5]] == ["alpha 0.2", "alpha 0.3", "alpha 0.4"]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("alpha=0:1:0.3", (0, 0.3, 0.6, 0.9)),
        ("alpha=1:0:0.3", (1, 0.7, 0.4, 0.1)),
        ("alpha=3", (3,)),
        ("alpha=2:2:1", (2,)),
        ("alpha=0,1,2", (0, 1, 2)),
        ("alpha=2,0,2", (2, 0, 2)),
        ("--alpha=0:1:0.5,4,8", (0, 0.5, 1, 4, 8)),
        ("alpha=.50,+1.", (0.5, 1)),
    ],
)
def test_what_may_be_written(text, values):
    assert Sweep.parse(text).values == values


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "must be like alpha=0:8:0.5"),
        ("alpha", "must be like alpha=0:8:0.5"),
        ("alpha=", "must be like"),
        ("=1", "must be like"),
        ("alhpa=1", "did you mean alpha?"),
        ("method=vsf", "is no number"),
        ("negative_tokens=1", "choose one of alpha, beta, negative_scale, start, end, nag_phi"),
        ("alpha=1,", "has ''"),
        ("alpha=0:8", "not LOW:HIGH:STEP"),
        ("alpha=0:8:1:2", "not LOW:HIGH:STEP"),
        ("alpha=0:8:0", "step of 0"),
        ("alpha=8:0:-1", "a range from high to low goes down"),
        ("alpha=nan", "'nan'"),
        ("alpha=0:inf:1", "'inf'"),
        ("alpha=1e9", "'1e9'"),
        ("alpha=1_0", "'1_0'"),
        ("alpha=٣", "'٣'"),
        ("alpha=" + "9" * 5000, "no plain number"),
        ("alpha=0:100:0.000000000001", "has 100000000000001 values, but at most 200"),
        ("alpha=0:199:1,7", "has 201 values"),
    ],
)
def test_refused(text, says):
    with pytest.raises(SettingsError) as caught:
        Sweep.parse(text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_numeric_field_is_swept_for_the_methods_that_read_it():
    for field in fields():
        if field.kind is not float:
            continue
        sweep = Sweep.parse(f"{field.name}={field.slider.maximum:g}")
        for method in ("vsf", "nag", "nasa"):
            base = Settings(method=method, negative_prompt="wheels")
            if method in field.methods and field.name != "start":
                (settings,) = sweep.settings(base)
                assert settings == base.changed(**{field.name: field.slider.maximum})
            elif field.name != "start":
                with pytest.raises(SettingsError, match=f"method {method} does not read"):
                    sweep.settings(base)


@pytest.mark.parametrize(
    ("text", "base", "says"),
    [
        (
            "alpha=0:101:1",
            Settings(),
            "alpha=0:101:1 at 101: alpha is 101.0, but must be a number from 0 to 100",
        ),
        ("alpha=-1,0", Settings(), "at -1: alpha is -1.0"),
        ("start=0:1:0.5", Settings(end=0.5), "at 0.5: start is 0.5 and end is 0.5, but start must be below"),
        ("end=1,0.2", Settings(start=0.3), "end=1,0.2 at 0.2: start is 0.3"),
        ("nag_phi=0:4:1", Settings(method="nag"), "at 0: nag_phi is 0, with which nag guides nothing"),
        ("alpha=1", Settings(method="off"), "choose another method"),
    ],
)
def test_values_that_are_no_guidance_are_named(text, base, says):
    with pytest.raises(SettingsError) as caught:
        Sweep.parse(text).settings(base)
    assert says in str(caught.value)


def test_nothing_heavy_is_imported():
    code = "import sys, vsf_lib.sweep; print(*{'torch', 'numpy', 'PIL', 'vsf_lib.cli'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
