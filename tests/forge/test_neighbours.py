"""Other extensions in the same Forge, each as its repository has it, and VSF on and off beside them.

A test is skipped where its extension is not installed; the README here names them. What Forge itself brings
along is in test_host_scripts.py.
"""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from forge_client import LABEL, ON, Answer, Forge, ForgeError, difference, picture_of, same
from PIL import Image

FROM_HOST = {**ON, "negative_prompt": ""}
OF_BOTH = ["turbo", "schnell"]


@pytest.fixture(scope="session")
def neighbour(forge: Forge) -> Callable[[str], str]:
    """`neighbour("adetailer")` is the title of the script that begins so; skips where there is none."""
    titles = forge.request("/sdapi/v1/scripts")["txt2img"]

    def find(name: str) -> str:
        for title in titles:
            if title.startswith(name):
                return str(title)
        pytest.skip(f"this Forge has no extension with a script {name!r}")

    return find


# ADetailer: it draws again what a detector has found, by a generation inside of the picture's own.

REDRAWN = {"ad_prompt": "a blue house", "ad_denoising_strength": 0.8, "ad_use_steps": True, "ad_steps": 4}
INSIDE_TOO = {"ad_script_names": "dynamic_prompting, vsf"}


@pytest.fixture(scope="session")
def detailer(forge: Forge, neighbour: Callable[[str], str]) -> Callable[..., dict[str, Any]]:
    """`detailer(...)` is ADetailer's part of a request, redrawing the one largest box."""
    title = neighbour("adetailer")
    models = forge.request("/adetailer/v1/ad_model")["ad_model"]
    always = next((name for name in models if "always" in name), None)
    if always is None:
        pytest.skip("ADetailer has no detector with 'always' in its name, which finds every whole picture")

    def make(**values: Any) -> dict[str, Any]:
        return {title: [True, False, {"ad_model": always, "ad_mask_k": 1, **REDRAWN, **values}]}

    return make


def by_hand(forge: Forge, title: str, picture: np.ndarray, vsf: Any) -> Answer:
    """What ADetailer does when it has found the whole picture."""
    return forge.img2img(
        title,
        picture,
        vsf,
        prompt=REDRAWN["ad_prompt"],
        denoising_strength=REDRAWN["ad_denoising_strength"],
        steps=REDRAWN["ad_steps"],
        mask=picture_of(np.full((256, 256, 3), 255, np.uint8)),
        mask_blur=4,
        inpainting_fill=1,
        inpaint_full_res=True,
        inpaint_full_res_padding=32,
    )


@pytest.mark.parametrize("kind", OF_BOTH)
def test_adetailer_redraws_without_vsf_unless_told(
    forge: Forge, model: Any, detailer: Callable[..., dict[str, Any]], kind: str
) -> None:
    title, plain = model(kind), forge.txt2img(model(kind))
    on = forge.txt2img(title, ON)
    outside = forge.txt2img(title, ON, scripts=detailer(), options={"ad_script_names": "dynamic_prompting"})
    inside = forge.txt2img(title, ON, scripts=detailer(), options=INSIDE_TOO)
    unguided, guided = (by_hand(forge, title, on.pictures[0], vsf) for vsf in (None, ON))
    assert difference(guided.pictures, unguided.pictures) > 0.1
    assert same(outside, unguided)
    assert same(inside, guided)
    assert LABEL in inside.infotexts[0]
    assert inside.infotexts == outside.infotexts, "they are the picture's, not the inner pass's"
    assert same(forge.txt2img(title), plain)
    assert same(forge.txt2img(title, ON), on)


@pytest.mark.parametrize("kind", OF_BOTH)
def test_adetailers_negative_is_the_inner_passs(
    forge: Forge, model: Any, detailer: Callable[..., dict[str, Any]], kind: str
) -> None:
    title, options = model(kind), INSIDE_TOO
    first = forge.txt2img(title, ON).pictures[0]
    for negative, wanted in (("windows", "windows"), ("", "wheels")):
        made = forge.txt2img(
            title,
            FROM_HOST,
            negative_prompt="wheels",
            scripts=detailer(ad_negative_prompt=negative),
            options=options,
        )
        assert same(made, by_hand(forge, title, first, {**ON, "negative_prompt": wanted}))
        assert "Negative prompt: wheels" in made.infotexts[0]
    own_box = forge.txt2img(
        title, ON, scripts=detailer(ad_negative_prompt="windows"), options=options
    )  # VSF's own box holds for both
    assert same(own_box, by_hand(forge, title, first, ON))


def test_adetailer_between_the_pictures_of_a_job(
    forge: Forge, model: Any, detailer: Callable[..., dict[str, Any]]
) -> None:
    common = {"scripts": detailer(), "options": INSIDE_TOO}
    both = forge.txt2img(model("turbo"), ON, n_iter=2, **common)
    for i in range(2):
        alone = forge.txt2img(model("turbo"), ON, seed=1 + i, **common)
        assert np.array_equal(alone.pictures[0], both.pictures[i])
        assert LABEL in both.infotexts[i]


