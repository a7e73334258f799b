"""What a video may be, how its text brings it back, and the arithmetic of its frames."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsf_lib.errors import PromptError, SettingsError
from vsf_lib.settings import Settings
from vsf_lib.video.job import SIZES, Lora, VideoJob

TEXT = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=60).filter(str.strip)


def job(**values):
    return VideoJob.create(**{"prompt": "a red car", **values})


def test_defaults_are_a_video_that_wan_makes():
    made = job()
    assert (made.width, made.height, made.frames, made.effective_shift) == (832, 480, 81, 3.0)
    assert made.made_frames == 81
    assert job(settings={"negative_prompt": "wheels"}).notes == ()


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, "no negative prompt, so nothing is guided"),
        (
            {"settings": {"method": "off", "negative_prompt": "wheels"}},
            "the method is off, so the negative",
        ),
        ({"settings": {"method": "off", "negative_prompt": "wheels"}, "guidance_scale": 5}, None),
        ({"settings": {"method": "off"}}, None),
    ],
)
def test_a_negative_prompt_that_does_nothing_is_told(values, says):
    notes = job(**values).notes
    assert (says is None and notes == ()) or says in notes[0]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"width": 830}, "816 or 832, not 830|multiples of 16: 816 or 832"),
        ({"height": 8}, "height is 8"),
        ({"frames": 80}, "77 or 81, not 80"),
        ({"frames": 0}, "frames is 0"),
        ({"steps": 0}, "^steps is 0, but must be a whole number from 1 to 100$"),
        ({"steps": "many"}, "^steps is 'many', but must be a whole number from 1 to 100$"),
        ({"steps": 2.5}, "^steps is 2.5, but must be a whole number from 1 to 100$"),
        ({"steps": True}, "^steps is True, but must be a whole number from 1 to 100$"),
        ({"steps": [3]}, r"^steps is \[3\], but must be a whole number from 1 to 100$"),
        ({"width": None}, "^width is empty, but must be a whole number from 64 to 4096$"),
        ({"guidance_scale": ""}, "^guidance_scale is empty, but must be a number from 1 to 30$"),
        ({"flow_shift": 0}, "^flow_shift is 0, but must be a number above 0, up to 20$"),
        ({"drop_frames": 99}, "^drop_frames is 99, but must be a whole number from 0 to 40$"),
        ({"seed": 2**32}, "^seed is 4294967296, but must be a whole number from 0 to 4294967295$"),
        ({"compare": "perhaps"}, "^compare is 'perhaps', but must be true or false$"),
        ({"offload": None}, "^offload is empty, but must be one of auto, none, model, group$"),
        ({"vae": 3}, "^vae is 3, but must be text$"),
        ({"loras": "x"}, "^loras is 'x', but must be a list$"),
        ({"loras": [{"file": "a", "weight": "x"}]}, "weight is 'x', but must be a number from -4 to 4$"),
        ({"loras": [{}]}, "file is empty, but must be text$"),
        ({"seed": -1}, "seed is -1"),
        ({"flow_shift": float("nan")}, "flow_shift is nan"),
        ({"drop_frames": 5}, "groups of 4"),
        ({"format": "avi"}, "format is 'avi'"),
        ({"settings": {"alpha": -1}}, "alpha is -1"),
        ({"colour": "red"}, "no 'colour'"),
        ({"loras": [{"file": "a|b"}]}, "cannot be a LoRA's file"),
        ({"loras": [{"file": "a", "weight": 99}]}, "weight is 99"),
        ({"prompt": "half \ud800"}, "half of a character"),
    ],
)
def test_bad_values_get_one_line(values, says):
    with pytest.raises(SettingsError, match=says) as caught:
        job(**values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("prompt", ["", "  \n"])
def test_an_empty_prompt_is_told(prompt):
    with pytest.raises(PromptError, match="prompt is empty"):
        VideoJob.create(prompt=prompt)
    with pytest.raises(PromptError):
        VideoJob.create()


@pytest.mark.parametrize("size", SIZES.values())
def test_the_flow_shift_goes_by_the_size(size):
    width, height = size
    made = job(width=width, height=height)
    assert made.effective_shift == (5.0 if 720 in size else 3.0)
    assert made.changed(flow_shift=4).effective_shift == 4


def test_causvids_first_frames_are_extra_and_dropped():
    causvid = Lora(file="Wan21_CausVid_bidirect2_T2V_1_3B_lora_rank32.safetensors", weight=0.5)
    made = job(loras=[causvid], frames=17)
    assert made.effective_drop >= 5, "the authors' videos need five to settle"
    assert made.made_frames - made.effective_drop == made.frames
    assert made.made_frames % 4 == 1
    assert any("dropped" in note for note in made.notes)
    assert made.changed(drop_frames=0).made_frames == 17
    assert job(loras=[Lora(file="lightx2v.safetensors")]).effective_drop == 0
    assert any("repetition" in note for note in job(frames=85).notes)


@pytest.mark.parametrize(
    ("text", "file", "weight"),
    [
        ("a.safetensors", "a.safetensors", 1),
        ("a.safetensors:0.5", "a.safetensors", 0.5),
        (r"C:\models\ä b.safetensors:-1", r"C:\models\ä b.safetensors", -1),
        (r"C:\models\a.safetensors", r"C:\models\a.safetensors", 1),
        ("few-steps:0.1234567891", "few-steps", 0.1234567891),
        ("few-steps:-1e-07", "few-steps", -1e-07),
        ("a.safetensors:1.2345678e-05", "a.safetensors", 1.2345678e-05),
    ],
)
def test_a_lora_is_a_file_and_a_weight(text, file, weight):
    lora = Lora.parse(text)
    assert (lora.file, lora.weight) == (file, weight)
    assert Lora.parse(str(lora)) == lora


@pytest.mark.parametrize("text", ["", "a:1.2.3", "a:9"])
def test_a_bad_lora_is_told(text):
    with pytest.raises(SettingsError):
        Lora.parse(text)


@given(
    prompt=TEXT,
    negative=st.one_of(st.just(""), TEXT),
    file=TEXT.filter(lambda text: "|" not in text and all(ord(sign) >= 32 for sign in text)),
    weight=st.floats(-4, 4).map(lambda x: round(x, 3)),
    frames=st.integers(0, 60).map(lambda k: 4 * k + 1),
    seed=st.integers(0, 2**32 - 1),
    method=st.sampled_from(["vsf", "nag", "off"]),
    guidance=st.sampled_from([1.0, 5.0]),
    compare=st.booleans(),
)
def test_the_infotext_brings_everything_back(
    prompt, negative, file, weight, frames, seed, method, guidance, compare
):
    compare = compare and method != "off" and bool(negative)
    made = job(
        compare=compare,
        prompt=prompt,
        settings=Settings(method=method, negative_prompt=negative, alpha=1.5),
        loras=[Lora(file=file, weight=weight), Lora(file="CausVid.safetensors", weight=0.5)],
        frames=frames,
        seed=seed,
        guidance_scale=guidance,
        format="mp4",
    )
    again = VideoJob.from_infotext(made.infotext(version="vsf 1"))
    assert again.prompt == made.prompt
    assert again.loras == made.loras
    assert (again.frames, again.seed, again.width, again.height, again.fps) == (
        frames, seed, made.width, made.height, made.fps,
    )  # fmt: skip
    assert (again.effective_drop, again.effective_shift) == (made.effective_drop, made.effective_shift)
    acts = method != "off" and made.settings.negative_prompt
    assert (again.settings.method != "off") == bool(acts)
    if acts:
        assert again.settings.canonical() == made.settings.canonical()
    elif guidance > 1:
        assert again.settings.negative_prompt == made.settings.negative_prompt
    assert again.compare == compare
    assert again.infotext() == made.infotext()
    assert "VSF comparison" not in made.infotext(guided=False)


def test_a_picture_is_no_video():
    with pytest.raises(SettingsError, match="not the parameters of a video"):
        VideoJob.from_infotext("a car\nSteps: 8, Sampler: Euler, CFG scale: 1, Seed: 1, Size: 64x64")


@pytest.mark.parametrize("text", ["x.safetensors:abc", "x.SafeTensors:", "x.safetensors:0.5:1"])
def test_a_weight_that_is_none_is_told(text):
    if text.endswith(":"):
        assert Lora.parse(text).weight == 1
        return
    with pytest.raises(SettingsError, match="is no number"):
        Lora.parse(text)


@pytest.mark.parametrize("text", ["few-steps:abc", "few-steps:0,5", "a name:half"])
def test_a_weight_behind_a_name_is_told_too(text):
    name, _, weight = text.partition(":")
    with pytest.raises(
        SettingsError, match=f"the weight '{weight}' of the LoRA {name} is no number: give it as"
    ):
        Lora.parse(text)
    assert Lora.parse(r"C:\models\x.ckpt").file == r"C:\models\x.ckpt"


def test_loras_are_looked_at_without_torch(tmp_path):
    (tmp_path / "cut.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{")
    (tmp_path / "x.ckpt").write_bytes(b"x")
    code = """
