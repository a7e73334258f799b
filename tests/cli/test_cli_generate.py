"""Drawing: what is in the picture, what it says of itself, and that it can be repeated to the bit."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from vsf_lib.metadata import parse_parameters, read_png, write_png

CAR = ("generate", "--prompt", "a red car", "--steps", "2")
WITHOUT_WHEELS = ("--negative-prompt", "wheels")


def pixels(path: str | Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture).copy()


def same(one: str | Path, other: str | Path) -> bool:
    return bool(np.array_equal(pixels(one), pixels(other)))


def vsf_keys(path: str | Path) -> list[str]:
    """The pairs in a picture's infotext that claim guidance."""
    last = read_png(path).split("\n")[-1]
    return [
        pair.split(":")[0].strip() for pair in last.split(",") if pair.strip().startswith(("VSF ", "NAG "))
    ]


@pytest.fixture
def draw(run, model):
    """Draws into a named file and gives its path."""

    def call(name: str, *words: str) -> str:
        outcome = run(*words, *(() if "--from-image" in words else ("--model", model)), "--out", name)
        assert (outcome.code, outcome.out) == (0, f"{Path(name).absolute()}\n"), outcome.err
        return name

    return call


def test_guided_picture_differs_and_says_by_what(draw):
    plain = draw("plain.png", *CAR, "--seed", "5")
    guided = draw("guided.png", *CAR, "--seed", "5", *WITHOUT_WHEELS, "--alpha", "2", "--beta", "0.1")
    assert not same(plain, guided)
    assert vsf_keys(plain) == []
    parameters = parse_parameters(read_png(guided))
    assert parameters.settings is not None
    assert parameters.settings.negative_prompt == "wheels"
    assert (parameters.settings.alpha, parameters.settings.beta) == (2.0, 0.1)
    assert (parameters.prompt, parameters.steps, parameters.seed) == ("a red car", 2, 5)
    assert (parameters.width, parameters.height) == pixels(guided).shape[1::-1] == (64, 64)
    assert parameters.version.startswith("vsf ")


def test_comparison_is_both_pictures_side_by_side(draw):
    plain = draw("plain.png", *CAR, "--seed", "6")
    guided = draw("guided.png", *CAR, "--seed", "6", *WITHOUT_WHEELS)
    both = pixels(draw("both.png", *CAR, "--seed", "6", *WITHOUT_WHEELS, "--compare"))
    assert both.shape == (64, 128, 3)
    assert np.array_equal(both[:, :64], pixels(plain))
    assert np.array_equal(both[:, 64:], pixels(guided))
    told, alone = read_png("both.png"), read_png("guided.png")
    assert told.replace(', VSF comparison: "left without, right with the negative prompt"', "") != told
    assert told.replace(', VSF comparison: "left without, right with the negative prompt"', "") == alone


@pytest.mark.parametrize(
    "words",
    [
        (),
        (*WITHOUT_WHEELS, "--compare", "--dtype", "bfloat16"),
        (*WITHOUT_WHEELS, "--alpha", "3", "--end", "0.5", "--size", "48x72"),
        (*WITHOUT_WHEELS, "--method", "nag", "--nag-phi", "7.5"),
        (*WITHOUT_WHEELS, "--preset", "nasa"),
        (*WITHOUT_WHEELS, "--guidance-scale", "2.5"),
        (*WITHOUT_WHEELS, "--guidance-scale", "2.5", "--method", "off"),
        ("--negative-prompt", 'wheels: "round", 12x34'),
    ],
)
def test_picture_repeats_to_the_bit(draw, words):
    first = draw("first.png", *CAR, *words)
    again = draw("again.png", "generate", "--from-image", "first.png")
    assert same(first, again)
    assert read_png(first) == read_png(again)


