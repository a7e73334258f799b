"""Infotext of whole pictures: repeatable from any prompt, readable by hosts, and files whole or not there."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from host_rules import HOSTS
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from vsf_lib.errors import OutputError, SettingsError
from vsf_lib.metadata import Parameters, format_parameters, parse_parameters, read_png, write_png
from vsf_lib.settings import Settings

hosts = pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)
PIECES = (
    *'"\\,: \n\r\t[]\x00\x0b\x85\u2028é🚗a',
    *(
        "Negative prompt:",
        "Negative prompt: b",
        "Steps: 3, Seed: 4, Size: 1x1",
        "VSF prompt",
        '["',
        "64x64",
        "\n\n",
    ),
)
PROMPTS = st.lists(st.sampled_from(PIECES), max_size=8).map("".join) | st.text()
KEYS = st.from_regex(r"[A-Za-z_][A-Za-z /-]{1,12}", fullmatch=True).map(lambda key: "Z" + key)
CAT = Parameters("a cat", steps=8, sampler="Flow Euler", cfg_scale=1.0, seed=7, width=64, height=48)


def cat(**values: object) -> Parameters:
    return Parameters(**{**vars(CAT), **values})  # type: ignore[arg-type]


@settings(max_examples=500)
@given(PROMPTS, PROMPTS)
@example("a\nNegative prompt: b", "")
@example("Negative prompt: b", "Negative prompt: c")
@example("a \n b", "\n")
@example("\n\na", "b\n")
@example("half \ud83d", "a\x00b")
@example("a cat\nSteps: 3, Sampler: x, Seed: 4, Size: 1x1", "Steps: 1, Seed: 2, CFG scale: 3")
def test_any_prompts_come_back_exactly(prompt, negative):
    parameters = cat(prompt=prompt, negative_prompt=negative)
    assert parse_parameters(format_parameters(parameters)) == parameters


@given(
    sampler=PROMPTS,
    model=PROMPTS,
    version=PROMPTS,
    cfg_scale=st.floats(allow_nan=False, allow_infinity=False),
    seed=st.integers(-1, 2**64),
    steps=st.integers(1, 10**6),
    width=st.integers(1, 10**6),
    negative=PROMPTS,
    extra=st.dictionaries(KEYS, PROMPTS, max_size=3),
)
def test_every_value_comes_back_exactly(negative, **values):
    encodable = negative.encode("utf-8", "replace").decode()
    parameters = cat(**values, settings=Settings(negative_prompt=encodable, alpha=0.1 + 0.2, beta=1e-9))
    assert parse_parameters(format_parameters(parameters)) == parameters


def test_the_text_is_what_the_webuis_write():
    parameters = cat(
        prompt="a red car\non a field",
        negative_prompt="blurry",
        model="scenes",
        version="vsf 0.1.0",
        settings=Settings(negative_prompt="wheels, hat", alpha=0.5, beta=0.0),
        extra={"Device": "cpu"},
    )
    assert format_parameters(parameters) == (
        "a red car\non a field\nNegative prompt: blurry\n"
        "Steps: 8, Sampler: Flow Euler, CFG scale: 1, Seed: 7, Size: 64x48, Model: scenes, "
        'VSF negative prompt: "wheels, hat", VSF alpha: 0.5, VSF beta: 0, Device: cpu, Version: vsf 0.1.0'
    )


@hosts
@settings(max_examples=300)
@given(PROMPTS, PROMPTS, PROMPTS)
def test_a_host_reads_the_line_of_pairs_whatever_the_prompts(host, prompt, negative, guided):
    value = Settings(negative_prompt=guided.encode("utf-8", "replace").decode())
    found = host.paste(format_parameters(cat(prompt=prompt, negative_prompt=negative, settings=value)))
    assert Settings.from_infotext(found) == value
    assert [found[key] for key in ("Steps", "Sampler", "CFG scale", "Seed", "Size-1", "Size-2")] == [
        *("8", "Flow Euler", "1", "7", "64", "48")
    ]


@hosts
def test_a_host_reads_ordinary_prompts(host):
    found = host.paste(format_parameters(cat(prompt="a car,\nred: very", negative_prompt='"blurry", bad')))
    assert (found["Prompt"], found["Negative prompt"]) == ("a car,\nred: very", '"blurry", bad')
    assert not [key for key in found if key.startswith("VSF")]


def test_settings_that_guide_nothing_are_not_written():
    for value in (None, Settings(method="off", negative_prompt="wheels")):
        text = format_parameters(cat(settings=value))
        assert "VSF" not in text
        assert parse_parameters(text) == CAT


def test_a_webuis_own_picture_is_read_and_written_again():
    text = (
        "portrait, (hat:1.2)\nsecond line\nNegative prompt: ugly, [bad]\nworse\n"
        "Steps: 20, Sampler: Euler a, Schedule type: Simple, CFG scale: 7.5, Seed: 31337, Size: 512x768, "
        'Model hash: 00ff00ff, Model: sd_xl, Lora hashes: "detail: 0a1b, more: 2c3d", Version: v1.10.1'
    )
    parameters = parse_parameters(text)
    assert parameters.prompt == "portrait, (hat:1.2)\nsecond line"
    assert parameters.negative_prompt == "ugly, [bad]\nworse"
    assert (parameters.steps, parameters.cfg_scale, parameters.seed) == (20, 7.5, 31337)
    assert (parameters.width, parameters.height, parameters.model) == (512, 768, "sd_xl")
    assert parameters.settings is None
    assert parameters.extra["Lora hashes"] == "detail: 0a1b, more: 2c3d"
    assert parse_parameters(format_parameters(parameters)) == parameters


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "does not end in a line of parameters"),
        ("just words, and: more", "does not end in a line of parameters"),
        ("a\nSteps: 8, Sampler: x, Seed: 1, Size: 8x8", "does not say CFG scale"),
        ("a\nSteps: many, Sampler: x, CFG scale: 1, Seed: 1, Size: 8x8", "Steps is 'many'"),
        ("a\nSteps: 8, Sampler: x, CFG scale: nan, Seed: 1, Size: 8x8", "CFG scale is 'nan'"),
        ("a\nSteps: 8, Sampler: x, CFG scale: 1, Seed: 1, Size: wide", "Size is 'wide'"),
        ("a\nSteps: 8, Sampler: x, CFG scale: 1, Seed: 1, Size: 8x8, VSF alpha: -1", "alpha is '-1'"),
    ],
)
def test_what_cannot_be_repeated_is_named(text, message):
    with pytest.raises(SettingsError) as caught:
        parse_parameters(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["Steps", "VSF alpha", "VSF prompt", "a:b", "x", "", "new\nline"])
def test_an_extra_name_that_would_be_misread_is_refused(key):
    with pytest.raises(SettingsError, match="extra infotext value"):
        format_parameters(cat(extra={key: "1"}))


def test_an_endless_cfg_scale_is_refused():
    with pytest.raises(SettingsError, match="CFG scale is inf"):
        format_parameters(cat(cfg_scale=float("inf")))


# Files


def picture(mode: str = "RGB") -> Image.Image:
    return Image.effect_noise((16, 12), 90).convert(mode)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PROMPTS)
@example("plain")
@example("naïve ÿ")
@example("日本 🚗")
@example("x" * 100_000)
def test_a_png_carries_its_infotext_and_its_pixels(tmp_path, prompt):
    text = format_parameters(cat(prompt=prompt))
    path, image = tmp_path / "ä picture.png", picture()
    write_png(path, image, text)
    assert read_png(path) == text
    with Image.open(path) as again:
        assert again.info["parameters"] == text
        assert again.tobytes() == image.tobytes()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("prompt", "chunk"), [("naïve", b"tEXtparameters"), ("日本", b"iTXtparameters")])
def test_latin_text_is_plain_and_other_text_unicode(tmp_path, prompt, chunk):
    write_png(tmp_path / "a.png", picture(), format_parameters(cat(prompt=prompt)))
    assert chunk in (tmp_path / "a.png").read_bytes()


def test_a_file_gets_the_rights_that_files_get(tmp_path):
    (tmp_path / "other").touch()
    write_png(tmp_path / "a.png", picture(), "text")
    assert (tmp_path / "a.png").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_an_older_picture_is_replaced(tmp_path):
    for text in ("first", "second"):
        write_png(tmp_path / "a.png", picture(), text)
    assert read_png(tmp_path / "a.png") == "second"


def refused(path: Path, image: Image.Image | None = None) -> None:
    with pytest.raises(OutputError) as caught:
        write_png(path, image or picture(), "text")
    assert str(caught.value).startswith(f"cannot write {path}: ")
    assert "\n" not in str(caught.value)


def test_what_cannot_be_written_is_an_error_and_leaves_nothing(tmp_path):
    (tmp_path / "file").write_bytes(b"kept")
    (tmp_path / "folder.png").mkdir()
    before = sorted(tmp_path.iterdir())
    refused(tmp_path / "missing" / "a.png")
    refused(tmp_path / "file" / "a.png")
    refused(tmp_path / "folder.png")
    refused(tmp_path / ("a" * 300 + ".png"))
    refused(tmp_path / "a.png", picture("HSV"))
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "file").read_bytes() == b"kept"
    assert not list((tmp_path / "folder.png").iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="has no such device")
def test_a_device_is_not_replaced_by_a_picture():
    refused(Path("/dev/full"))
    assert Path("/dev/full").is_char_device()


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="rights do not bind this user")
def test_a_folder_without_rights_is_an_error(tmp_path):
    tmp_path.chmod(0o500)
    refused(tmp_path / "a.png")


@pytest.mark.skipif(os.name == "nt", reason="limits of POSIX")
def test_a_disk_that_fills_up_leaves_the_older_picture_and_nothing_else(tmp_path):
    path = tmp_path / "a.png"
    write_png(path, picture(), "older")
    code = f"""
        import resource
        from PIL import Image
        from vsf_lib.errors import OutputError
        from vsf_lib.metadata import write_png
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
        try:
            write_png({str(path)!r}, Image.effect_noise((256, 256), 90), "newer")
        except OutputError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"cannot write {path}: File too large")
    assert len(done.stdout.splitlines()) == 1
    assert list(tmp_path.iterdir()) == [path]
    assert read_png(path) == "older"


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interruption_before_the_end_leaves_nothing(tmp_path, monkeypatch, error):
    def fail(_):
        assert [path.suffix for path in tmp_path.iterdir()] == [".part"]
        raise error("stopped")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(KeyboardInterrupt if error is KeyboardInterrupt else OutputError):
        write_png(tmp_path / "a.png", picture(), "text")
    assert not list(tmp_path.iterdir())


