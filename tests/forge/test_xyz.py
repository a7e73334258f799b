"""The axes `[VSF] ...` of the host's own X/Y/Z plot, through its API: no page is built."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pytest
from forge_client import Answer, Forge, ForgeError, same

from vsf_lib.webui.axes import axes
from vsf_lib.webui.request import preset_names

BASE = {"negative_prompt": "wheels", "alpha": 2.0, "beta": 0.0, "negative_scale": 0}
FLAGS = [False, True, False, False, False, False, False]
"""No legend, every cell as a picture of its own."""


@pytest.fixture(scope="session")
def places(forge: Forge) -> dict[str, int]:
    """Where each axis stands in the plot's list for txt2img, which is how the API names one."""
    labels = script_of(forge)["args"][0]["choices"]
    assert len(labels) == len(set(labels)), "the host asks for the list several times"
    return {label: i for i, label in enumerate(labels)}


def script_of(forge: Forge) -> Any:
    scripts = forge.request("/sdapi/v1/script-info")
    return next(s for s in scripts if s["name"] == "x/y/z plot" and not s["is_img2img"])


def axis(places: dict[str, int], label: str, values: str | list[str]) -> list[Any]:
    """Those with choices take a list, the others text."""
    return [places[label], values, []] if isinstance(values, str) else [places[label], "", values]


def plot(forge: Forge, title: str, vsf: Any, *wanted: list[Any], **more: Any) -> Answer:
    unused = [[0, "", []]] * (3 - len(wanted))
    arguments = [part for asked in (*wanted, *unused) for part in asked] + FLAGS
    sizes = len(script_of(forge)["args"]) - len(arguments) - 1  # margins, and rows in some hosts
    arguments += [0] * sizes + [False]
    return forge.txt2img(title, vsf, script_name="x/y/z plot", script_args=arguments, **more)


def cells(made: Answer, count: int) -> list[Answer]:
    return [
        Answer([picture], [text])
        for picture, text in zip(made.pictures[-count:], made.infotexts[-count:], strict=True)
    ]


def pairs(infotext: str) -> list[str]:
    """Ours, as they are written."""
    return [pair for pair in infotext.split("\n")[-1].split(", ") if pair.startswith("VSF")]


def test_every_setting_of_the_panel_is_an_axis(places: dict[str, int]) -> None:
    ours = [label for label in places if label.startswith("[VSF]")]
    assert ours == [item.label for item in axes()]
    assert {"[VSF] Alpha", "[VSF] Preset", "[VSF] Negative prompt", "[VSF] Blocks"} <= set(ours)


def test_a_page_offers_each_once_in_both_tabs(start: Callable[..., AbstractContextManager[Forge]]) -> None:
    with start(page=True) as host:
        offered = [
            [label for label, _ in component["props"]["choices"] if label.startswith("[VSF]")]
            for component in host.request("/config")["components"]
            if component["props"].get("label") == "X type"
        ]
    assert offered == [[item.label for item in axes()]] * 2


@pytest.mark.parametrize("kind", ["turbo", "schnell"])
def test_a_grid_of_alpha_and_beta(forge: Forge, model: Any, places: dict[str, int], kind: str) -> None:
    title, off = model(kind), forge.txt2img(model(kind))
    made = plot(
        forge, title, BASE, axis(places, "[VSF] Alpha", "1-4 [2]"), axis(places, "[VSF] Beta", "0, 0.5")
    )
    values = [{"alpha": alpha, "beta": beta} for beta in (0.0, 0.5) for alpha in (1.0, 4.0)]
    for cell, varied in zip(cells(made, 4), values, strict=True):
        alone = forge.txt2img(title, {**BASE, **varied})
        assert same(cell, alone), varied
        assert pairs(cell.infotexts[0]) == pairs(alone.infotexts[0])
        assert f"VSF alpha: {varied['alpha']}, VSF beta: {varied['beta']}" in cell.infotexts[0]
    assert len({picture.tobytes() for picture in made.pictures[-4:]}) == 4
    grid = made.infotexts[0]
    assert "X Type: [VSF] Alpha, X Values: 1-4 [2], Y Type: [VSF] Beta" in grid
    assert same(forge.txt2img(title), off), "nothing of the plot is left"