def test_explicit_flags_win_over_the_picture_that_is_repeated(draw):
    draw("first.png", *CAR, "--seed", "7", *WITHOUT_WHEELS, "--alpha", "3", "--compare")
    draw("again.png", "generate", "--from-image", "first.png", "--alpha", "1", "--no-compare")
    draw("direct.png", *CAR, "--seed", "7", *WITHOUT_WHEELS, "--alpha", "1")
    assert read_png("again.png") == read_png("direct.png")
    assert same("again.png", "direct.png")
    draw(
        "other.png", "generate", "--from-image", "first.png", "--method", "nag", "--seed", "8", "--no-compare"
    )
    other = parse_parameters(read_png("other.png"))
    assert other.settings is not None
    assert (other.settings.method, other.settings.negative_prompt, other.seed) == ("nag", "wheels", 8)


def test_plain_picture_repeated_with_a_negative_prompt_is_guided(draw):
    draw("first.png", *CAR, "--seed", "7")
    draw("again.png", "generate", "--from-image", "first.png", *WITHOUT_WHEELS)
    draw("direct.png", *CAR, "--seed", "7", *WITHOUT_WHEELS)
    assert read_png("again.png") == read_png("direct.png")


def test_every_picture_of_a_batch_repeats_alone(draw, run, model):
    outcome = run(*CAR, *WITHOUT_WHEELS, "--seed", "20", "--batch", "3", "--model", model, "--out", "set.png")
    assert outcome.out.splitlines() == [str(Path(f"set-{number}.png").absolute()) for number in (1, 2, 3)]
    assert [parse_parameters(read_png(f"set-{number}.png")).seed for number in (1, 2, 3)] == [20, 21, 22]
    assert same("set-2.png", draw("alone.png", *CAR, *WITHOUT_WHEELS, "--seed", "21"))
    assert not same("set-1.png", "set-2.png")


def test_json_is_one_object_on_the_last_line(run, model):
    outcome = run(*CAR, *WITHOUT_WHEELS, "--model", model, "--json", "--seed", "1")
    assert outcome.code == 0
    assert outcome.out.count("\n") == 1
    told = json.loads(outcome.out)
    assert told["infotext"] == read_png(told["path"])
    assert told["seconds"] > 0
    assert [picture["path"] for picture in told["images"]] == [told["path"]]


def test_default_output_never_replaces_a_picture(run, model):
    paths = [run(*CAR, "--model", model, "--seed", "1").out.strip() for _ in range(3)]
    assert [Path(path).relative_to(Path.cwd()).as_posix() for path in paths] == [
        "outputs/a-red-car-1.png",
        "outputs/a-red-car-1-2.png",
        "outputs/a-red-car-1-3.png",
    ]
    assert len({read_png(path) for path in paths}) == 1


def test_progress_bar_on_a_terminal_only(run, model, monkeypatch):
    assert "%|" not in run(*CAR, "--model", model, "--seed", "1").err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    shown = run(*CAR, *WITHOUT_WHEELS, "--model", model, "--seed", "1", "--batch", "2", "--compare").err
    for label in ("1/2 without: 100%|", "1/2 with: 100%|", "2/2 without: 100%|", "2/2 with: 100%|"):
        assert label in shown


def test_random_seed_is_told_and_recorded(run, model):
    outcome = run(*CAR, *WITHOUT_WHEELS, "--model", model, "--alpha", "1")
    seed = parse_parameters(read_png(outcome.out.strip())).seed
    assert outcome.err == f"note: seed {seed}\n"


def test_minus_one_is_a_random_seed_too_and_wins_over_a_picture(run, model):
    seeds = []
    for words in ((*CAR, "--out", "first.png"), ("generate", "--from-image", "first.png", "--batch", "2")):
        outcome = run(*words, "--model", model, "--seed", "-1")
        seed = parse_parameters(read_png(outcome.out.splitlines()[0])).seed
        assert f"note: seed {seed}\n" in outcome.err
        seeds.append(seed)
    assert seeds[0] != seeds[1]


@pytest.mark.parametrize("words", [(), ("--negative-prompt", " "), ("--alpha", "3")])
def test_without_a_negative_prompt_one_note_and_no_claim(run, model, words):
    outcome = run(*CAR, *words, "--model", model, "--seed", "1")
    assert outcome.code == 0
    assert outcome.err == "note: no --negative-prompt, so nothing is guided: an ordinary picture\n"
    assert vsf_keys(outcome.out.strip()) == []


