"""The built-in model through the command line, as README's first command calls it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from vsf_lib.metadata import parse_parameters, read_png, write_png
from vsf_lib.presets import preset_for
from vsf_lib.scenes.model import NAME, SIZE, STEPS

README = ("generate", "--prompt", "a red car on a field", "--negative-prompt", "wheels", "--compare")


def test_readme_command(run):
    outcome = run(*README, "--seed", "1")
    assert (outcome.code, outcome.err) == (0, "")
    path = Path(outcome.out.strip())
    assert path.parent == Path.cwd() / "outputs"
    parameters = parse_parameters(read_png(path))
    assert (parameters.model, parameters.steps) == (NAME, STEPS)
    assert (parameters.width, parameters.height) == (SIZE, SIZE)
    assert parameters.settings == preset_for(NAME).settings("wheels").canonical()
    with Image.open(path) as picture:
        both = np.asarray(picture).copy()
    assert both.shape == (SIZE, 2 * SIZE, 3)
    assert not np.array_equal(both[:, :SIZE], both[:, SIZE:])

    assert run("generate", "--from-image", str(path), "--out", "again.png").err == ""
    with Image.open("again.png") as picture:
        assert np.array_equal(np.asarray(picture), both)
    assert read_png("again.png") == read_png(path)


def test_strong_preset(run):
    outcome = run(*README, "--preset", "strong", "--steps", "1", "--size", "72", "--seed", "1")
    assert (
        outcome.err == "note: the scenes model has learnt 64x64 only: expect poor pictures at other sizes\n"
    )
    settings = parse_parameters(read_png(outcome.out.strip())).settings
    assert settings == preset_for(NAME, strong=True).settings("wheels").canonical()


def test_picture_of_other_weights_is_named_as_such(run):
    run(*README, "--steps", "1", "--seed", "1", "--out", "first.png")
    text = read_png("first.png")
    digest = parse_parameters(text).extra["VSF model hash"]
    with Image.open("first.png") as picture:
        write_png("other.png", picture, text.replace(digest, "0123456789"))
    assert run("generate", "--from-image", "first.png", "--out", "again.png").err == ""
    outcome = run("generate", "--from-image", "other.png", "--out", "again.png")
    assert outcome.code == 0
    assert (
        outcome.err == "note: other.png was made with other weights of this model, so the picture differs\n"
    )


def test_a_full_stop_changes_the_prompt_and_not_the_picture(run):
    made = []
    for ending in ("", "."):
        words = ("--prompt", f"a red car{ending}", "--negative-prompt", f"wheels{ending}", "--steps", "2")
        assert run("generate", *words, "--seed", "1", "--out", "x.png").code == 0
        told = parse_parameters(read_png("x.png"))
        assert told.prompt == f"a red car{ending}"
        assert told.settings is not None
        assert told.settings.negative_prompt == f"wheels{ending}"
        with Image.open("x.png") as picture:
            made.append(np.asarray(picture).copy())
    assert np.array_equal(*made)