def test_a_file_cut_at_any_byte_or_with_any_byte_changed_is_damaged(tmp_path):
    path = tmp_path / "a.png"
    write_png(path, picture(), format_parameters(CAT))
    content = path.read_bytes()
    for length in range(1, len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(SettingsError, match=r"is damaged or cut off|is not a PNG file"):
            read_png(path)
    for index in range(len(content)):
        path.write_bytes(content[:index] + bytes([content[index] ^ 0x41]) + content[index + 1 :])
        with pytest.raises(SettingsError, match=r"is damaged or cut off|is not a PNG file"):
            read_png(path)


def test_what_carries_no_infotext_is_named(tmp_path):
    path = tmp_path / "a.png"
    with pytest.raises(SettingsError, match=r"cannot read .*a\.png: No such file"):
        read_png(path)
    with pytest.raises(SettingsError, match="cannot read"):
        read_png(tmp_path)
    path.write_bytes(b"")
    with pytest.raises(SettingsError, match="is empty"):
        read_png(path)
    picture().save(path, "JPEG")
    with pytest.raises(SettingsError, match="is not a PNG file"):
        read_png(path)
    picture().save(path, "PNG")
    with pytest.raises(SettingsError, match='carries no "parameters"'):
        read_png(path)


def test_text_behind_the_pixels_is_found(tmp_path):
    path = tmp_path / "a.png"
    text = PngImagePlugin.PngInfo()
    text.add_text("parameters", "behind", zip=True)
    picture().save(path, "PNG", pnginfo=text)
    content = path.read_bytes()
    begin = content.index(b"zTXt") - 4
    end = begin + 12 + int.from_bytes(content[begin : begin + 4], "big")
    path.write_bytes(content[:begin] + content[end:-12] + content[begin:end] + content[-12:])
    assert read_png(path) == "behind"