def test_method_off_says_that_the_negative_prompt_is_ignored(run, model):
    outcome = run(*CAR, *WITHOUT_WHEELS, "--method", "off", "--model", model, "--seed", "1")
    assert "ignored" in outcome.err
    assert "wheels" not in read_png(outcome.out.strip())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--method", "nag", "--alpha", "2", "--nag-phi", "3"), ["--alpha"]),
        (("--method", "vsf", "--alpha", "2", "--beta", "0", "--nag-tau", "3"), ["--nag-tau"]),
        (("--method", "nasa", "--beta", "0.2", "--nag-tau", "3"), ["--beta", "--nag-tau"]),
        (("--method", "nag", "--end", "0.9"), []),
    ],
)
def test_flags_that_the_method_does_not_read_are_told(run, model, words, told):
    outcome = run(*CAR, *WITHOUT_WHEELS, *words, "--model", model, "--seed", "1")
    assert outcome.code == 0
    notes = [f"note: {flag} is not read by method {words[1]}: ignored\n" for flag in told]
    assert outcome.err == "".join(notes)


def test_off_reads_no_strength(run, model):
    outcome = run(*CAR, "--method", "off", "--alpha", "2", "--model", model, "--seed", "1")
    assert outcome.err == "note: --alpha is not read by method off: ignored\n"


def test_negative_scale_is_not_claimed_where_it_does_nothing(run, model):
    outcome = run(
        *CAR, *WITHOUT_WHEELS, "--negative-scale", "8", "--alpha", "1", "--model", model, "--seed", "1"
    )
    assert outcome.err == "note: negative_scale acts on Flux models only: ignored\n"
    assert vsf_keys(outcome.out.strip()) == ["VSF negative prompt", "VSF alpha", "VSF beta"]


def test_presets_fill_in_what_is_not_given(run, model):
    def alpha_of(*words: str) -> float:
        outcome = run(*CAR, *WITHOUT_WHEELS, "--model", model, *words)
        settings = parse_parameters(read_png(outcome.out.strip())).settings
        assert settings is not None
        return settings.alpha

    assert alpha_of("--preset", "sd3.5-large-turbo") == 1.65
    assert alpha_of("--preset", "sd3.5-large-turbo-strong") == 1.9
    assert alpha_of("--preset", "sd3.5-large-turbo", "--alpha", "0.75") == 0.75


def test_picture_of_another_program_is_named_as_such(run, model):
    text = f"a red car\nSteps: 2, Sampler: Euler, CFG scale: 1, Seed: 3, Size: 64x64, Model: {model}"
    write_png("theirs.png", Image.new("RGB", (64, 64)), text)
    outcome = run("generate", "--from-image", "theirs.png", "--out", "ours.png")
    assert outcome.code == 0
    assert "theirs.png was not made by this program" in outcome.err


def test_home_folder_is_not_named_in_the_picture(run, model, monkeypatch):
    monkeypatch.setenv("HOME", str(Path(model).parent))
    monkeypatch.setenv("USERPROFILE", str(Path(model).parent))
    outcome = run(*CAR, "--model", model, "--seed", "4", "--out", "first.png")
    assert outcome.code == 0
    assert parse_parameters(read_png("first.png")).model == f"~/{Path(model).name}"
    assert run("generate", "--from-image", "first.png", "--out", "again.png").code == 0
    assert same("first.png", "again.png")


def test_values_that_are_not_finite_are_no_picture(run, model, tmp_path):
    """A model whose decoder yields NaN, as half precision does on some."""
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    file = broken / "vae" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights["decoder.conv_out.bias"].fill_(float("nan"))
    save_file(weights, file, metadata={"format": "pt"})
    outcome = run(*CAR, "--model", str(broken), "--out", "x.png")
    assert outcome.code == 2
    assert "not finite" in outcome.err
    assert not Path("x.png").exists()