def test_an_inner_pass_that_cannot_be_guided_leaves_the_picture(
    forge: Forge, model: Any, detailer: Callable[..., dict[str, Any]]
) -> None:
    """ADetailer logs what goes wrong inside and goes on: its picture is then the one that VSF is said of."""
    narrow = {**ON, "start": 0.3, "end": 0.34}  # of 9 steps one is in there, of the inner pass's none
    alone = forge.txt2img(model("turbo"), narrow, steps=9)
    made = forge.txt2img(model("turbo"), narrow, steps=9, scripts=detailer(), options=INSIDE_TOO)
    assert same(made, alone)
    plain = forge.txt2img(model("turbo"))
    assert "VSF" not in plain.infotexts[0]


# Dynamic Prompts: it writes another prompt, and negative prompt, for each picture of a job.

VARIED = {
    "prompt": "a {red|green|blue} car",
    "negative_prompt": "{wheels|the windows of a very long house}",
    "seed": 7,
}


@pytest.mark.parametrize("kind", OF_BOTH)
def test_dynamic_prompts_vary_the_hosts_negative(
    forge: Forge, model: Any, neighbour: Callable[[str], str], kind: str
) -> None:
    dynamic = {neighbour("dynamic prompts"): [True]}
    many = forge.txt2img(model(kind), FROM_HOST, n_iter=4, scripts=dynamic, **VARIED)
    if "{" in many.infotexts[0]:
        pytest.skip("Dynamic Prompts did nothing: its settings were never saved in this Forge")
    texts = [infotext.split("\n")[:2] for infotext in many.infotexts]
    assert len({negative for _, negative in texts}) == 2
    for i, (prompt, negative) in enumerate(texts):
        words = negative.removeprefix("Negative prompt: ")
        alone = forge.txt2img(model(kind), {**ON, "negative_prompt": words}, prompt=prompt, seed=7 + i)
        assert np.array_equal(alone.pictures[0], many.pictures[i])
        assert LABEL in many.infotexts[i]
    together = forge.txt2img(model(kind), FROM_HOST, batch_size=4, scripts=dynamic, **VARIED)
    assert [infotext.split("\n")[:2] for infotext in together.infotexts] == texts


def test_dynamic_prompts_do_not_read_vsfs_own_box(
    forge: Forge, model: Any, neighbour: Callable[[str], str]
) -> None:
    own = {**ON, "negative_prompt": "{wheels|roof}"}
    made = forge.txt2img(model("turbo"), own, scripts={neighbour("dynamic prompts"): [True]})
    assert "VSF negative prompt: {wheels|roof}" in made.infotexts[0]
    assert same(made, forge.txt2img(model("turbo"), own, scripts={neighbour("dynamic prompts"): [False]}))


# Agent Scheduler: it keeps a request in a data base and makes it later.


@pytest.mark.parametrize(
    "vsf", [ON, [True, "Custom", "vsf", "wheels", 2.0, 0.0]], ids=["by name", "by place"]
)
def test_a_queued_request_is_the_same_picture(forge: Forge, model: Any, vsf: Any) -> None:
    try:
        forge.request("/agent-scheduler/v1/queue")
    except ForgeError:
        pytest.skip("this Forge has no Agent Scheduler that works")
    title = model("turbo")
    wanted, plain = forge.txt2img(title, vsf), forge.txt2img(title)
    body = {**forge.body(title, vsf, {}), "checkpoint": title}
    task = forge.request("/agent-scheduler/v1/queue/txt2img", body)["task_id"]
    ends = time.monotonic() + 300
    answer: dict[str, Any] = {}
    while not answer.get("success"):
        assert time.monotonic() < ends, answer
        time.sleep(1)
        answer = forge.request(f"/agent-scheduler/v1/task/{task}/results")
    made = answer["data"][0]
    picture = Image.open(io.BytesIO(base64.b64decode(made["image"].split(",")[1])))
    pixels = np.asarray(picture.convert("RGB"))  # Forge may write the parameters into an alpha channel too
    assert np.array_equal(pixels, wanted.pictures[0])
    assert not np.array_equal(pixels, plain.pictures[0])
    assert made["infotext"] == wanted.infotexts[0]


# TeaCache: steps whose input has changed little take the last result of Flux's blocks.

STEPS = 6


@pytest.fixture(scope="session")
def teacache(forge: Forge, neighbour: Callable[[str], str]) -> dict[str, Any]:
    """Its part of a request, with which all steps but the first and the last are taken from the cache."""
    title = neighbour("teacache")
    scripts = forge.request("/sdapi/v1/script-info")
    if len(next(script["args"] for script in scripts if script["name"] == title)) != 3:
        pytest.skip("this is another TeaCache than the one for Forge's Flux")
    return {"scripts": {title: [True, 1.0, STEPS]}, "steps": STEPS}


