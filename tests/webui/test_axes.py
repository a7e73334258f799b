"""The axes of the X/Y/Z plot: their names, what a value does, and what is refused before a picture."""

from __future__ import annotations

import copy
import csv
import re
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import small_flux
import torch
from small_host import Host, Model, Processing, process_images, weighted

from vsf_lib.errors import SettingsError
from vsf_lib.presets import named, preset_for
from vsf_lib.settings import Settings, fields
from vsf_lib.webui import axes
from vsf_lib.webui.callbacks import Callbacks
from vsf_lib.webui.request import ARGUMENTS, AUTO, CUSTOM, HEATMAP, Checkpoint, preset_names, read

TURBO = Checkpoint("sd3.5_large_turbo.safetensors", "SD3.5")
SCHNELL = Checkpoint("some_merge.safetensors", "Flux")

# They stand in pictures' infotexts and are pasted back, so that they never change.
PUBLISHED = (
    "Preset", "Method", "Negative prompt", "Alpha", "Beta", "Negative scale", "Start", "End", "NAG phi",
    "NAG tau", "NAG alpha", "NASA alpha", "Blocks", "Hires pass", "Negative tokens",
)  # fmt: skip


class AxisOption:
    """The host's, in words of our own."""

    def __init__(self, label, type, apply, *, confirm=None, cost=0.0, choices=None, prepare=None):
        self.label, self.type, self.apply, self.confirm = label, type, apply, confirm
        self.cost, self.choices, self.prepare = cost, choices, prepare


class Plot:
    """The host's module, and its order of events: all values first, then a copy of the job per cell."""

    def __init__(self) -> None:
        self.AxisOption = AxisOption
        self.axis_options = [AxisOption("Nothing", str, lambda p, x, xs: None)]
        number = r"\s*([+-]?\s*\d+(?:.\d*)?)\s*"
        self.re_range_float = re.compile(rf"{number}-{number}(?:\(([+-]\d+(?:.\d*)?)\s*\))?\s*")
        self.re_range_count_float = re.compile(rf"{number}-{number}(?:\[(\d+(?:.\d*)?)\s*])?\s*")
        self.state = SimpleNamespace()

    def csv_string_to_list_strip(self, text: str) -> list[str]:
        return [value.strip() for row in csv.reader([text], skipinitialspace=True) for value in row]

    def option(self, label: str) -> Any:
        return next(option for option in self.axis_options if option.label == f"[VSF] {label}")

    def values(self, p: Any, label: str, given: str | list[Any]) -> list[Any]:
        option = self.option(label)
        if isinstance(given, str):
            given = (option.prepare or self.csv_string_to_list_strip)(given)
        values = [option.type(value) for value in given]
        option.confirm(p, values)
        return values

    def run(self, p: Any, x: tuple[str, Any], y: tuple[str, Any] | None = None) -> list[Any]:
        """What each cell's first picture is, row by row, with its infotext pairs."""
        asked = [x] if y is None else [x, y]
        wanted = [self.values(p, label, given) for label, given in asked]
        for letter, (label, _), values in zip("xy", asked, wanted, strict=False):
            info = SimpleNamespace(axis=self.option(label), values=values)
            setattr(self.state, f"xyz_plot_{letter}", info)
        cells = []
        for row in wanted[1] if y else [None]:
            for column in wanted[0]:
                cell = copy.copy(p)
                self.option(x[0]).apply(cell, column, wanted[0])
                if y:
                    self.option(y[0]).apply(cell, row, wanted[1])
                cells.append(process_images(cell)[0])
        return cells


@pytest.fixture
def plot(monkeypatch: pytest.MonkeyPatch) -> Plot:
    """A host with the plot among its scripts, after the extension was loaded."""
    made = Plot()
    scripts = SimpleNamespace(scripts_data=[SimpleNamespace(module=object()), SimpleNamespace(module=made)])
    shared = SimpleNamespace(state=made.state)
    monkeypatch.setitem(sys.modules, "modules", SimpleNamespace(scripts=scripts, shared=shared))
    axes.register()
    return made


