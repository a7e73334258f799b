"""The small built-in Wan, here with random weights: what a job with it is, and what it refuses."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("imageio_ffmpeg")
pytest.importorskip("peft")

from diffusers.loaders import lora_base
from safetensors.torch import load_file, save_file
from video_frames import read_frames

from vsf_lib.cli import main
from vsf_lib.cli.video import add_arguments, resolve
from vsf_lib.errors import ModelError, PromptError, SettingsError
from vsf_lib.metadata import parse_parameters
from vsf_lib.presets import preset_for
from vsf_lib.scenes.loading import load_video_pipeline
from vsf_lib.scenes.model import WAN, WAN_LORA, WAN_MANY_STEPS, WAN_STEPS
from vsf_lib.scenes.motion import FRAMES, VERBS
from vsf_lib.scenes.training import wan as small
from vsf_lib.video import builtin, memory
from vsf_lib.video.desk import Desk, Places
from vsf_lib.video.files import read_infotext, write_video
from vsf_lib.video.job import Lora, VideoJob
from vsf_lib.video.loading import add_loras, check_model
from vsf_lib.video.worker import Maker


def test_its_lora_is_read_where_the_hub_is_forbidden(built_in, monkeypatch):
    monkeypatch.setattr(lora_base, "HF_HUB_OFFLINE", True)
    pipe = load_video_pipeline(built_in)
    pipe.unload_lora_weights()
    add_loras(pipe, (Lora(file=builtin.FEW_STEPS),))
    assert pipe.get_active_adapters() == ["lora0"]


README = ("video", "--prompt", "a red car driving on a field", "--negative-prompt", "wheels")
REAL = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"


def asked(*words: str) -> VideoJob:
    parser = ArgumentParser()
    add_arguments(parser)
    return resolve(parser.parse_args(["--prompt", "a red car", "--negative-prompt", "wheels", *words]))


def test_the_first_command_and_the_same_from_its_file_elsewhere(built_in, capsys, monkeypatch, tmp_path):
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    for folder in (here, elsewhere):
        folder.mkdir()
        (folder / WAN).write_text("a file of that name is not meant")
    monkeypatch.chdir(here)
    assert main([*README, "--seed", "1"]) == 0
    path = Path(capsys.readouterr().out.strip())
    assert path.parent == here / "outputs" / "videos"
    assert read_frames(path).shape == (FRAMES, 64, 64, 3)
    text = read_infotext(path)
    told = parse_parameters(text)
    assert (told.model, told.steps, told.width, told.height) == (WAN, WAN_STEPS, 64, 64)
    assert told.settings == preset_for(WAN).settings("wheels").canonical()
    assert told.extra["VSF loras"] == "few-steps:1"
    assert "VSF comparison" not in told.extra
    assert str(built_in.parent) not in text, "names and no paths"

    monkeypatch.chdir(elsewhere)
    assert main(["video", "--from-file", str(path), "--json"]) == 0
    output = capsys.readouterr()
    again = Path(json.loads(output.out)["path"])
    assert np.array_equal(read_frames(again), read_frames(path))
    assert read_infotext(again) == text
    assert "other weights" not in output.err


def test_a_video_of_other_weights_is_named_as_such(built_in, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    text = asked("--seed", "1", "--steps", "1").infotext(fingerprint="0123456789")
    write_video(tmp_path / "old.mp4", np.zeros((1, 64, 64, 3), np.uint8), text)
    assert main(["video", "--from-file", "old.mp4"]) == 0
    assert "note: old.mp4 was made with other weights of this model" in capsys.readouterr().err


def test_what_a_job_with_it_is_unless_told_otherwise():
    job = asked()
    assert (job.model, job.width, job.height, job.frames, job.steps) == (WAN, 64, 64, FRAMES, WAN_STEPS)
    assert (job.fps, job.offload, job.effective_drop) == (8, "none", 0)
    assert job.effective_shift == small.SHIFT
    assert job.loras == (Lora(file="few-steps", weight=1.0),)
    assert job.notes == ()
    assert "17 that Wan was trained on" in asked("--frames", "21").notes[0]
    real = asked("--model", REAL)
    assert (real.width, real.frames, real.steps, real.loras, real.offload) == (832, 81, 8, (), "auto")
    assert real.settings == preset_for(REAL).settings("wheels")


def test_its_lora_can_be_weighed_and_left_out():
    assert asked("--lora", "few-steps:0.7").loras[0].weight == 0.7
    assert asked("--lora", "few-steps", "--lora", "x.safetensors:2").loras[1].file == "x.safetensors"
    plain = asked("--lora", "none")
    assert (plain.loras, plain.steps) == ((), WAN_MANY_STEPS)
    assert asked("--lora", "none", "--steps", "9").steps == 9
    assert asked("--model", REAL, "--lora", "none").steps == 8
    with pytest.raises(SettingsError, match="--lora none is without any"):
        asked("--lora", "none", "--lora", "x.safetensors")
    with pytest.raises(SettingsError, match="few-steps belongs to the built-in model wan"):
        asked("--model", REAL, "--lora", "few-steps")


def test_a_file_of_the_one_kind_of_model_gives_words_and_seed_to_the_other(tmp_path):
    def file(name: str, *words: str) -> str:
        job = asked("--seed", "7", "--alpha", "5", "--fps", "9", *words)
        return str(write_video(tmp_path / name, np.zeros((1, 64, 64, 3), np.uint8), job.infotext()))

    ours, real = file("ours.mp4"), file("real.mp4", "--model", REAL, "--size", "640x480")
    there = asked("--from-file", ours, "--model", REAL)
    assert (there.width, there.frames, there.fps, there.loras, there.seed) == (832, 81, 16, (), 7)
    assert there.settings == preset_for(REAL).settings("wheels")
    here = asked("--from-file", real, "--model", WAN)
    assert (here.width, here.frames, here.fps, here.seed) == (64, FRAMES, 8, 7)
    assert (here.loras, here.settings.alpha) == (asked().loras, preset_for(WAN).alpha)
    assert asked("--from-file", real, "--model", "other/one").width == 640
    same = asked("--from-file", ours)
    assert (same.fps, same.settings.alpha, same.seed) == (9, 5, 7)


@pytest.mark.parametrize(
    ("words", "kind", "says"),
    [
        (["--prompt", "a green car flying"], PromptError, "the prompt has words that the wan model does not"),
        (["--negative-prompt", "tyres"], PromptError, "the negative prompt has words that the wan model"),
        (["--prompt", "red " * 15], PromptError, "15 words; the wan model reads 14"),
        (["--size", "832x480"], SettingsError, "wan makes videos of 64x64, not 832x480"),
        (["--vae", "x.safetensors"], SettingsError, "a VAE and a text encoder of its own: leave out x.safe"),
    ],
)
def test_what_it_cannot_make_is_told(words, kind, says):
    with pytest.raises(kind, match=says):
        asked(*words)


def test_the_words_that_are_told_are_those_that_its_tokenizer_has():
    with pytest.raises(PromptError) as caught:
        asked("--prompt", "a zebra")
    message = str(caught.value)
    for verb in VERBS:
        assert verb in message
        asked("--prompt", f"a car {verb}")
    known = small.build_tokenizer().get_vocab()
    said = message.split("It knows")[1].replace(",", " ").replace(";", " ").split()
    assert set(said) - set(known) == {"things", "parts", "colours", "verbs", "places"}


def test_a_wrong_word_costs_one_line_and_leaves_nothing(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(["video", "--prompt", "a zebra", "--negative-prompt", "wheels"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: the prompt has words")
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_where_it_is_not_shipped_that_is_told(monkeypatch, tmp_path):
    from vsf_lib.scenes import model

    monkeypatch.setattr(model, "WAN_FOLDER", tmp_path / "gone")
    with pytest.raises(ModelError, match="scenes train --model wan"):
        check_model(WAN)
    assert memory.need(asked(), 4) is None
    assert WAN not in Desk(Places(tmp_path, tmp_path)).shelf.model_names()


def test_its_memory_is_counted_from_its_files(built_in):
    def count(part: str) -> int:
        return sum(
            t.numel() for file in (built_in / part).glob("*.safetensors") for t in load_file(file).values()
        )

    assert memory.need(asked(), 4) - 2 * 2**30 == 4 * (count("transformer") + count("vae"))


def test_the_lora_acts_by_its_weight(built_in, tmp_path):
    frames = {}
    maker = Maker(lambda event: None, lambda: False)
    for weight in ("none", "few-steps:0", "few-steps:1"):
        job = asked("--lora", weight, "--steps", "2", "--method", "off", "--seed", "2")
        path = maker.run(job, tmp_path / f"{weight.replace(':', ' ')}.png").path
        frames[weight] = np.stack([_pixels(file) for file in sorted(Path(path).iterdir())])
    assert np.array_equal(frames["none"], frames["few-steps:0"])
    assert np.abs(frames["few-steps:1"].astype(int) - frames["none"]).mean() > 1


def test_the_fingerprint_is_that_of_all_its_weights(built_in, monkeypatch, tmp_path):
    import shutil

    from vsf_lib.scenes import model

    before = builtin.fingerprint(WAN)
    assert len(before) == 10
    assert builtin.fingerprint(REAL) == ""
    copy = Path(shutil.copytree(built_in, tmp_path / "copy"))
    monkeypatch.setattr(model, "WAN_FOLDER", copy)
    assert builtin.fingerprint(WAN) == before
    state = load_file(copy / WAN_LORA)
    save_file({name: tensor + 1 for name, tensor in state.items()}, copy / WAN_LORA)
    assert builtin.fingerprint(WAN) != before


def _pixels(file: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(file) as picture:
        return np.asarray(picture).copy()