def test_negative_prompts_and_methods(forge: Forge, model: Any, places: dict[str, int]) -> None:
    texts, methods = ["wheels", "roof, door"], ["vsf", "off", "nag"]
    made = plot(
        forge,
        model("schnell"),
        BASE,
        axis(places, "[VSF] Method", methods),
        axis(places, "[VSF] Negative prompt", 'wheels, "roof, door"'),
    )
    wanted = [
        None if method == "off" else {**BASE, "method": method, "negative_prompt": text}
        for text in texts
        for method in methods
    ]
    for cell, vsf in zip(cells(made, 6), wanted, strict=True):
        alone = forge.txt2img(model("schnell"), vsf)
        assert same(cell, alone), vsf
        assert pairs(cell.infotexts[0]) == pairs(alone.infotexts[0]), vsf
    assert "VSF" not in made.infotexts[-5]


def test_presets_and_what_else_there_is(forge: Forge, model: Any, places: dict[str, int]) -> None:
    title = model("dev")
    for label, values, name, base in (
        ("[VSF] Preset", ["Auto", "Flux schnell, strong", "Custom"], "preset", {"negative_prompt": "wheels"}),
        ("[VSF] Start", "0, 0.4", "start", BASE),
        ("[VSF] End", "1, 0.6", "end", BASE),
        ("[VSF] Blocks", ["both", "double"], "blocks", BASE),
        ("[VSF] Negative scale", "0, 8", "negative_scale", BASE),
        ("[VSF] Negative tokens", ["all", "words"], "negative_tokens", BASE),
    ):
        each = values if isinstance(values, list) else [float(value) for value in values.split(", ")]
        made = plot(forge, title, base, axis(places, label, values))
        for cell, value in zip(cells(made, len(each)), each, strict=True):
            alone = forge.txt2img(title, {**base, name: value})
            assert same(cell, alone), (label, value)
            assert pairs(cell.infotexts[0]) == pairs(alone.infotexts[0]), (label, value)
        assert len({picture.tobytes() for picture in made.pictures[-len(each) :]}) == len(each), label


def test_a_panel_in_positions(forge: Forge, model: Any, places: dict[str, int]) -> None:
    """A strength wins over the preset of a panel, which keeps the others."""
    panel = [True, "Auto", "vsf", "wheels"]
    made = plot(forge, model("schnell"), panel, axis(places, "[VSF] Alpha", "3, 5"))
    for cell, alpha in zip(cells(made, 2), (3.0, 5.0), strict=True):
        alone = forge.txt2img(model("schnell"), {"negative_prompt": "wheels", "alpha": alpha})
        assert same(cell, alone)
        assert "VSF negative tokens: words" in cell.infotexts[0]


@pytest.mark.parametrize(
    ("vsf", "label", "values", "says"),
    [
        (BASE, "[VSF] Alpha", "1, -1", "[VSF] Alpha: alpha is -1.0, but must be a number from 0 to 100"),
        (BASE, "[VSF] Alpha", "1, much", "[VSF] Alpha is 'much', but must be a number"),
        (BASE, "[VSF] End", "nan", "[VSF] End: end is nan"),
        (BASE, "[VSF] Preset", ["Best"], "[VSF] Preset: there is no preset 'Best'"),
        (BASE, "[VSF] Method", ["cfg"], "[VSF] Method: method is 'cfg', but must be one of vsf"),
        (BASE, "[VSF] Beta", "", "[VSF] Beta has no value"),
        (BASE, "[VSF] NAG phi", "4, 8", "[VSF] NAG phi, which does nothing with the method vsf"),
        ({**BASE, "enabled": False}, "[VSF] Alpha", "1, 2", "[VSF] Alpha, but VSF is off: switch it on"),
        (None, "[VSF] Preset", list(preset_names()[:2]), "[VSF] Preset, but VSF is off: switch it on"),
    ],
)
def test_what_cannot_be_plotted_ends_with_the_reason(
    forge: Forge, model: Any, places: dict[str, int], vsf: Any, label: str, values: Any, says: str
) -> None:
    with pytest.raises(ForgeError) as error:
        plot(forge, model("turbo"), vsf, axis(places, label, values))
    assert says in str(error.value)


def test_off_stays_off(forge: Forge, model: Any, places: dict[str, int]) -> None:
    off = {**BASE, "enabled": False}
    made = plot(forge, model("turbo"), off, axis(places, "Steps", "3, 5"))
    for cell, steps in zip(cells(made, 2), (3, 5), strict=True):
        alone = forge.txt2img(model("turbo"), steps=steps)
        assert same(cell, alone)
        assert "VSF" not in cell.infotexts[0]
    assert np.array_equal(made.pictures[-2], forge.txt2img(model("turbo"), off).pictures[0])