@pytest.fixture
def model() -> Model:
    return Model(weighted(small_flux.SmallFlux()))


def panel(**values: Any) -> list[Any]:
    """What the panel sends: every value."""
    defaults = {
        "enabled": True,
        "preset": AUTO,
        HEATMAP: "off",
        **{field.name: field.default for field in fields()},
    }
    return [{**defaults, **values}[name] for name in ARGUMENTS]


def job(arguments: Any, model: Any = None, **values: Any) -> Processing:
    """A job as the plot gets it: among the arguments of others are ours."""
    script = SimpleNamespace(title=lambda: "VSF", args_from=2, args_to=2 + len(arguments))
    other = SimpleNamespace(title=lambda: "Seed", args_from=0, args_to=2)
    host = Host()
    return Processing(
        model,
        Callbacks(host),
        host,
        arguments=arguments,
        script_args=(0, True, *arguments),
        scripts=SimpleNamespace(alwayson_scripts=[other, script]),
        **values,
    )


def test_there_is_one_per_argument_but_the_switch(plot):
    labels = [option.label for option in plot.axis_options]
    assert labels[: 1 + len(PUBLISHED)] == ["Nothing", *(f"[VSF] {name}" for name in PUBLISHED)]
    assert len(labels) == 1 + len(ARGUMENTS) - 2, "the host has one; the switch is none, nor what is shown"
    assert {axis.name for axis in axes.axes()} == set(ARGUMENTS) - {"enabled", HEATMAP}
    assert plot.option("Preset").choices() == list(preset_names()), "what the panel offers"
    assert plot.option("Method").choices() == ["vsf", "difference", "nag", "nasa", "off"]
    assert plot.option("Alpha").choices is None
    costs = {option.label: option.cost for option in plot.axis_options}
    assert max(costs, key=costs.get) == "[VSF] Negative prompt", "it loads the text encoders"
    assert costs["[VSF] Negative prompt"] < 1, "a checkpoint costs more"


def test_a_reload_leaves_no_doubles(plot):
    before = [option.label for option in plot.axis_options]
    first = plot.option("Alpha")
    plot.axis_options.append(AxisOption("[Other] Alpha", float, lambda p, x, xs: None))
    axes.register()
    assert [option.label for option in plot.axis_options] == [*before, "[Other] Alpha"]
    assert plot.option("Alpha") is not first, "an earlier load's belong to code that is gone"


def test_a_host_without_the_plot(monkeypatch):
    scripts = SimpleNamespace(scripts_data=[SimpleNamespace(module=object())])
    monkeypatch.setitem(sys.modules, "modules", SimpleNamespace(scripts=scripts))
    axes.register()


@pytest.mark.parametrize(
    ("arguments", "checkpoint", "varied", "alpha", "beta", "scale"),
    [
        # A strength wins over any preset, which keeps the others.
        (panel(alpha=9.0, beta=0.5), SCHNELL, {"alpha": 3.0}, 3.0, 1.0, 0.0),
        ([{"alpha": 9.0}], SCHNELL, {"alpha": 3.0}, 3.0, 1.0, 0.0),
        (panel(preset=CUSTOM, alpha=9.0, beta=1.0), SCHNELL, {"beta": 0.5}, 9.0, 0.5, 0.0),
        (panel(), SCHNELL, {"alpha": 3.0, "preset": "Flux schnell, strong", "beta": 0.5}, 3.0, 0.5, 0.0),
        # A preset wins over the strengths that were given before.
        (panel(preset=CUSTOM, alpha=9.0, negative_scale=3.0), SCHNELL, {"preset": AUTO}, 2.0, 1.0, 0.0),
        ([{"alpha": 9.0, "beta": 0.5}], SCHNELL, {"preset": AUTO}, 2.0, 1.0, 0.0),
        ([{"alpha": 9.0}], TURBO, {"preset": "SD3.5 large turbo, strong"}, 1.9, 0.2, 0.0),
        # Custom leaves them as they are.
        (panel(alpha=9.0, beta=1.0, negative_scale=2.0), SCHNELL, {"preset": CUSTOM}, 9.0, 1.0, 2.0),
        ([{"alpha": 9.0}], SCHNELL, {"preset": CUSTOM}, 9.0, 0.2, 0.0),
    ],
)
def test_an_axis_is_a_hand_on_the_panel(arguments, checkpoint, varied, alpha, beta, scale):
    settings = read(arguments, checkpoint, axes=varied).settings
    assert (settings.alpha, settings.beta, settings.negative_scale) == (alpha, beta, scale)


