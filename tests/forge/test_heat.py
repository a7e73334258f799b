"""The pictures of where VSF acted, in a real Forge: beside the results, each its own, changing nothing."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forge_client import HIRES, Answer, Forge, ForgeError, picture_of, same
from PIL import Image

from vsf_lib.heatmap import Scale, as_maps, overlay
from vsf_lib.infotext import read_pairs

KINDS = ("turbo", "medium", "dev", "schnell")
ON = {"negative_prompt": "wheels", "alpha": 2.0, "beta": 0.0, "negative_scale": 0, "negative_tokens": "all"}
PICTURE, STEPS = {**ON, "heatmap": "picture"}, {**ON, "heatmap": "each step"}


def told(infotext: str) -> dict[str, str]:
    first, last = infotext.split("\n")
    assert first.startswith("Not a result: a map of where VSF acted")
    return read_pairs(last)


def split(made: Answer, count: int) -> tuple[Answer, Answer]:
    """The results, and what stands beside them."""
    assert len(made.pictures) == len(made.infotexts)
    return (
        Answer(made.pictures[:count], made.infotexts[:count]),
        Answer(made.pictures[count:], made.infotexts[count:]),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_result_is_the_same_and_the_map_comes_behind_it(forge: Forge, model: Any, kind: str) -> None:
    off = forge.txt2img(model(kind), ON)
    assert len(off.pictures) == 1
    for asked, count in ((PICTURE, 1), (STEPS, 2)):
        result, maps = split(forge.txt2img(model(kind), asked), 1)
        assert same(result, off)
        assert result.infotexts == off.infotexts
        assert len(maps.pictures) == count
        assert maps.pictures[0].shape == off.pictures[0].shape
        assert maps.pictures[0].std() > 5
        for text in maps.infotexts:
            assert told(text)["Seed"] == "1"
            assert told(text)["Map steps"] == "3 of 3"
    assert same(forge.txt2img(model(kind), {**STEPS, "enabled": False}), forge.txt2img(model(kind)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "more", [{}, {"blocks": "double"}, {"method": "difference"}], ids=["vsf", "double", "difference"]
)
def test_the_map_is_the_masked_references(
    forge: Forge, model: Any, tmp_path: Path, kind: str, more: dict[str, str]
) -> None:
    asked = {"negative_prompt": "the wheels of a car", "alpha": 2.0, "beta": 0.3, **more}
    file = tmp_path / "share.npy"
    masked = {**asked, "share_file": str(file)}
    common = {"batch_size": 2, "width": 320}
    forge.txt2img(model(kind), trial={"masked": masked}, **common)
    made = forge.txt2img(model(kind), {**ON, **asked, "heatmap": "picture"}, **common)
    results, maps = split(made, 2)
    share = np.load(file)
    assert share.shape == (3, 2, 16 * 20)
    for i, (result, text) in enumerate(zip(results.pictures, maps.infotexts, strict=True)):
        wanted = as_maps(share[:, i].mean(0), 320, 256)
        scale = Scale.of(wanted)
        low, high = (float(end) for end in told(text)["Map scale"].split(" to "))
        assert abs(low - scale.low) < 0.01 * scale.high
        assert abs(high - scale.high) < 0.01 * scale.high
        drawn = np.asarray(overlay(Image.fromarray(result), wanted, scale)).astype(float)
        other = np.asarray(overlay(Image.fromarray(result), wanted[::-1], scale)).astype(float)
        apart = np.abs(maps.pictures[i] - drawn).mean()
        assert apart < 1
        assert apart < np.abs(maps.pictures[i] - other).mean() / 20


@pytest.mark.parametrize("kind", ["turbo", "dev"])
def test_ways_to_generate(forge: Forge, model: Any, kind: str) -> None:
    title = model(kind)
    first = forge.txt2img(title, seed=2).pictures[0]
    large = forge.txt2img(title, seed=2, width=384, height=320).pictures[0]
    mask = np.zeros((320, 384, 3), np.uint8)
    mask[64:128, 192:320] = 255
    only_masked = {"mask": picture_of(mask), "inpaint_full_res": True, "inpaint_full_res_padding": 0}
    for name, call, results in (
        ("batch", lambda vsf: forge.txt2img(title, vsf, batch_size=2, n_iter=2), 4),
        ("cfg", lambda vsf: forge.txt2img(title, vsf, cfg_scale=3, negative_prompt="dark"), 1),
        (
            "cfg, apart",
            lambda vsf: forge.txt2img(
                title, vsf, cfg_scale=3, negative_prompt="dark", trial={"separate": True}
            ),
            1,
        ),
        ("and", lambda vsf: forge.txt2img(title, vsf, prompt="a red car AND a blue sky :0.5"), 1),
        ("two calls a step", lambda vsf: forge.txt2img(title, vsf, sampler_name="Heun"), 1),
        ("window", lambda vsf: forge.txt2img(title, vsf and {**vsf, "end": 0.5}, steps=4), 1),
        ("hires", lambda vsf: forge.txt2img(title, vsf, **HIRES, hr_second_pass_steps=2), 1),
        (
            "hires, cut",
            lambda vsf: forge.txt2img(title, vsf, **{**HIRES, "hr_resize_x": 384, "hr_resize_y": 288}),
            1,
        ),
        (
            "hires, first pass",
            lambda vsf: forge.txt2img(
                title,
                vsf and {**vsf, "hires_pass": "first"},
                **{**HIRES, "hr_resize_x": 384, "hr_resize_y": 288},
            ),
            1,
        ),
        ("img2img", lambda vsf: forge.img2img(title, first, vsf, steps=6, denoising_strength=0.5), 1),
        ("inpaint", lambda vsf: forge.img2img(title, large, vsf, steps=6, **only_masked), 1),
    ):
        call(None)  # the host encodes a picture with the random numbers that the request before has left
        plain, on = call(ON), call(STEPS)
        made, maps = split(on, results)
        assert same(made, plain), name
        assert made.infotexts == plain.infotexts, name
        assert len(maps.pictures) == 2 * results, name
        for i in range(results):
            assert maps.pictures[2 * i].shape == made.pictures[i].shape, name
            assert told(maps.infotexts[2 * i])["Seed"] == str(1 + i), name
            assert told(maps.infotexts[2 * i + 1])["Map"].endswith("at each step"), name
        wanted = {"window": "2 of 4", "two calls a step": "5 of 5"}.get(name)
        assert wanted in (None, told(maps.infotexts[0])["Map steps"]), name
        shown = told(maps.infotexts[0]).get("Map pass")
        assert shown == ({"hires, first pass": "first"}.get(name, "second") if "hires" in name else None)
        if name == "inpaint":
            outside = maps.pictures[0][200:]
            assert (outside == outside[..., :1]).all(), "grey where the model did not draw"
            assert not (maps.pictures[0][64:128, 192:320].std(2) == 0).all()


def test_two_pictures_have_two_maps(forge: Forge, model: Any) -> None:
    texts = ["wheels", "the windows of a very long house"]
    asked = {**PICTURE, "negative_prompt": ""}
    both = forge.txt2img(model("turbo"), asked, trial={"negatives": texts}, batch_size=2)
    for i, text in enumerate(texts):
        one = forge.txt2img(model("turbo"), asked, negative_prompt=text, batch_size=2)
        assert told(both.infotexts[2 + i])["Map negative prompt"] == text
        apart = np.abs(both.pictures[2 + i].astype(float) - one.pictures[2 + i]).mean()
        across = np.abs(both.pictures[2 + i].astype(float) - one.pictures[3 - i]).mean()
        assert apart < across / 10


@pytest.mark.parametrize("method", ["nag", "nasa"])
def test_methods_without_a_share_show_nothing(forge: Forge, model: Any, method: str) -> None:
    asked = {"negative_prompt": "wheels", "method": method}
    shown = forge.txt2img(model("turbo"), {**asked, "heatmap": "picture"})
    assert same(shown, forge.txt2img(model("turbo"), asked))


PLOT = [4, "2,3", [], 0, "", [], 0, "", [], False, True, False, False, False, False, False, 0, False]


@pytest.mark.parametrize(
    ("script", "arguments", "count"),
    [("x/y/z plot", PLOT, 3), ("VSF sweep", [{"values": "0,2", "film": False}], 4)],
)
def test_scripts_have_no_stray_pictures(
    forge: Forge, model: Any, script: str, arguments: list[Any], count: int
) -> None:
    asked = {"script_name": script, "script_args": arguments}
    without, shown = (forge.txt2img(model("turbo"), vsf, **asked) for vsf in (ON, PICTURE))
    # Of the plot's grid, which the host draws, the last bit of the alpha differs from run to run.
    assert len(shown.pictures) == len(without.pictures) == count
    assert same(Answer(shown.pictures[1:], []), Answer(without.pictures[1:], []))
    assert shown.infotexts == without.infotexts


def test_an_interrupted_picture_shows_the_steps_that_were(forge: Forge, model: Any) -> None:
    answers: list[Answer] = []
    job = threading.Thread(target=lambda: answers.append(forge.txt2img(model("turbo"), PICTURE, steps=90)))
    job.start()
    while forge.request("/sdapi/v1/progress")["state"]["sampling_step"] < 2 and job.is_alive():
        time.sleep(0.05)
    forge.request("/sdapi/v1/interrupt", {})
    job.join()
    _, maps = split(answers[0], 1)
    guided, run = told(maps.infotexts[0])["Map steps"].split(" of ")
    assert guided == run
    assert int(run) < 90
    assert len(forge.txt2img(model("turbo"), ON).pictures) == 1


def test_pasting_a_map_is_no_vsf(forge: Forge, model: Any) -> None:
    made = forge.txt2img(model("turbo"), PICTURE)
    answer = forge.request(
        "/sdapi/v1/png-info", {"image": with_parameters(made.pictures[1], made.infotexts[1])}
    )
    read = answer["parameters"]
    assert read["Prompt"].startswith("Not a result: a map")
    assert read["Seed"] == "1", "the gallery's save button wants one"
    assert not [key for key in read if key.startswith("VSF")]
    assert "Sampler" not in read


def with_parameters(pixels: np.ndarray, text: str) -> str:
    import base64
    import io

    from PIL.PngImagePlugin import PngInfo

    info, buffer = PngInfo(), io.BytesIO()
    info.add_text("parameters", text)
    Image.fromarray(pixels).save(buffer, "PNG", pnginfo=info)
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.mark.parametrize("kind", ["turbo", "schnell"])
@pytest.mark.parametrize("sampler", ["HeunPP2", "DPM adaptive", "UniPC"])
def test_samplers_that_make_more_calls_than_the_host_counts(
    forge: Forge, model: Any, kind: str, sampler: str
) -> None:
    values = {"sampler_name": sampler, "scheduler": "Automatic" if kind == "turbo" else "Simple"}
    made = forge.txt2img(model(kind), PICTURE, **values)
    guided, of, all_of_them = told(made.infotexts[-1])["Map steps"].split()
    assert of == "of"
    assert guided == all_of_them
    assert int(guided) > 3
    with pytest.raises(ForgeError, match="more often than 3 times"):
        forge.txt2img(model(kind), {**PICTURE, "end": 0.5}, **values)


@pytest.fixture
def outputs() -> Iterator[Any]:
    """`outputs()` are the pictures that the host has saved since; they are removed afterwards."""
    folder = Path(os.environ["VSF_FORGE_ROOT"]) / "outputs"
    before = set(folder.rglob("*.png"))
    yield lambda: sorted(set(folder.rglob("*.png")) - before)
    for path in set(folder.rglob("*.png")) - before:
        path.unlink()


def test_maps_are_saved_if_chosen_and_never_over_a_result(forge: Forge, model: Any, outputs: Any) -> None:
    common = {"save_images": True, "batch_size": 2}
    made = forge.txt2img(model("turbo"), PICTURE, **common)
    results = outputs()
    assert len(results) == 3, "two results and their grid"
    assert not [path for path in results if "vsf" in str(path.relative_to(path.parents[2]))]
    assert len(made.pictures) == len(made.infotexts) == 5, "a grid moves everything by one"
    assert told(made.infotexts[-1])["Seed"] == "2"
    contents = {path: path.read_bytes() for path in results}
    for options in ({}, {"save_images_add_number": False, "save_images_replace_action": "Replace"}):
        before = set(outputs())
        forge.txt2img(model("turbo"), STEPS, **common, options={"vsf_save_heatmaps": True, **options})
        saved = [path for path in outputs() if path not in before and "vsf-maps" in path.parts]
        assert len(saved) == 4
        assert {path.stem.split("-")[-1] for path in saved} == {"map", "steps"}
        for path in saved:
            assert told(Image.open(path).info["parameters"])["Map layers"] == "4"
    assert {path: path.read_bytes() for path in results} == contents
