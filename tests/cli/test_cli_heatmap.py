"""`generate --heatmap`: a second file beside a picture that is the same without it, and what it says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vsf_lib.metadata import parse_parameters, read_png

CAR = ("generate", "--prompt", "a red car", "--steps", "2", "--seed", "5")
WHEELS = ("--negative-prompt", "wheels", "--alpha", "2")


def pixels(path: str | Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture).copy()


@pytest.fixture(scope="session")
def flux(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny random Flux."""
    from tiny_flux import make_pipeline

    folder = tmp_path_factory.mktemp("flux") / "FLUX.1-schnell"
    make_pipeline().save_pretrained(folder)
    return str(folder)


@pytest.fixture
def folder(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


@pytest.mark.parametrize("folder", ["model", "flux"], indirect=True)
@pytest.mark.parametrize("words", [(), ("--compare",)], ids=["alone", "compare"])
def test_the_picture_is_the_same_to_the_bit_and_the_map_says_more(run, folder, words) -> None:
    drawing = (*CAR, *WHEELS, "--model", folder, *words)
    assert run(*drawing, "--out", "plain.png").code == 0
    outcome = run(*drawing, "--heatmap", "--out", "x.png")
    assert outcome.code == 0, outcome.err
    assert outcome.out.splitlines() == [str(Path(n).absolute()) for n in ("x.png", "x-heatmap.png")]
    assert np.array_equal(pixels("plain.png"), pixels("x.png"))
    assert read_png("plain.png") == read_png("x.png")

    own, told = parse_parameters(read_png("x.png")), parse_parameters(read_png("x-heatmap.png"))
    extra = dict(told.extra)
    says = extra.pop("VSF heatmap")
    assert extra == own.extra
    assert (told.prompt, told.seed, told.width, told.settings) == (own.prompt, 5, own.width, own.settings)
    assert "2 of 2 steps guided" in says
    assert says.startswith("share ")

    assert run("generate", "--from-image", "x-heatmap.png", "--out", "again.png").code == 0
    assert np.array_equal(pixels("again.png"), pixels("x.png"))
    assert np.array_equal(pixels("again-heatmap.png"), pixels("x-heatmap.png"))
    assert read_png("again-heatmap.png") == read_png("x-heatmap.png")
    assert run("generate", "--from-image", "x.png", "--out", "third.png").code == 0
    assert not Path("third-heatmap.png").exists()


def test_comparison_shows_both_pictures(run, model) -> None:
    for words in ((), ("--compare",)):
        run(*CAR, *WHEELS, "--model", model, "--heatmap", *words, "--out", f"x{len(words)}.png")
    one, two = pixels("x0-heatmap.png"), pixels("x1-heatmap.png")
    assert two.shape[1] > one.shape[1] or two.shape[1] >= 2 * 448
    guided = one[60:400, 20:400]
    assert not np.array_equal(guided, two[60:400, 20:400]), "the first of two is the unguided one"


def test_steps_that_were_not_guided_are_shown_as_such(run, model) -> None:
    run(*CAR, *WHEELS, "--model", model, "--heatmap", "--out", "all.png")
    run(*CAR, *WHEELS, "--model", model, "--heatmap", "--end", "0.5", "--out", "half.png")
    says = parse_parameters(read_png("half-heatmap.png")).extra["VSF heatmap"]
    assert "1 of 2 steps guided" in says
    grey = [(pixels(f"{name}-heatmap.png") == 225).all(2).sum() for name in ("all", "half")]
    assert grey[1] > grey[0] + 0.8 * 128 * 128


def test_a_batch_has_a_map_for_each_and_json_names_them(run, model) -> None:
    outcome = run(*CAR, *WHEELS, "--model", model, "--heatmap", "--batch", "2", "--json", "--out", "set.png")
    told = json.loads(outcome.out)
    assert [p["heatmap"] for p in told["images"]] == [
        str(Path(f"set-{n}-heatmap.png").absolute()) for n in (1, 2)
    ]
    assert told["heatmap"] == told["images"][0]["heatmap"]
    assert [parse_parameters(read_png(p["heatmap"])).seed for p in told["images"]] == [5, 6]
    plain = json.loads(run(*CAR, *WHEELS, "--model", model, "--json").out)
    assert "heatmap" not in plain


def test_a_folder_keeps_what_lies_there(run, model) -> None:
    Path("outputs").mkdir()
    kept = Path("outputs") / "a-red-car-5-heatmap.png"
    kept.write_bytes(b"kept")
    outcome = run(*CAR, *WHEELS, "--model", model, "--heatmap")
    assert [Path(line).name for line in outcome.out.splitlines()] == [
        "a-red-car-5.png",
        "a-red-car-5-heatmap-2.png",
    ]
    assert kept.read_bytes() == b"kept"


def test_a_map_that_cannot_be_written_costs_no_picture(run, model) -> None:
    Path("x-heatmap.png").mkdir()
    outcome = run(*CAR, *WHEELS, "--model", model, "--heatmap", "--out", "x.png")
    assert outcome.code == 2
    assert "x-heatmap.png" in outcome.err
    assert outcome.out == f"{Path('x.png').absolute()}\n"
    assert parse_parameters(read_png("x.png")).seed == 5


def test_a_picture_that_is_not_square(run, model) -> None:
    assert run(*CAR, *WHEELS, "--model", model, "--heatmap", "--size", "96x48", "--out", "x.png").code == 0
    assert parse_parameters(read_png("x-heatmap.png")).width == 96


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--method", "nag", "--negative-prompt", "wheels"), "which method nag does not have"),
        (("--preset", "nasa", "--negative-prompt", "wheels"), "which method nasa does not have"),
        (("--method", "off", "--negative-prompt", "wheels"), "which method off does not have"),
        ((), "give --negative-prompt"),
    ],
)
def test_nothing_to_show_is_said_before_a_model_is_loaded(run, tmp_path, words, says) -> None:
    outcome = run(*CAR, *words, "--heatmap", "--device", "cuda:99")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("error: --heatmap shows ")
    assert outcome.err.count("\n") == 1
    assert says in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_a_repeated_map_goes_away_with_what_it_showed(run, model) -> None:
    run(*CAR, *WHEELS, "--model", model, "--heatmap", "--out", "x.png")
    for number, words in enumerate((("--method", "nag"), ("--negative-prompt", ""), ("--no-heatmap",))):
        name = f"y{number}.png"
        assert run("generate", "--from-image", "x-heatmap.png", *words, "--out", name).code == 0
        assert not Path(f"y{number}-heatmap.png").exists()


def test_another_schedulers_model_is_refused_before_it_draws(run, model, tmp_path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(model, copy)
    for file, old, new in (
        (copy / "model_index.json", "FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"),
        (
            copy / "scheduler" / "scheduler_config.json",
            "FlowMatchEulerDiscreteScheduler",
            "FlowMatchHeunDiscreteScheduler",
        ),
    ):
        text = file.read_text("utf-8")
        assert old in text
        file.write_text(text.replace(old, new), "utf-8")
    outcome = run(*CAR, *WHEELS, "--model", str(copy), "--heatmap", "--out", "x.png")
    assert outcome.code == 2
    assert "FlowMatchHeunDiscreteScheduler, but" in outcome.err
    assert not Path("x.png").exists()