def test_what_is_no_strength_is_taken_as_it_is():
    varied = {"negative_prompt": "roof", "start": 0.25, "end": 0.5, "method": "nag", "blocks": "double"}
    settings = read(panel(negative_prompt="wheels", alpha=9.0), SCHNELL, axes=varied).settings
    assert settings.canonical() == Settings.create(**varied)
    assert read(panel(), SCHNELL, axes={"method": "off"}) is None
    assert read(panel(enabled=False), SCHNELL, axes={"alpha": 3.0}) is None, "an axis does not switch on"
    with pytest.raises(SettingsError, match=r"blocks is double, but SD3\.5 has one kind"):
        read(panel(), TURBO, axes={"blocks": "double"})
    assert read(panel(), TURBO, axes={"blocks": "both"}) is not None


@pytest.mark.parametrize(
    ("label", "values", "says"),
    [
        ("Alpha", "1, -1", r"\[VSF\] Alpha: alpha is -1\.0, but must be a number from 0 to 100"),
        ("Beta", "nan", r"\[VSF\] Beta: beta is nan"),
        ("Alpha", "1, much", r"\[VSF\] Alpha is 'much', but must be a number"),
        ("Alpha", "1-2-3", r"\[VSF\] Alpha is '1-2-3'"),
        ("Alpha", "", r"\[VSF\] Alpha has no value"),
        ("End", "1.5", r"\[VSF\] End: end is 1\.5"),
        ("Start", "0, 1", r"\[VSF\] Start: start is 1 and end is 1, but start must be below end"),
        (
            "Method",
            ["vsf", "cfg"],
            r"\[VSF\] Method: method is 'cfg', but must be one of vsf",
        ),
        ("Blocks", ["single"], r"\[VSF\] Blocks: blocks is 'single'"),
        (
            "Preset",
            ["Auto", "Best"],
            r"\[VSF\] Preset: there is no preset 'Best': choose one of Auto",
        ),
        ("Preset", [], r"\[VSF\] Preset has no value"),
        ("NAG phi", "0", r"\[VSF\] NAG phi: nag_phi is 0, with which nag guides nothing"),
        ("Negative prompt", ["\ud800"], r"\[VSF\] Negative prompt: negative_prompt is"),
    ],
)
def test_a_bad_value_is_refused_before_the_first_cell(plot, label, values, says):
    with pytest.raises(SettingsError, match=says):
        plot.values(job(panel()), label, values)


@pytest.mark.parametrize(
    ("label", "values", "made"),
    [
        ("Alpha", "1, 2.5", [1.0, 2.5]),
        ("Negative prompt", 'wheels, "roof, door", ', ["wheels", "roof, door", ""]),
        ("Preset", list(preset_names()), list(preset_names())),
        ("NAG alpha", "0.5", [0.5]),
    ],
)
def test_good_values_are_taken(plot, label, values, made):
    assert plot.values(job(panel()), label, values) == made


def test_ranges_are_left_to_the_host(plot):
    for text in ("0-1 (+0.25)", "1 - 2 [3]", "1-3"):
        assert plot.option("Alpha").prepare(f"4, {text}") == ["4", text]


