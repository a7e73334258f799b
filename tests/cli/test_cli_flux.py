"""Flux folders at the command line: what is read from them, what the flags mean there, what is recorded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_flux import make_pipeline

from vsf_lib.errors import SettingsError
from vsf_lib.images.model import find_model
from vsf_lib.metadata import parse_parameters, read_png, write_png

CAR = ("generate", "--prompt", "a red car", "--steps", "2", "--seed", "5")
PLAIN = (*CAR, "--method", "off")
WITHOUT_WHEELS = ("--negative-prompt", "wheels", "--alpha", "2", "--beta", "0")


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Tiny random models, built like dev and like schnell."""
    made = {}
    for kind in ("dev", "schnell"):
        folder = tmp_path_factory.mktemp("flux") / f"FLUX.1-{kind}"
        make_pipeline(dev=kind == "dev").save_pretrained(folder)
        made[kind] = str(folder)
    return made


@pytest.fixture
def draw(run, folders):
    """Draws into a named file and gives its pixels and parameters."""

    def call(name: str, *words: str, kind: str = "dev", says: str = ""):
        model = () if "--from-image" in words else ("--model", folders[kind])
        outcome = run(*words, *model, "--out", name)
        assert (outcome.code, outcome.out) == (0, f"{Path(name).absolute()}\n"), outcome.err
        assert outcome.err == says
        with Image.open(name) as picture:
            return np.asarray(picture).copy(), parse_parameters(read_png(name))

    return call


@pytest.mark.parametrize(("kind", "length"), [("dev", 512), ("schnell", 256)])
def test_what_a_folder_says(folders, kind, length):
    folder = find_model(folders[kind]).folder
    assert folder is not None
    assert folder.flux
    assert (folder.distilled, folder.sequence_length) == (kind == "dev", length)
    assert folder.size(None) == (8, 8)
    assert folder.size((4, 32)) == (4, 32)
    for wrong in ((7, 8), (8, 34), (0, 8)):
        with pytest.raises(SettingsError, match="multiples of 2 up to 32"):
            folder.size(wrong)


@pytest.mark.parametrize("kind", ["dev", "schnell"])
def test_a_guided_picture_differs_says_by_what_and_repeats_to_the_bit(draw, kind):
    plain, told = draw("plain.png", *PLAIN, kind=kind)
    assert told.settings is None
    more = ("--negative-scale", "2", "--pooled-shift", "0.1", "--blocks", "double")
    guided, told = draw("guided.png", *CAR, *WITHOUT_WHEELS, *more, kind=kind)
    assert not np.array_equal(plain, guided)
    settings = told.settings
    assert settings is not None
    assert (settings.negative_scale, settings.pooled_shift, settings.blocks) == (2.0, 0.1, "double")
    assert told.cfg_scale == 1.0
    assert told.extra.get("Distilled CFG Scale") == ("3.5" if kind == "dev" else None)
    again, repeated = draw("again.png", "generate", "--from-image", "guided.png")
    assert np.array_equal(guided, again)
    assert repeated == told


def test_the_guidance_scale_is_the_distilled_one(draw):
    usual, _ = draw("usual.png", *CAR, *WITHOUT_WHEELS)
    lower, told = draw("lower.png", *CAR, *WITHOUT_WHEELS, "--guidance-scale", "2")
    assert (told.cfg_scale, told.extra["Distilled CFG Scale"]) == (1.0, "2")
    assert not np.array_equal(usual, lower)
    again, _ = draw("again.png", "generate", "--from-image", "lower.png")
    assert np.array_equal(lower, again)
    one, _ = draw("one.png", *PLAIN, kind="schnell")
    other, told = draw("other.png", *PLAIN, "--guidance-scale", "2", kind="schnell")
    assert np.array_equal(one, other)
    assert told.cfg_scale == 1.0


def test_a_scale_that_is_no_number_is_named(draw, run):
    draw("lower.png", *PLAIN, "--guidance-scale", "2")
    with Image.open("lower.png") as picture:
        picture.load()
    write_png("odd.png", picture, read_png("lower.png").replace("Scale: 2", "Scale: much"))
    outcome = run("generate", "--from-image", "odd.png", "--out", "x.png")
    assert outcome.code == 2
    assert "Distilled CFG Scale is 'much' in the infotext" in outcome.err


def test_without_a_method_nothing_reads_the_negative_prompt(draw):
    plain, _ = draw("plain.png", *PLAIN)
    words = ("--negative-prompt", "wheels", "--method", "off", "--guidance-scale", "3.5")
    off, told = draw(
        "off.png", *CAR, *words, says="note: method off reads no negative prompt with Flux: ignored\n"
    )
    assert np.array_equal(plain, off)
    assert told.negative_prompt == ""


@pytest.mark.parametrize(
    "words",
    [("--negative-scale", "2"), ("--blocks", "double"), ("--pooled-shift", "0.1")],
    ids=lambda w: w[0],
)
def test_what_acts_on_flux_only_is_ignored_elsewhere(run, model, words):
    flags = (*CAR, *WITHOUT_WHEELS, "--model", model)
    assert run(*flags, "--out", "one.png").code == 0
    outcome = run(*flags, *words, "--out", "other.png")
    assert outcome.code == 0
    name = words[0].removeprefix("--").replace("-", "_")
    assert outcome.err == f"note: {name} acts on Flux models only: ignored\n"
    assert read_png("one.png") == read_png("other.png")


def test_a_folder_of_another_network_is_refused(run, folders, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(folders["dev"], copy)
    config = copy / "transformer" / "config.json"
    config.write_text(config.read_text().replace('"num_single_layers"', '"other"'))
    outcome = run(*CAR, "--model", str(copy), "--out", "x.png")
    assert outcome.code == 2
    assert "lack 'num_single_layers'" in outcome.err
