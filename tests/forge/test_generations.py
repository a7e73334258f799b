"""The extension in a real Forge, through its HTTP API."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
from forge_client import HIRES, Answer, Forge, ForgeError, difference, picture_of, same

KINDS = ("turbo", "medium", "dev", "schnell")
STYLE = "Kamph_Default_Negative (NO)"
"""Comes with Forge, and has a negative prompt of several chunks."""
ON = {
    "enabled": True,
    "negative_prompt": "wheels",
    "alpha": 2.0,
    "beta": 0.0,
    "negative_tokens": "all",
}


@pytest.mark.parametrize("kind", KINDS)
def test_on_off_and_again(forge: Forge, model: Any, kind: str) -> None:
    plain = forge.txt2img(model(kind))
    assert "VSF" not in plain.infotexts[0]
    on = forge.txt2img(model(kind), ON)
    assert not same(on, plain)
    for part in ("VSF negative prompt: wheels", "VSF alpha: 2", "VSF beta: 0"):
        assert part in on.infotexts[0]
    assert same(forge.txt2img(model(kind), ON), on)
    off = forge.txt2img(model(kind), {**ON, "enabled": False})
    assert same(off, plain)
    assert off.infotexts == plain.infotexts
    words = forge.txt2img(model(kind), {**ON, "negative_tokens": "words"})
    assert "VSF negative tokens: words" in words.infotexts[0]
    assert not same(words, on)
    stronger = forge.txt2img(model(kind), {**ON, "alpha": 6.0})
    assert not same(stronger, on)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["difference", "nag", "nasa"])
def test_other_methods(forge: Forge, model: Any, kind: str, method: str) -> None:
    on = forge.txt2img(model(kind), {"negative_prompt": "wheels", "method": method})
    assert f"VSF method: {method}" in on.infotexts[0]
    assert not same(on, forge.txt2img(model(kind)))


@pytest.mark.parametrize("kind", ["turbo", "dev"])
def test_ways_to_generate(forge: Forge, model: Any, kind: str) -> None:
    title = model(kind)
    first = forge.txt2img(title, seed=2).pictures[0]
    mask = np.zeros((256, 256, 3), np.uint8)
    mask[64:192, 64:192] = 255
    hires = {**HIRES, "hr_second_pass_steps": 2}
    styles = [style["name"] for style in forge.request("/sdapi/v1/prompt-styles")]
    for name, call in {
        "img2img": lambda vsf: forge.img2img(title, first, vsf, steps=6, denoising_strength=0.5),
        "inpaint": lambda vsf: forge.img2img(
            title, first, vsf, steps=6, mask=picture_of(mask), inpainting_fill=1, mask_blur=0
        ),
        "hires": lambda vsf: forge.txt2img(title, vsf, **hires),
        "cfg": lambda vsf: forge.txt2img(title, vsf, cfg_scale=3, negative_prompt="dark"),
        "batch": lambda vsf: forge.txt2img(title, vsf, batch_size=2, n_iter=2),
        "and": lambda vsf: forge.txt2img(title, vsf, prompt="a red car AND a blue sky :0.5"),
        "negatives per picture": lambda vsf: forge.txt2img(
            title,
            None if vsf is None else {**vsf, "negative_prompt": ""},
            batch_size=2,
            trial={"negatives": ["wheels", "the windows of a very long house"]},
        ),
        "style": lambda vsf: forge.txt2img(
            title, None if vsf is None else {**vsf, "negative_prompt": ""}, styles=[STYLE]
        ),
        "two calls a step": lambda vsf: forge.txt2img(title, vsf, sampler_name="Heun"),
    }.items():
        if name == "style" and STYLE not in styles:
            continue
        call(None)  # the host encodes a picture with the random numbers that the request before has left
        plain, on = call(None), call(ON)
        assert not same(on, plain), name
        assert all("VSF alpha: 2" in text for text in on.infotexts), name
        assert same(call(None), plain), name


def test_each_picture_is_kept_from_its_own(forge: Forge, model: Any) -> None:
    texts, common = ["wheels", "the windows of a very long house"], {"batch_size": 2}
    strength = {"alpha": 2.0, "beta": 0.0}
    both = forge.txt2img(model("turbo"), strength, trial={"negatives": texts}, **common)
    for i, text in enumerate(texts):
        one = forge.txt2img(model("turbo"), strength, negative_prompt=text, **common)
        apart = difference(one.pictures[i : i + 1], both.pictures[i : i + 1])
        across = difference(one.pictures[1 - i : 2 - i], both.pictures[1 - i : 2 - i])
        assert apart < across / 100
        assert f"Negative prompt: {text}" in both.infotexts[i]


@pytest.mark.parametrize("kind", ["turbo", "dev"])
def test_calls_of_one_batch_each(forge: Forge, model: Any, kind: str) -> None:
    """Short memory, and texts whose lengths cannot be joined: the host then calls the model twice a step."""
    common = {"cfg_scale": 3, "negative_prompt": "dark"}
    whole, apart = (forge.txt2img(model(kind), ON, trial={"separate": s}, **common) for s in (False, True))
    plain = forge.txt2img(model(kind), **common)
    assert difference(whole.pictures, apart.pictures) < difference(whole.pictures, plain.pictures) / 100
    common["prompt"] = "a red car, " * 90
    long = forge.txt2img(model(kind), ON, **common)
    assert difference(long.pictures, forge.txt2img(model(kind), **common).pictures) > 1


def test_hires_passes_differ(forge: Forge, model: Any) -> None:
    hires = {**HIRES}
    made = [
        forge.txt2img(model("turbo"), {**ON, "hires_pass": which}, **hires)
        for which in ("both", "first", "second")
    ]
    assert not any(same(a, b) for a, b in ((made[0], made[1]), (made[0], made[2]), (made[1], made[2])))


@pytest.mark.parametrize("kind", ["turbo", "schnell"])
def test_the_hosts_own_box_its_weights_and_schedules(forge: Forge, model: Any, kind: str) -> None:
    title, strength = model(kind), {"alpha": 2.0, "beta": 0.0, "negative_scale": 0}
    own = forge.txt2img(title, {**strength, "negative_prompt": "wheels"})
    host = forge.txt2img(title, strength, negative_prompt="wheels")
    assert same(own, host)
    assert "Negative prompt: wheels" in host.infotexts[0]
    weighted = forge.txt2img(title, strength, negative_prompt="(wheels:1.6)")
    changing = forge.txt2img(title, strength, negative_prompt="[wheels:roof:0.5]")
    assert not same(weighted, own)
    assert not same(changing, own)
    tagged = forge.txt2img(title, strength, negative_prompt="wheels <lora:nothing:1>")
    assert same(tagged, own)


def test_a_schedule_that_ends_is_guidance_that_ends(forge: Forge, model: Any) -> None:
    strength = {"alpha": 2.0, "beta": 0.0}
    # The host counts from 0 against boundaries that count from 1: half of 4 are the first three steps.
    ends = forge.txt2img(model("turbo"), {**strength, "negative_prompt": "[wheels::0.5]"}, steps=4)
    until = forge.txt2img(model("turbo"), {**strength, "negative_prompt": "wheels", "end": 0.75}, steps=4)
    assert same(ends, until)


def test_hires_alone_can_have_a_negative(forge: Forge, model: Any) -> None:
    hires = {**HIRES, "hr_negative_prompt": "wheels"}
    strength = {"alpha": 2.0, "beta": 0.0}
    second = forge.txt2img(model("turbo"), {**strength, "hires_pass": "second"}, **hires)
    assert "VSF alpha: 2" in second.infotexts[0]
    assert not same(second, forge.txt2img(model("turbo"), **hires))
    with pytest.raises(ForgeError, match="first pass of hires fix has no negative"):
        forge.txt2img(model("turbo"), strength, **hires)


def test_nothing_to_keep_out_is_a_notice(forge: Forge, model: Any) -> None:
    plain = forge.txt2img(model("turbo"))
    empty = forge.txt2img(model("turbo"), {"enabled": True})
    assert same(plain, empty)
    assert "VSF" not in empty.infotexts[0]


def test_t5_off_and_on_are_different_texts(forge: Forge, model: Any) -> None:
    one, other = (
        forge.txt2img(model("turbo"), ON, options={"sd3_enable_t5": enabled}) for enabled in (True, False)
    )
    assert not same(one, other)


@pytest.mark.parametrize(
    ("vsf", "says"),
    [
        ({**ON, "alpha": -1}, "alpha is -1"),
        ({**ON, "alfa": 1}, "no argument 'alfa'"),
        ({**ON, "start": 0.4, "end": 0.5}, "none of 3 steps"),
        ({**ON, "negative_scale": 4}, "does nothing on SD3.5"),
        ([True, "Best"], "there is no preset 'Best'"),
    ],
)
def test_what_cannot_be_done_ends_the_generation(forge: Forge, model: Any, vsf: Any, says: str) -> None:
    plain = forge.txt2img(model("turbo"))
    with pytest.raises(ForgeError, match=says):
        forge.txt2img(model("turbo"), vsf)
    assert same(forge.txt2img(model("turbo")), plain)


def test_skip_goes_on_without(forge: Forge, model: Any) -> None:
    skipped = forge.txt2img(model("turbo"), {**ON, "alpha": -1}, options={"vsf_strictness": "skip"})
    assert same(skipped, forge.txt2img(model("turbo")))
    assert "VSF" not in skipped.infotexts[0]


@pytest.mark.parametrize(
    ("kind", "block"),
    [("turbo", "joint_blocks.2"), ("medium", "joint_blocks.0.x_block.attn2.qkv"), ("dev", "single_blocks.1")],
)
@pytest.mark.parametrize("error", ["RuntimeError", "OutOfMemoryError"])
def test_an_error_in_the_middle_of_sampling(
    forge: Forge, model: Any, kind: str, block: str, error: str
) -> None:
    plain, on = forge.txt2img(model(kind)), forge.txt2img(model(kind), ON)
    with pytest.raises(ForgeError, match="forced by a test"):
        forge.txt2img(model(kind), ON, trial={"raise": {"block": block, "call": 2, "error": error}})
    assert same(forge.txt2img(model(kind)), plain)
    assert same(forge.txt2img(model(kind), ON), on)


def test_a_skipped_batch_does_not_spoil_the_next(forge: Forge, model: Any) -> None:
    common = {"steps": 20, "n_iter": 2}
    whole = forge.txt2img(model("turbo"), ON, **common)
    answers: list[Answer] = []
    job = threading.Thread(target=lambda: answers.append(forge.txt2img(model("turbo"), ON, **common)))
    job.start()
    while forge.request("/sdapi/v1/progress")["state"]["sampling_step"] < 2 and job.is_alive():
        time.sleep(0.05)
    forge.request("/sdapi/v1/skip", {})
    job.join()
    assert not np.array_equal(answers[0].pictures[0], whole.pictures[0])
    assert np.array_equal(answers[0].pictures[-1], whole.pictures[-1])
    assert answers[0].infotexts[-1] == whole.infotexts[-1]


def test_an_interrupt_leaves_the_model_as_it_was(forge: Forge, model: Any) -> None:
    plain = forge.txt2img(model("turbo"))
    answers: list[Answer] = []
    job = threading.Thread(target=lambda: answers.append(forge.txt2img(model("turbo"), ON, steps=60)))
    job.start()
    while forge.request("/sdapi/v1/progress")["state"]["sampling_step"] < 2 and job.is_alive():
        time.sleep(0.05)
    forge.request("/sdapi/v1/interrupt", {})
    job.join()
    assert "VSF alpha: 2" in answers[0].infotexts[0]
    assert same(forge.txt2img(model("turbo")), plain)


def test_models_alternate(forge: Forge, model: Any) -> None:
    first = {kind: forge.txt2img(model(kind), ON) for kind in KINDS}
    for kind in reversed(KINDS):
        assert same(forge.txt2img(model(kind), ON), first[kind])


def test_read_only_routes(forge: Forge) -> None:
    schema = forge.request("/vsf/v1/schema")
    assert [entry["name"] for entry in schema["arguments"]][:2] == ["enabled", "preset"]
    names = [entry["name"] for entry in forge.request("/vsf/v1/presets")["presets"]]
    assert "Flux schnell" in names


def test_presets_are_resolved_by_the_model(forge: Forge, model: Any) -> None:
    presets = {entry["name"]: entry["values"] for entry in forge.request("/vsf/v1/presets")["presets"]}
    for kind, name in (
        ("turbo", "SD3.5 large turbo, quality"),
        ("schnell", "Flux schnell"),
        ("dev", "Flux dev and Krea dev"),
    ):
        on = forge.txt2img(model(kind), {"negative_prompt": "wheels"})
        assert f"VSF alpha: {presets[name]['alpha']:g}" in on.infotexts[0]


XYZ_STEPS, XYZ_CHECKPOINT = 4, 12
"""Where these stand among the plot's axes for txt2img."""