def test_a_value_is_the_one_that_is_written_beside_the_cell(plot):
    cell = job(panel())
    plot.option("Start").apply(cell, 0.1 + 0.2, [])
    assert axes.values_of(cell) == {"start": 0.3}


@pytest.mark.parametrize(
    "arguments", [panel(enabled=False), [{"enabled": False, "negative_prompt": "wheels"}], [False], []]
)
def test_an_axis_does_not_switch_on(plot, arguments):
    with pytest.raises(SettingsError, match=r"the axis \[VSF\] Alpha, but VSF is off: switch it on"):
        plot.values(job(arguments), "Alpha", "1, 2")


def test_any_request_that_is_on_will_do(plot):
    for arguments in (panel(), [True], [{"negative_prompt": "wheels"}], [{"enabled": True}]):
        assert plot.values(job(arguments), "Alpha", "1, 2") == [1.0, 2.0]


def test_an_axis_that_can_show_nothing_ends_the_plot(plot):
    with pytest.raises(
        SettingsError, match=r"Alpha, which does nothing with the method nag: choose difference or vsf"
    ):
        plot.run(job([{"method": "nag", "negative_prompt": "wheels"}]), ("Alpha", "1, 2"))
    with pytest.raises(SettingsError, match=r"phi, which does nothing with the method vsf: choose nag"):
        plot.run(job(panel()), ("NAG phi", "1, 2"))
    with pytest.raises(SettingsError, match=r"\[VSF\] Beta, which does nothing with the method off"):
        plot.run(job([{"method": "off"}]), ("Beta", "1, 2"))


def test_a_plot_is_single_generations(plot, model):
    base = {"negative_prompt": "wheels", "alpha": 2.0, "beta": 0.0}
    p = job([base], model, batch_size=1)
    cells = plot.run(p, ("Alpha", "1, 4"), ("Start", "0.5, 0"))
    wanted = [{**base, "alpha": alpha, "start": start} for start in (0.5, 0.0) for alpha in (1.0, 4.0)]
    for (picture, pairs), values in zip(cells, wanted, strict=True):
        alone, said = process_images(job([values], model, batch_size=1))[0]
        assert torch.equal(picture, alone)
        assert pairs == said, "a cell says nothing of the cells before it"
    assert len({tuple(picture.flatten().tolist()) for picture, _ in cells}) == 4
    assert not axes.values_of(p), "the job itself is as it was"


def test_a_copy_of_a_cell_keeps_its_values_to_itself():
    """Copies of a processing object share what it holds."""
    cell = SimpleNamespace()
    axes.put(cell, alpha=1.0)
    other = copy.copy(cell)
    axes.put(other, beta=2.0)
    assert axes.values_of(cell) == {"alpha": 1.0}
    assert axes.values_of(other) == {"alpha": 1.0, "beta": 2.0}


def test_an_unguided_cell_does_not_look_guided(plot, model):
    p = job([{"negative_prompt": "wheels", "alpha": 2.0}], model, batch_size=1)
    cells = plot.run(p, ("Method", ["vsf", "off", "nasa", "off"]), ("Alpha", "1, 3"))
    plain, _ = process_images(job([False], model, batch_size=1))[0]
    for i, (picture, pairs) in enumerate(cells):
        off = i % 4 in (1, 3)
        assert torch.equal(picture, plain) == off
        assert any(key.startswith("VSF") for key in pairs) != off
    assert torch.equal(cells[2][0], cells[6][0]), "NASA has no alpha of VSF's"


def test_presets_over_what_the_panel_holds(plot, model):
    p = job(panel(preset=CUSTOM, alpha=9.0, negative_prompt="wheels"), model, batch_size=1)
    cells = plot.run(p, ("Preset", [AUTO, "Flux schnell, strong", CUSTOM]))
    wanted = [preset_for("flux-schnell").alpha, named("Flux schnell, strong").alpha, 9.0]
    assert [pairs["VSF alpha"] for _, pairs in cells] == wanted