def loaded_again(forge: Forge, model: Any) -> None:
    """TeaCache counts on where a picture was stopped, as long as the model stays loaded."""
    forge.txt2img(model("turbo"), steps=1)


@pytest.mark.parametrize("kind", ["schnell", "dev"])
def test_cached_steps_keep_the_guidance(
    forge: Forge, model: Any, teacache: dict[str, Any], kind: str
) -> None:
    loaded_again(forge, model)
    title = model(kind)
    plain, on = forge.txt2img(title, steps=STEPS), forge.txt2img(title, ON, steps=STEPS)
    cached, both = forge.txt2img(title, **teacache), forge.txt2img(title, ON, **teacache)
    assert difference(cached.pictures, plain.pictures) > 1, "it does skip"
    moved = difference(on.pictures, plain.pictures)
    assert moved / 2 < difference(both.pictures, cached.pictures) < moved * 2
    assert LABEL in both.infotexts[0]
    assert same(forge.txt2img(title, steps=STEPS), plain)
    assert same(forge.txt2img(title, ON, steps=STEPS), on)


@pytest.mark.parametrize(
    ("window", "says"), [({"start": 0.4}, "what was drawn without"), ({"end": 0.4}, "drawn under guidance")]
)
def test_no_step_takes_what_was_drawn_the_other_way(
    forge: Forge, model: Any, teacache: dict[str, Any], window: dict[str, float], says: str
) -> None:
    loaded_again(forge, model)
    title = model("schnell")
    plain, cached = forge.txt2img(title, steps=STEPS), forge.txt2img(title, **teacache)
    with pytest.raises(ForgeError, match=says):
        forge.txt2img(title, {**ON, **window}, **teacache)
    assert same(forge.txt2img(title, steps=STEPS), plain)
    loaded_again(forge, model)
    assert same(forge.txt2img(title, **teacache), cached)
    assert LABEL in forge.txt2img(title, ON, **teacache).infotexts[0]


# NegPiP: words with a negative weight, by an attention of its own.

NEGATIVE_WEIGHT = "a red car, (blue sky:-1.0)"


def test_negpip_is_refused_by_name_and_lets_go(
    forge: Forge, model: Any, neighbour: Callable[[str], str]
) -> None:
    negpip, title = {neighbour("negpip"): [True]}, model("schnell")
    plain, on = (forge.txt2img(title, vsf, prompt=NEGATIVE_WEIGHT) for vsf in (None, ON))
    theirs = forge.txt2img(title, prompt=NEGATIVE_WEIGHT, scripts=negpip)
    if "NegPiP Active" not in theirs.infotexts[0]:
        pytest.skip("this version of NegPiP does not work with Flux")
    with pytest.raises(ForgeError, match=r"NegPiP has replaced double_blocks\.0\.forward"):
        forge.txt2img(title, ON, prompt=NEGATIVE_WEIGHT, scripts=negpip)
    with pytest.raises(ForgeError, match="make one picture without VSF"):
        forge.txt2img(title, ON, prompt=NEGATIVE_WEIGHT)  # the picture that failed has left it in the model
    assert same(forge.txt2img(title, prompt=NEGATIVE_WEIGHT), plain)
    assert same(forge.txt2img(title, ON, prompt=NEGATIVE_WEIGHT), on)
    skipped = forge.txt2img(
        title, ON, prompt=NEGATIVE_WEIGHT, scripts=negpip, options={"vsf_strictness": "skip"}
    )
    assert same(skipped, theirs)
    assert "VSF" not in skipped.infotexts[0]
    idle = forge.txt2img(title, ON, scripts=negpip)  # switched on, with no word for it
    assert same(idle, forge.txt2img(title, ON))


# "Forge2 extras" (forgeFlux_dualPrompt): one prompt for CLIP and one for T5, and a shift of its own.


def test_dual_prompts(forge: Forge, model: Any, neighbour: Callable[[str], str]) -> None:
    title, extras = model("schnell"), {neighbour("forge2 extras"): [True, 4.0, 0.0, 0.0, 0.0, "default"]}
    prompt = "a red car SPLIT a blue house"
    plain, on = forge.txt2img(title), forge.txt2img(title, ON)
    theirs, both = (forge.txt2img(title, vsf, prompt=prompt, scripts=extras) for vsf in (None, ON))
    assert difference(theirs.pictures, plain.pictures) > 1
    assert difference(both.pictures, theirs.pictures) > 0.1
    assert LABEL in both.infotexts[0]
    assert same(forge.txt2img(title), plain)
    assert same(forge.txt2img(title, ON), on)