import sys
from vsf_lib.errors import ModelError
from vsf_lib.video.lora import Lora, check_loras
check_loras([Lora(file="few-steps")])
for name in sys.argv[1:]:
    try:
        check_loras([Lora(file="few-steps"), Lora(file=name)])
    except ModelError as error:
        print(error)
assert "torch" not in sys.modules and "diffusers" not in sys.modules
"""
    files = [str(tmp_path / name) for name in ("gone.safetensors", "x.ckpt", "cut.safetensors")]
    done = subprocess.run(
        [sys.executable, "-c", code, *files, "few-step"], capture_output=True, text=True, check=True
    )
    said = done.stdout.splitlines()
    assert said[0] == f"there is no LoRA {files[0]}: check its name, or have it downloaded first"
    assert said[1].startswith("x.ckpt is no .safetensors file: other formats can run code")
    assert said[2].startswith("cut.safetensors is damaged or cut off: fetch it again")
    assert said[3] == "there is no LoRA few-step: did you mean the built-in few-steps?"


@pytest.mark.parametrize("number", ["nan", "inf", "2.5", "x"])
def test_a_number_of_frames_that_is_none_is_told(number):
    text = job(frames=17).infotext().replace("VSF frames: 17", f"VSF frames: {number}")
    with pytest.raises(SettingsError, match=f"VSF frames is '?{number}"):
        VideoJob.from_infotext(text)