def plot(forge: Forge, title: str, axis: int, values: list[str], vsf: dict[str, Any], **more: Any) -> Answer:
    listed = [axis, ",".join(values), values] if axis == XYZ_CHECKPOINT else [axis, ",".join(values), []]
    rest = [False, True, False, False, False, False, False, 0, False]
    return forge.txt2img(
        title, vsf, script_name="x/y/z plot", script_args=[*listed, 0, "", [], 0, "", [], *rest], **more
    )


def vsf_keys(infotext: str) -> list[str]:
    return [pair for pair in infotext.split("\n")[-1].split(", ") if pair.startswith("VSF")]


def test_a_plot_over_checkpoints(forge: Forge, model: Any) -> None:
    auto = {"negative_prompt": "wheels"}
    made = plot(forge, model("turbo"), XYZ_CHECKPOINT, [model("schnell"), model("turbo")], auto)
    for place, kind in ((-2, "schnell"), (-1, "turbo")):
        alone = forge.txt2img(model(kind), auto)
        assert np.array_equal(made.pictures[place], alone.pictures[0])
        assert vsf_keys(made.infotexts[place]) == vsf_keys(alone.infotexts[0])
    assert "VSF negative tokens: words" in made.infotexts[-2]
    assert "VSF negative tokens" not in made.infotexts[-1]


def test_a_plot_survives_what_cannot_be_guided(forge: Forge, model: Any) -> None:
    narrow = {**ON, "start": 0.4, "end": 0.5}  # 3 steps have none in there, 10 have one
    stopped = plot(forge, model("turbo"), XYZ_STEPS, ["10", "3"], narrow)
    assert "VSF" in stopped.infotexts[-2]
    assert stopped.infotexts[-1] is None, "the plot leaves the place of a picture that failed empty"
    assert not stopped.pictures[-1].any()
    made = plot(
        forge, model("turbo"), XYZ_STEPS, ["10", "3", "10"], narrow, options={"vsf_strictness": "skip"}
    )
    first, second, third = made.pictures[-3:]
    assert np.array_equal(first, third)
    assert not np.array_equal(first, forge.txt2img(model("turbo"), steps=10).pictures[0])
    assert np.array_equal(second, forge.txt2img(model("turbo")).pictures[0])
    assert ["VSF" in text for text in made.infotexts[-3:]] == [True, False, True]
