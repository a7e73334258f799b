"""`--curves` with an untrained model: which lines there are, their numbers, the text, the plot."""

from __future__ import annotations

import importlib.util
import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vsf_lib.attention import ablations
from vsf_lib.bench import curves, figure, forms
from vsf_lib.bench.bootstrap import Bootstrap
from vsf_lib.bench.drawing import draw, outcomes
from vsf_lib.bench.lines import BETAS, TOKENS, alphas, curve_lines
from vsf_lib.bench.pairs import make_pairs
from vsf_lib.bench.scenes import add_arguments, run
from vsf_lib.bench.tracing import Curve, Line, Measure
from vsf_lib.errors import OutputError, SettingsError
from vsf_lib.presets import BASELINES, preset_for
from vsf_lib.scenes.judge import Judge

LIKE = preset_for("scenes").settings()
LINES = curve_lines(LIKE)


def test_every_method_variant_and_ablation_has_a_line() -> None:
    by_group = {group: [line for line in LINES if line.group == group] for group in {x.group for x in LINES}}
    assert len({line.name for line in LINES}) == len(LINES)
    assert [line.name for line in by_group["variant"]] == [form.name for form in forms.VARIANTS]
    assert len(by_group["vsf"]) == len(TOKENS) * len(BETAS)
    made = [line.method(1.0) for line in by_group["ablation"]]
    functions = {method.form.attention for method in made if method.form is not None}
    assert functions == {value for value in vars(ablations).values() if isinstance(value, ablations.Ablation)}
    assert made[0].form is None  # no bias is VSF at beta 0
    assert {method.settings.beta for method in made} == {0.0}
    assert {method.settings.negative_tokens for method in made} == {"all"}
    drawn = {line.method(line.strengths[0]).settings.method for line in by_group["baseline"]}
    assert drawn == {"nag", "nasa", "off"}


def test_lines_sweep_what_they_say() -> None:
    for line in LINES:
        assert list(line.strengths) == sorted(set(line.strengths))
        weak, strong = (line.method(s) for s in (line.strengths[0], line.strengths[-1]))
        assert (weak == strong) == (not line.knob)
        if line.knob == "alpha" and line.group != "baseline":
            assert weak.settings.changed(alpha=1.0) == strong.settings.changed(alpha=1.0)
            assert weak.settings.alpha == line.strengths[0]
            assert f"beta {weak.settings.beta:g}" in line.held
            assert line.strengths == alphas(weak.settings.beta)
        if line.beside:
            assert line.beside in [other.name for other in LINES]


def test_the_papers_own_values_lie_on_the_baselines_lines() -> None:
    drawn = [line.method(s).settings for line in LINES for s in line.strengths]
    for preset in BASELINES.values():
        assert preset.settings() in drawn, preset.name


