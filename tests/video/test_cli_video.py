"""The command for videos, from its flags to the file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("imageio_ffmpeg")
pytest.importorskip("wan_files")

from video_frames import read_frames

from vsf_lib.cli import main
from vsf_lib.cli.video import resolve
from vsf_lib.presets import preset_for
from vsf_lib.video.files import read_infotext
from vsf_lib.video.job import VideoJob


@pytest.fixture
def run(capsys, monkeypatch, tmp_path, wan):
    monkeypatch.chdir(tmp_path)

    def call(*words):
        code = main(["video", "--model", str(wan), *map(str, words)])
        streams = capsys.readouterr()
        return code, streams.out, streams.err

    return call


SMALL = ("--prompt", "a red car", "--size", "80x64", "--frames", "5", "--steps", "2", "--method", "off")


def test_a_video_and_the_same_once_more(run, tmp_path):
    code, out, err = run(*SMALL, "--seed", 3, "--json")
    told = json.loads(out.splitlines()[-1])
    assert (code, set(told)) == (0, {"path", "infotext", "seconds"})
    path = Path(told["path"])
    assert path.parent == tmp_path / "outputs" / "videos"
    assert read_infotext(path) == told["infotext"]
    assert "step 2 of 2" in err
    code, out, _ = run("--from-file", path, "--out", tmp_path / "again.webm")
    assert (code, out.strip()) == (0, str(tmp_path / "again.webm"))
    assert read_infotext(tmp_path / "again.webm") == told["infotext"]
    code, out, _ = run("--from-file", path)
    assert Path(out.strip()) != path, "nothing is replaced unless its name is given"
    assert np.array_equal(read_frames(Path(out.strip())), read_frames(path))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--prompt", ""], "the prompt is empty"),
        (["--frames", "6"], "5 or 9, not 6"),
        (["--size", "100"], "must be like 832x480"),
        (["--size", "100x100"], "multiples of 16"),
        (["--lora", "gone.safetensors:0.5"], "there is no LoRA gone.safetensors"),
        (["--model", "nowhere"], "there is no folder nowhere"),
        (["--out", "x.avi"], "end the name in .mp4 or"),
        (["--alpha", "nan"], "alpha is"),
        (["--method", "vsf", "--negative-prompt", "x", "--start", "0.6", "--end", "0.7"], "none of 2 steps"),
        (["--from-file", "gone.mp4"], "there is no file gone.mp4"),
        (["--quality", "11"], "quality is 11, but must be a whole number from 1 to 10"),
        (["--steps", "0"], "steps is 0, but must be a whole number from 1 to 100"),
        (["--steps", "many"], "--steps is 'many', but must be a whole number"),
        (["--flow-shift", "x"], "--flow-shift is 'x', but must be a number"),
        (["--from-file", __file__], "cannot be read as a video (mp4, webm, gif)"),
        (["--model", "wann"], "there is no folder wann: did you mean wan? Otherwise give the folder"),
        (["--lora", "few-steps:abc"], "the weight 'abc' of the LoRA few-steps is no number"),
        (["--lora", "few-stps"], "did you mean the built-in few-steps?"),
        (["--model", ""], "the model has no name: give wan, a folder"),
        (["--model", "scenes"], "that is a built-in model of pictures, for python -m vsf_lib generate"),
        (["--offload", "x"], "--offload is 'x', but must be one of auto, none, model, group"),
        (["--lora", "x.ckpt"], "there is no LoRA x.ckpt: give the name of a .safetensors file"),
        (
            ["--compare", "--method", "vsf"],
            "needs a negative prompt: say what the video must not show",
        ),
        (
            ["--seed", "-2"],
            "seed is -2, but must be a whole number from 0 to 4294967295, or -1 for a new one",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line_before_anything_is_loaded(run, tmp_path, words, says):
    code, out, err = run(*SMALL, *words)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert says in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_flags_that_the_method_does_not_read_are_told(run):
    code, _, err = run(*SMALL, "--seed", "1", "--alpha", "2")
    assert code == 0
    assert [line for line in err.splitlines() if "not read" in line] == [
        "note: --alpha is not read by method off: ignored"
    ]
    assert "not read" not in run(*SMALL, "--seed", "1")[2]


def test_flags_win_over_the_preset(monkeypatch):
    from argparse import ArgumentParser

    from vsf_lib.cli.video import add_arguments

    parser = ArgumentParser()
    add_arguments(parser)
    hub = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"
    real = ["--model", hub, "--prompt", "x"]
    job = resolve(parser.parse_args([*real, "--negative-prompt", "y"]))
    assert job.model == hub
    assert job.settings == preset_for(hub).settings("y")
    job = resolve(parser.parse_args([*real, "--negative-prompt", "y", "--alpha", "0.7"]))
    assert (job.settings.alpha, job.settings.beta) == (0.7, preset_for(hub).beta)
    assert resolve(parser.parse_args([*real, "--preset", "strong"])).settings.alpha == 1.7
    words = [*real, "--method", "difference"]
    wanted = preset_for(hub).difference_alpha, preset_for(hub, strong=True).difference_alpha
    for more, alpha in zip(([], ["--preset", "strong"]), wanted, strict=True):
        settings = resolve(parser.parse_args([*words, *more])).settings
        assert (settings.method, settings.alpha) == ("difference", alpha)


def test_minus_one_is_a_random_seed_that_is_told_and_recorded(run):
    code, out, err = run(*SMALL, "--seed", "-1")
    assert code == 0
    seed = VideoJob.from_infotext(read_infotext(Path(out.strip()))).seed
    assert f"note: seed {seed}\n" in err
    code, out, err = run("--from-file", out.strip(), "--seed", "-1")
    other = VideoJob.from_infotext(read_infotext(Path(out.strip()))).seed
    assert f"note: seed {other}\n" in err
    assert other != seed
