"""What is refused before any model is loaded, each in one line that says what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from vsf_lib import __version__
from vsf_lib.settings import fields

CAR = ("generate", "--prompt", "a red car", "--negative-prompt", "wheels")


def test_version(run):
    outcome = run("--version")
    assert (outcome.code, outcome.out, outcome.err) == (0, f"vsf {__version__}\n", "")


def test_help_lists_every_command(run):
    outcome = run("--help")
    assert outcome.code == 0
    for name in ("generate", "bench scenes", "scenes train"):
        assert f"  {name} " in outcome.out


def test_every_setting_is_a_flag(run):
    outcome = run("generate", "--help")
    assert outcome.code == 0
    for field in fields():
        assert (f"  {field.flag} " in outcome.out) == (not field.webui)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            (),
            "choose one of generate, video, studio, bench scenes, bench neggen, bench attention, "
            "bench model, bench speed, bench forge, bench evidence, scenes train",
        ),
        (
            ("draw",),
            "choose one of generate, video, studio, bench scenes, bench neggen, bench attention, "
            "bench model, bench speed, bench forge, bench evidence, scenes train",
        ),
        (("generat",), "did you mean generate?"),
        (("bench",), "bench scenes"),
        (("bench", "scenery"), "did you mean bench scenes?"),
        (("--verson",), "--verson"),
        (("--json", "generate"), "options come after the command: python -m vsf_lib generate --json ..."),
        (("bench", "--quick", "scenes"), "bench scenes --quick ..."),
        (("generate", "--alhpa", "1"), "--alhpa"),
        (("generate", "--pro", "a car"), "--pro"),
        (("generate", "--steps", "many"), "'many'"),
        (("generate",), "--prompt"),
        (("generate", "--prompt", ""), "prompt is empty"),
        (("generate", "--prompt", " \n "), "prompt is empty"),
        (("generate", "--prompt", "\ud83d"), "half of a character"),
        (("generate", "--prompt", "a unicorn in the snow"), "'unicorn'. It knows the things car, house"),
        ((*CAR, "--negative-prompt", "horns"), "'horns'. It knows the things car, house"),
        ((*CAR, "--alpha", "nan"), "alpha is 'nan', but must be a number from 0 to 100"),
        ((*CAR, "--alpha", "-1"), "alpha is '-1'"),
        ((*CAR, "--alpha", "inf"), "alpha is 'inf'"),
        ((*CAR, "--alpha", "1,5"), "alpha is '1,5'"),
        ((*CAR, "--beta", "101"), "beta is '101'"),
        ((*CAR, "--method", "magic"), "one of vsf, difference, nag, nasa, off"),
        ((*CAR, "--start", "0.7", "--end", "0.5"), "start must be below end"),
        ((*CAR, "--start", "0.3", "--end", "0.4", "--steps", "2"), "none of 2 steps"),
        ((*CAR, "--preset", "magic"), "choose one of auto, strong, nag"),
        ((*CAR, "--preset", "nag", "--method", "vsf"), "drop one"),
        ((*CAR, "--guidance-scale", "nan"), "guidance scale is nan"),
        ((*CAR, "--guidance-scale", "0.5"), "guidance scale is 0.5"),
        ((*CAR, "--steps", "0"), "steps is 0"),
        ((*CAR, "--model", "wan"), "that is a built-in model of videos, for python -m vsf_lib video"),
        ((*CAR, "--dtype", "int8"), "--dtype is 'int8', but must be one of auto, float32, bfloat16, float16"),
        ((*CAR, "--steps", "many"), "--steps is 'many', but must be a whole number"),
        ((*CAR, "--model", "sceness"), "there is no model 'sceness': did you mean scenes? Otherwise pass"),
        ((*CAR, "--batch", "0"), "batch is 0"),
        (
            (*CAR, "--seed", "-2"),
            "seed is -2, but must be a whole number from 0 to 4294967295, or -1",
        ),
        ((*CAR, "--seed", str(2**32)), f"seed is {2**32}"),
        ((*CAR, "--seed", str(2**32 - 1), "--batch", "2"), f"from 0 to {2**32 - 2}"),
        ((*CAR, "--size", "big"), "like 1024x768"),
        ((*CAR, "--device", "tpu"), "device is 'tpu'"),
        ((*CAR, "--compare", "--negative-prompt", ""), "give --negative-prompt"),
        ((*CAR, "--compare", "--method", "off"), "nothing to compare"),
        ((*CAR, "--model", ""), "the model has no name"),
        ((*CAR, "--model", "nowhere"), "there is no model 'nowhere'"),
        ((*CAR, "--model", "./nowhere"), "there is no model './nowhere'"),
        ((*CAR, "--model", "x\0y"), "model 'x\\x00y'"),
        ((*CAR, "--model", "x" * 5000), "model 'xxx"),
        ((*CAR, "--model", "~nobody-of-this-name/x"), "model '~nobody-of-this-name/x'"),
        ((*CAR, "--model", __file__), "is a file"),
        ((*CAR, "--model", str(Path(__file__).parent)), "has no model_index.json"),
        (("generate", "--from-image", "missing.png"), "cannot read missing.png"),
        (("generate", "--from-image", __file__), "is not a PNG file"),
    ],
)
def test_refused_in_one_line(run, tmp_path, words, says):
    outcome = run(*words)
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    assert says in outcome.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("started", [None, "python install.py", 'python "C:\\100% mine\\install.py"'])
def test_commands_are_named_as_the_program_was_started(run, monkeypatch, started):
    name = "python -m vsf_lib" if started is None else started
    if started is None:
        monkeypatch.delenv("VSF_STARTED_AS", raising=False)
    else:
        monkeypatch.setenv("VSF_STARTED_AS", started)
    assert f"(see {name} generate --help)" in run("generate", "--alhpa", "1").err
    assert f"(see {name} --help)" in run("bench").err
    assert f"options come after the command: {name} generate --json ..." in run("--json", "generate").err
    assert f"usage: {name} generate" in run("generate", "--help").out
    overview = run("--help").out
    assert f"usage: {name} COMMAND ..." in overview
    assert f"{name} COMMAND --help tells more." in overview
    assert f"for {name} video. Otherwise" in run(*CAR, "--model", "wan").err
    assert f"for {name} generate. Otherwise" in run("video", *CAR[1:], "--model", "scenes").err


def test_traceback_only_for_debug(run):
    assert "Traceback" not in run(*CAR, "--alpha", "nan").err
    outcome = run(*CAR, "--alpha", "nan", "--debug")
    assert outcome.code == 2
    assert "Traceback" in outcome.err
    assert outcome.err.splitlines()[-1].startswith("error: alpha is 'nan'")


@pytest.mark.parametrize(
    ("out", "says"),
    [
        ("", "--out is empty"),
        ("picture.jpg", "end the name in .png"),
        ("file/x.png", "cannot write to 'file/x.png'"),
        ("file/folder/", "cannot write to 'file/folder/'"),
        ("file", "end the name in .png"),
        ("/dev/full", "neither a file nor a folder"),
        ("new/" + "x" * 300 + "/x.png", "name too long"),
    ],
)
def test_unwritable_output_is_known_before_the_model_is_loaded(run, tmp_path, model, out, says):
    if out.startswith("/dev") and not Path(out).exists():
        pytest.skip("this system has no such device")
    (tmp_path / "file").write_bytes(b"kept")
    outcome = run(*CAR, "--model", model, "--device", "cuda:99", "--out", out)
    assert outcome.code == 2
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    assert says.lower() in outcome.err.lower()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"kept"


@pytest.mark.parametrize("command", [CAR, ("video", *CAR[1:])])
def test_a_file_where_the_usual_folder_belongs_is_named(run, tmp_path, command):
    (tmp_path / "outputs").write_bytes(b"kept")
    outcome = run(*command)
    assert outcome.code == 2
    assert f"because the file {tmp_path / 'outputs'} is in its place" in outcome.err
    assert "choose another folder with --out, or move that file" in outcome.err
    assert "end the name" not in outcome.err
    assert (tmp_path / "outputs").read_bytes() == b"kept"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--device", "cuda:99"), "this machine has no cuda:99"),
        (("--device", "cpu", "--offload", "model"), "needs a GPU"),
        (("--size", "60"), "multiples of 8 up to 128: try --size 64x64"),
        (("--size", "64x0"), "the height is 0"),
        (("--size", "1024"), "try --size 128x128"),
    ],
)
def test_refused_for_this_machine_and_model(run, tmp_path, model, words, says):
    outcome = run(*CAR, "--model", model, "--out", "new/folder/", *words)
    assert outcome.code == 2
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    assert says in outcome.err
    assert list(tmp_path.iterdir()) == [], "folders that were made for nothing are removed"