def test_a_pair_is_judged_over_its_seeds(untrained: Any) -> None:
    pairs, judge = make_pairs(3), Judge.load()
    method = LINES[1].method(1.0)
    measure = Measure(untrained, judge, pairs, seeds=(1, 2), steps=1)
    pictures = draw(untrained, pairs, method, seeds=(1, 2), steps=1)
    wanted = outcomes(judge, pairs, pictures)
    assert wanted.shape == (2, 3, 3)
    np.testing.assert_array_equal(measure(method), wanted.mean(0))
    for index, verdict in enumerate(judge(pictures)):
        pair = pairs[index % 3]
        seen = (pair.positive(verdict), pair.negative(verdict), verdict.clean)
        np.testing.assert_array_equal(wanted[index // 3, index % 3], np.array(seen, dtype=float))
    measure._pipe = None  # what is known is not drawn again
    np.testing.assert_array_equal(measure(method), wanted.mean(0))


def test_numbers_of_a_line() -> None:
    """Of ten pairs at three strengths, by hand."""
    kept, gone = np.array([10, 9, 5]), np.array([1, 4, 9])
    table = np.zeros((3, 10, 3))
    for i in range(3):
        table[i, : kept[i], 0] = 1
        table[i, : gone[i], 1] = 1
    table[..., 2] = 1
    line = Line("x", "vsf", "alpha", (1.0, 2.0, 4.0), lambda s: LINES[1].method(s), "beta 1")
    found = curves.as_json(Curve(line, np.array([1.0, 2.0, 4.0]), table), Bootstrap(10))
    assert [point["positive"][0] for point in found["points"]] == [1.0, 0.9, 0.5]
    assert [point["quality"] for point in found["points"]] == [[1.0, 1.0, 1.0]] * 3
    low, high = found["points"][1]["negative"][1:]
    assert 0.05 < low < 0.25
    assert 0.6 < high < 0.8
    assert found["best"]["negative"][0] == pytest.approx(0.4)
    assert found["best"]["strength"] == 2.0


def call(*words: str) -> int:
    parser = ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args(words))


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="matplotlib draws the plot")
def test_command_writes_numbers_and_plot(
    untrained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With two alphas in place of five."""
    monkeypatch.setattr("vsf_lib.bench.lines.ALPHAS", (0.5, 2.0))
    lines = curve_lines(LIKE)
    untrained.save_pretrained(tmp_path / "model")
    file, plot = tmp_path / "deep" / "curves.json", tmp_path / "new" / "curves.png"
    words = ("--curves", "--quick", "--pairs", "1", "--steps", "1", "--model", str(tmp_path / "model"))
    assert call(*words, "--json", str(file), "--plot", str(plot)) == 0
    result = json.loads(file.read_text("utf-8"))
    assert (result["pairs"], result["seeds"], result["steps"]) == (1, 1, 1)
    assert {"torch", "diffusers"} <= set(result["versions"])
    assert [line["name"] for line in result["lines"]] == [line.name for line in LINES]
    for line, asked in zip(result["lines"], lines, strict=True):
        assert [point["strength"] for point in line["points"]] == list(asked.strengths)
        for point in line["points"]:
            for share in ("positive", "negative", "quality"):
                value, low, high = point[share]
                assert 0 <= low <= value <= high <= 1
    out = capsys.readouterr().out
    for line in LINES:
        assert out.count(line.name) >= 2, line.name
    assert "most removal at positive >= 0.90" in out
    assert out.rstrip().endswith(str(plot))
    with Image.open(plot) as image:
        assert image.width > 1000
        pixels = np.asarray(image.convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20


def some_result() -> dict[str, Any]:
    def point(x: float, y: float) -> dict[str, Any]:
        return {"positive": [x, x - 0.1, x + 0.1], "negative": [y, y - 0.1, y + 0.1], "quality": [x, x, x]}

    line = {"group": "vsf", "beside": "", "points": [point(0.9, 0.2), point(0.5, 0.5), point(0.2, 0.8)]}
    none = {"group": "none", "beside": "", "points": [point(0.5, 0.1)]}
    return {
        "lines": [{"name": "none", **none}, {"name": "vsf", **line}],
        "kept": 0.9,
        "model": "scenes",
        "pairs": 1,
        "seeds": 1,
        "steps": 1,
    }


def test_a_band_has_one_shade_all_along(tmp_path: Path) -> None:
    """Its pieces overlap at every point, which must not show."""
    pytest.importorskip("matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(4, 4), dpi=100)
    canvas = FigureCanvasAgg(drawn)
    ax = drawn.add_axes((0, 0, 1, 1))
    points = some_result()["lines"][1]["points"]
    figure._draw_line(ax, points, "positive", "x", {"color": "#0072B2", "linestyle": "none"})
    ax.set(xlim=(0, 1), ylim=(0, 1))
    ax.axis("off")
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[:, :, :3]

    def at(x: float, y: float) -> list[int]:
        return pixels[round((1 - y) * 400), round(x * 400)].tolist()

    inside = [(0.9, 0.25), (0.56, 0.44), (0.44, 0.56), (0.7, 0.35), (0.35, 0.65), (0.2, 0.75)]
    assert len({tuple(at(*place)) for place in inside}) == 1
    assert at(0.5, 0.5) != [255, 255, 255]
    assert at(0.5, 0.2) == at(0.2, 0.5) == [255, 255, 255]


def test_plot_that_cannot_be_written(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(OutputError, match="the plot cannot be written"):
        figure.draw_curves(tmp_path / "file" / "plot.png", some_result())


def test_without_matplotlib_one_line_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Before a model is loaded, so that no curve is drawn in vain."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr("vsf_lib.bench.subject.load_subject", lambda *_: pytest.fail("a model was loaded"))
    with pytest.raises(SettingsError, match="needs matplotlib, which is not installed"):
        call("--curves", "--plot", str(tmp_path / "plot.png"))


def test_options_that_contradict_each_other(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="give --curves"):
        call("--plot", str(tmp_path / "plot.png"))
    with pytest.raises(OutputError, match=r"the plot is a \.png"):
        call("--curves", "--plot", str(tmp_path / "plot.svg"))
    with pytest.raises(SystemExit):
        call("--curves", "--questions")
