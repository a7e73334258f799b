"""The script "VSF sweep" in a real Forge, through its API: single pictures, put together."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forge_client import HIRES, Answer, Forge, ForgeError, picture_of, same
from PIL import Image
from video_frames import read_frames

from vsf_lib.infotext import read_pairs
from vsf_lib.strip import TILE, fit
from vsf_lib.video import files
from vsf_lib.webui.sweep_panel import READERS

BASE = {"negative_prompt": "wheels", "alpha": 2.0, "beta": 0.0, "negative_scale": 0}
KEEP = {"save_images": True, "options": {"samples_save": False}}
"""Saves grids alone."""


def sweep(forge: Forge, title: str, vsf: Any, values: str, picture: Any = None, **more: Any) -> Answer:
    names = ("setting", "unguided", "film", "fps", "loop")
    asked = {"values": values, **{name: more.pop(name) for name in names if name in more}}
    script = {"script_name": "VSF sweep", "script_args": [asked], **more}
    if picture is not None:
        return forge.img2img(title, picture, vsf, **script)
    return forge.txt2img(title, vsf, **script)


def pairs(infotext: str) -> dict[str, str]:
    return read_pairs(infotext.split("\n")[-1])


def ours(infotext: str) -> dict[str, str]:
    return {key: value for key, value in pairs(infotext).items() if key.startswith("VSF")}


def one(made: Answer, place: int) -> Answer:
    return Answer([made.pictures[place]], [made.infotexts[place]])


@pytest.mark.parametrize("kind", ["turbo", "medium", "schnell"])
def test_each_picture_is_the_single_one(forge: Forge, model: Any, kind: str) -> None:
    title, off = model(kind), forge.txt2img(model(kind))
    made = sweep(forge, title, BASE, "0:4:2", film=False)
    assert made.info["index_of_first_image"] == 1
    assert (len(made.pictures), len(made.infotexts)) == (5, 5)
    assert same(one(made, 1), off)
    assert made.infotexts[1] == off.infotexts[0]
    for place, alpha in enumerate((0.0, 2.0, 4.0), 2):
        alone = forge.txt2img(title, {**BASE, "alpha": alpha})
        assert same(one(made, place), alone), alpha
        assert made.infotexts[place] == alone.infotexts[0]
        assert pairs(alone.infotexts[0])["VSF alpha"] == f"{alpha}"
    assert len({picture.tobytes() for picture in made.pictures}) == 5
    strip = made.pictures[0]
    side = 256
    for i, picture in enumerate(made.pictures[1:]):
        left = 8 + i * (side + 8)
        tile = np.asarray(fit(Image.fromarray(picture), TILE))
        assert np.array_equal(strip[8 : 8 + side, left : left + side], tile)
    assert pairs(made.infotexts[0]) == {
        **pairs(made.infotexts[2]),
        "Script": "VSF sweep",
        "VSF sweep": "alpha=0:4:2",
    }
    after = forge.txt2img(title)
    assert same(after, off)
    assert after.infotexts == off.infotexts, "nothing of the sweep is left"


def test_a_panel_in_positions_and_another_setting(forge: Forge, model: Any) -> None:
    panel = [True, "Auto", "vsf", "wheels"]
    script = ["end", "1, 0.5", False, False, 4, False]
    made = forge.txt2img(model("schnell"), panel, script_name="vsf SWEEP", script_args=script)
    for place, end in ((1, 1.0), (2, 0.5)):
        alone = forge.txt2img(model("schnell"), {"negative_prompt": "wheels", "end": end})
        assert same(one(made, place), alone)
        assert made.infotexts[place] == alone.infotexts[0]
    assert ours(made.infotexts[0])["VSF sweep"] == "end=1,0.5"


def test_the_page_and_the_api_know_it_once(forge: Forge) -> None:
    for is_img2img in (False, True):
        found = [
            script
            for script in forge.request("/sdapi/v1/script-info")
            if script["name"] == "vsf sweep" and script["is_img2img"] == is_img2img
        ]
        assert len(found) == 1
        assert not found[0]["is_alwayson"]
        assert found[0]["args"][0]["choices"][0] == "alpha"
        assert len({argument["label"] for argument in found[0]["args"]}) == 6


def test_seeds_hires_and_pictures(forge: Forge, model: Any) -> None:
    title = model("turbo")
    common = {"batch_size": 2, "n_iter": 2, "film": False}
    made = sweep(forge, title, BASE, "1,4", **common)
    assert (made.info["index_of_first_image"], len(made.pictures)) == (4, 4 + 4 * 3)
    whole = [
        forge.txt2img(title, vsf, batch_size=2, n_iter=2)
        for vsf in (None, *({**BASE, "alpha": alpha} for alpha in (1.0, 4.0)))
    ]
    for seed in range(4):
        for place, batch in enumerate(whole):
            pictures, texts = batch.pictures[-4:], batch.infotexts[-4:]
            assert np.array_equal(made.pictures[4 + 3 * seed + place], pictures[seed])
            assert made.infotexts[4 + 3 * seed + place] == texts[seed]
    assert made.info["all_seeds"] == [seed for seed in (1, 2, 3, 4) for _ in range(3)]

    made = sweep(forge, title, BASE, "1,4", film=False, **HIRES)
    for place, vsf in enumerate((None, {**BASE, "alpha": 1.0}, {**BASE, "alpha": 4.0}), 1):
        assert same(one(made, place), forge.txt2img(title, vsf, **HIRES)), vsf

    first = forge.txt2img(title, seed=2).pictures[0]
    mask = np.zeros((256, 256, 3), np.uint8)
    mask[64:192, 64:192] = 255
    for more in ({}, {"mask": picture_of(mask), "inpainting_fill": 1, "mask_blur": 0}):
        values = {"steps": 6, "denoising_strength": 0.5, **more}
        forge.img2img(title, first, **values)  # the host encodes with the numbers that this has left
        made = sweep(forge, title, BASE, "1,4", first, film=False, **values)
        forge.img2img(title, first, **values)
        for place, vsf in enumerate((None, {**BASE, "alpha": 1.0}, {**BASE, "alpha": 4.0}), 1):
            assert same(one(made, place), forge.img2img(title, first, vsf, **values)), vsf


def test_a_random_seed_is_fixed_for_all(forge: Forge, model: Any) -> None:
    made = sweep(forge, model("turbo"), BASE, "1,2", film=False, seed=-1)
    seeds = {pairs(text)["Seed"] for text in made.infotexts}
    assert len(seeds) == 1
    assert same(one(made, 1), forge.txt2img(model("turbo"), seed=int(seeds.pop())))


@pytest.fixture
def films() -> Iterator[list[Path]]:
    """Whoever makes some puts them here, and they go, with what lies beside them."""
    pytest.importorskip("imageio_ffmpeg")
    made: list[Path] = []
    yield made
    for path in made:
        for suffix in (".mp4", ".txt", ".png"):
            path.with_suffix(suffix).unlink(missing_ok=True)


def test_a_film_beside_the_saved_strip(forge: Forge, model: Any, films: list[Path]) -> None:
    made = sweep(forge, model("turbo"), BASE, "0:4:2", fps=6, loop=True, **KEEP)
    named = made.info["extra_generation_params"]["VSF sweep films"]
    films += map(Path, named)
    assert len(films) == 1
    film = films[0]
    assert (film.suffix, film.parent.parent.name) == (".mp4", "txt2img-grids")
    with Image.open(film.with_suffix(".png")) as saved:
        assert np.array_equal(np.asarray(saved), made.pictures[0])
        assert saved.info["parameters"] == made.infotexts[0]
    assert len(read_frames(film)) == 4, "0, 2, 4 and back over 2"
    told = files.read_infotext(film)
    assert pairs(told) == {**pairs(made.infotexts[0]), "VSF fps": "6", "VSF loop": "there and back"}
    restored = {name: reader(pairs(told)) for name, reader in READERS.items()}
    again = sweep(forge, model("turbo"), BASE, **{**restored, "film": False})
    assert all(np.array_equal(a, b[..., :3]) for a, b in zip(again.pictures, made.pictures, strict=True)), (
        "without what the host hides in the alpha channel of a file"
    )


def test_without_saving_there_is_no_film_and_it_says_so(forge: Forge, model: Any) -> None:
    made = sweep(forge, model("turbo"), BASE, "1,2")
    assert len(made.pictures) == 4
    assert "saves no grids" in made.info["extra_generation_params"]["VSF sweep lacks"]
    assert "lacks" not in "".join(made.infotexts)


@pytest.mark.parametrize(
    ("vsf", "values", "says"),
    [
        (None, "1,2", "the sweep is of alpha, but VSF is off: switch it on"),
        ({**BASE, "enabled": False}, "1,2", "but VSF is off"),
        (BASE, "0:200:50", "at 150: alpha is 150.0, but must be a number from 0 to 100"),
        (BASE, "1:2", "not LOW:HIGH:STEP"),
        ({"alpha": 2.0}, "1,2", "both negative prompts are empty"),
        ({**BASE, "method": "nag"}, "1,2", "which method nag does not read"),
    ],
)
def test_what_cannot_be_swept_ends_before_a_picture(
    forge: Forge, model: Any, vsf: Any, values: str, says: str
) -> None:
    with pytest.raises(ForgeError) as error:
        sweep(forge, model("turbo"), vsf, values)
    assert says in str(error.value)


def during(forge: Forge, act: str, cell: str, call: Any) -> Answer:
    """What `call` gives if `act` is asked for while the cell of that name is sampled."""
    answers: list[Answer] = []
    job = threading.Thread(target=lambda: answers.append(call()))
    job.start()
    while job.is_alive():
        state = forge.request("/sdapi/v1/progress")["state"]
        if cell in state["job"] and state["sampling_step"] >= 2:
            forge.request(f"/sdapi/v1/{act}", {})
            break
        time.sleep(0.02)
    job.join()
    return answers[0]


def test_interrupt_and_skip(forge: Forge, model: Any) -> None:
    title, steps = model("turbo"), 30
    plain = forge.txt2img(title, steps=steps)

    def call() -> Answer:
        return sweep(forge, title, BASE, "1,2,3", film=False, steps=steps)

    whole = call()
    made = during(forge, "interrupt", "alpha 2", call)
    assert [ours(text).get("VSF alpha") for text in made.infotexts] == ["1.0", None, "1.0"]
    assert ours(made.infotexts[0])["VSF sweep"] == "alpha=1"
    assert all(np.array_equal(made.pictures[place], whole.pictures[place]) for place in (1, 2))
    made = during(forge, "skip", "alpha 2", call)
    assert ours(made.infotexts[0])["VSF sweep"] == "alpha=1,3"
    assert [np.array_equal(made.pictures[a], whole.pictures[b]) for a, b in ((1, 1), (2, 2), (3, 4))] == [
        True
    ] * 3
    assert same(forge.txt2img(title, steps=steps), plain)
    assert same(call(), whole)


def test_an_error_in_the_middle(forge: Forge, model: Any) -> None:
    title = model("turbo")
    plain, whole = forge.txt2img(title), sweep(forge, title, BASE, "1,2", film=False)
    trial = {"raise": {"block": "joint_blocks.2", "call": 2, "error": "RuntimeError"}}
    trial["raise"]["cell"] = {"alpha": 2.0}
    made = sweep(forge, title, BASE, "1,2", film=False, trial=trial)
    assert [ours(text).get("VSF alpha") for text in made.infotexts] == ["1.0", None, "1.0"]
    assert all(np.array_equal(made.pictures[place], whole.pictures[place]) for place in (1, 2))
    says = made.info["extra_generation_params"]["VSF sweep stopped"]
    assert says == "the sweep stopped at alpha 2: forced by a test"
    assert same(forge.txt2img(title), plain)
    assert same(sweep(forge, title, BASE, "1,2", film=False), whole)
