"""What "Send to" puts into the panel, and what programs are told of the settings."""

from __future__ import annotations

import subprocess
import sys

import pytest

from vsf_lib.presets import named as preset_of
from vsf_lib.settings import Settings, fields
from vsf_lib.webui.paste import READERS
from vsf_lib.webui.request import ARGUMENTS, CUSTOM, HEATMAP, Checkpoint, preset_names, read


def pasted(pairs):
    return {name: reader(pairs) for name, reader in READERS.items()}


@pytest.mark.parametrize(
    "settings",
    [
        Settings(negative_prompt="wheels, big: roof", alpha=2.5, beta=0.0, start=0.25, hires_pass="second"),
        Settings(method="nag", negative_prompt="1024x768", nag_phi=7.0, blocks="double"),
        Settings(negative_prompt=""),
    ],
    ids=str,
)
def test_a_picture_brings_the_panel_back(settings):
    widgets = pasted({"Steps": "8", **{key: str(value) for key, value in settings.infotext().items()}})
    assert widgets.pop("enabled") is True
    assert widgets["preset"] == CUSTOM
    sent = [True, *({HEATMAP: "picture", **widgets}[name] for name in ARGUMENTS[1:])]
    request = read(sent, Checkpoint("x", "Flux"))
    assert request.settings == settings.canonical()
    assert request.heatmap == "picture", "no picture says what is shown beside it"


def test_a_picture_without_it_switches_off_and_leaves_the_rest():
    widgets = pasted({"Steps": "8", "Sampler": "Euler"})
    assert widgets.pop("enabled") is False
    assert set(widgets.values()) == {None}


def test_values_that_cannot_be_read_are_not_half_restored(caplog):
    widgets = pasted({"VSF alpha": "much", "VSF beta": "0.2"})
    assert widgets.pop("enabled") is False
    assert set(widgets.values()) == {None}
    assert caplog.text.count("alpha is 'much'") == 1, "said once, though every field reads it"


def test_programs_are_told_every_argument_and_preset():
    from vsf_lib.webui.routes import presets, schema

    told = schema()["arguments"]
    assert tuple(entry["name"] for entry in told) == ARGUMENTS
    for field in fields():
        if field.pipeline:
            continue
        entry = next(entry for entry in told if entry["name"] == field.name)
        assert entry["default"] == field.default
        assert entry.get("minimum") == field.low
        assert entry.get("maximum") == field.high
        assert entry.get("choices", []) == list(field.choices)
        assert entry["type"] == {float: "number", str: "string"}[field.kind]
        assert (entry["infotext"], entry["help"]) == (field.infotext, field.help)
    assert (told[0]["name"], told[0]["default"]) == ("enabled", False)
    for entry in presets()["presets"]:
        wanted = preset_of(entry["name"]).settings()
        assert entry["values"] == {
            name: getattr(wanted, name) for name in ("alpha", "beta", "negative_scale", "negative_tokens")
        }
    assert [entry["name"] for entry in presets()["presets"]] == list(preset_names()[1:-1])


def test_the_scripts_part_loads_nothing_heavy():
    """The host has torch and pydantic; diffusers and transformers would cost every start seconds."""
    code = (
        "import sys; import vsf_lib.webui.callbacks, vsf_lib.webui.paste, vsf_lib.webui.routes; "
        "print([name for name in ('diffusers', 'transformers', 'gradio', 'PIL', 'numpy.testing') "
        "if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
