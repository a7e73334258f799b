"""The script "VSF sweep": what it draws and keeps, in a host as small as can be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from small_sweep import BASE, alone, job, last_line, panel, sweep

from vsf_lib.errors import GuidanceError
from vsf_lib.settings import Settings
from vsf_lib.strip import TILE, fit
from vsf_lib.sweep import INFOTEXT
from vsf_lib.webui import axes, sweep_panel
from vsf_lib.webui.notices import NOTICES
from vsf_lib.webui.sweep_request import settings_to_sweep
from vsf_lib.webui.sweep_script import LACKS, STOPPED, UNGUIDED


def test_each_picture_is_the_one_drawn_alone(webui, model):
    p = job(model=model)
    before = dict(p.extra_generation_params)
    made = sweep(p, "0:3:1.5")
    wanted = [False, *({**BASE, "alpha": alpha} for alpha in (0.0, 1.5, 3.0))]
    whole, *pictures = made.images
    assert (made.index_of_first_image, len(pictures), len(made.infotexts)) == (1, 4, 5)
    tiles = []
    for image, text, settings in zip(pictures, made.infotexts[1:], wanted, strict=True):
        assert np.array_equal(np.asarray(image), alone(model, settings))
        told = Settings.from_infotext(last_line(text))
        if settings:
            assert (told.alpha, told.beta, told.negative_prompt) == (settings["alpha"], 0.0, "wheels")
        else:
            assert "VSF" not in text
        assert INFOTEXT not in text
        tiles.append(np.asarray(fit(image, TILE)))
    assert len({tile.tobytes() for tile in tiles}) == 4
    height, width, _ = tiles[0].shape
    for i, tile in enumerate(tiles):
        left = 8 + i * (width + 8)
        assert np.array_equal(np.asarray(whole)[8 : 8 + height, left : left + width], tile)
    assert not axes.values_of(p), "the job itself is as it was"
    assert p.extra_generation_params == before
    assert webui.notes == [
        f"VSF sweep: {label} ({i} of 4)"
        for i, label in enumerate(("without", "alpha 0", "alpha 1.5", "alpha 3"), 1)
    ]
    assert (webui.state.job_count, webui.totals, webui.state.textinfo) == (4, [12], None)


def test_the_strip_says_what_it_is_and_brings_it_back(webui, model):
    made = sweep(job(model=model), " 0.50:1:.5, 3")
    told, first = last_line(made.infotexts[0]), last_line(made.infotexts[2])
    assert told == {**first, "Script": "VSF sweep", INFOTEXT: "alpha=0.5:1:0.5,3"}
    assert made.infotexts[0] == made.info == made.images[0].info["parameters"]
    values = [reader(told) for reader in sweep_panel.READERS.values()]
    assert values == ["alpha", "0.5:1:0.5,3", True, None, None, None]
    again = sweep(job(model=model), sweep_panel.READERS["values"](told))
    assert [np.asarray(x).tobytes() for x in again.images] == [np.asarray(x).tobytes() for x in made.images]
    assert (webui.folder / "vsf-sweep-3.png").is_file()
    assert all(reader(first) is None for reader in sweep_panel.READERS.values()), "another picture's"
    for text in ("alpha", "method=1", "pooled_shift=1", "alpha=1:2"):
        assert all(reader({INFOTEXT: text}) is None for reader in sweep_panel.READERS.values()), text


def test_without_the_unguided_picture(webui, model):
    made = sweep(job(model=model), "1,2", unguided=False)
    assert len(made.images) == 3
    assert last_line(made.infotexts[0])[UNGUIDED] == "no"
    assert sweep_panel.READERS["unguided"](last_line(made.infotexts[0])) is False


def test_any_number_of_the_panel_and_its_preset(webui, model):
    panel_arguments = panel(negative_prompt="wheels")
    made = sweep(job(panel_arguments, model), "0,0.5", setting="beta", unguided=False)
    for text, beta in zip(made.infotexts[1:], (0.0, 0.5), strict=True):
        told = Settings.from_infotext(last_line(text))
        assert (told.beta, told.alpha, told.negative_tokens) == (beta, 2.0, "words"), "schnell's preset"
    assert settings_to_sweep() == (
        "alpha", "beta", "negative_scale", "start", "end", "nag_phi", "nag_tau", "nag_alpha", "nasa_alpha",
    )  # fmt: skip
    made = sweep(job([{"method": "nag", **BASE}], model), "1:3:1", setting="nag_phi", unguided=False)
    assert [last_line(text)["VSF NAG phi"] for text in made.infotexts[1:]] == ["1", "2", "3"]


def test_each_seed_has_a_strip(webui, model):
    p = job(model=model, batch_size=2, n_iter=2, seed=-1)
    made = sweep(p, "1,3")
    assert p.seed == 7, "fixed before the first picture"
    assert webui.state.job_count == 6
    assert len(webui.jobs) == 3, "all seeds of a value are one job"
    strips, pictures = made.infotexts[:4], made.infotexts[4:]
    assert made.index_of_first_image == 4
    assert [last_line(text)["Seed"] for text in strips] == ["7", "8", "9", "10"]
    assert [last_line(text)["Seed"] for text in pictures] == [str(s) for s in (7, 8, 9, 10) for _ in range(3)]
    assert [last_line(text).get("VSF alpha") for text in pictures] == [None, "1", "3"] * 4
    assert made.all_seeds == [s for s in (7, 8, 9, 10) for _ in range(3)]
    assert len({np.asarray(image).tobytes() for image in made.images}) == 16


def at_step(p: Any, act: Any, step: int = 1) -> None:
    p.on_step = lambda now: act() if now == step else None


def test_an_interrupt_keeps_what_is_finished(webui, model):
    def before(number: int, cell: Any) -> None:
        if number == 2:
            at_step(cell, stop)

    def stop() -> None:
        cell = webui.jobs[-1]
        webui.state.interrupted = cell.host.stopped = True

    webui.before = before
    p = job(model=model)
    made = sweep(p, "1:4:1")
    assert len(webui.jobs) == 3
    assert [last_line(text).get("VSF alpha") for text in made.infotexts] == ["1", None, "1"]
    assert last_line(made.infotexts[0])[INFOTEXT] == "alpha=1", "what is in it, not what was to be"
    assert made.extra_generation_params[STOPPED] == "the sweep stopped at alpha 2"
    assert np.array_equal(np.asarray(made.images[2]), alone(model, {**BASE, "alpha": 1.0}))


def test_an_interrupt_of_the_first_shows_what_the_host_shows(webui, model):
    def before(number: int, cell: Any) -> None:
        at_step(cell, lambda: stop(cell))

    def stop(cell: Any) -> None:
        webui.state.interrupted = cell.host.stopped = True

    webui.before = before
    made = sweep(job(model=model), "1,2")
    assert (len(webui.jobs), len(made.images), made.index_of_first_image) == (1, 1, 0)
    assert "VSF" not in made.infotexts[0]
    assert made.extra_generation_params[STOPPED] == "the sweep stopped at without"


def test_a_strip_says_that_its_unguided_picture_was_skipped(webui, model):
    def before(number: int, cell: Any) -> None:
        cell.host.stopped = False
        if number == 0:
            at_step(cell, lambda: skip(cell))

    def skip(cell: Any) -> None:
        webui.state.skipped = cell.host.stopped = True

    webui.before = before
    made = sweep(job(model=model), "1,2")
    assert last_line(made.infotexts[0])[UNGUIDED] == "no"
    assert made.extra_generation_params[LACKS] == "without was skipped"


def test_stopping_after_the_current_picture_keeps_it(webui, model):
    def before(number: int, cell: Any) -> None:
        webui.state.stopping_generation = number == 2

    webui.before = before
    made = sweep(job(model=model), "1:4:1")
    assert last_line(made.infotexts[0])[INFOTEXT] == "alpha=1,2"


def test_a_skipped_picture_is_left_out(webui, model):
    def before(number: int, cell: Any) -> None:
        cell.host.stopped = False
        if number == 2:
            at_step(cell, lambda: skip(cell))

    def skip(cell: Any) -> None:
        webui.state.skipped = cell.host.stopped = True

    webui.before = before
    made = sweep(job(model=model), "1:3:1")
    assert len(webui.jobs) == 4
    assert last_line(made.infotexts[0])[INFOTEXT] == "alpha=1,3"
    assert [last_line(text).get("VSF alpha") for text in made.infotexts[1:]] == [None, "1", "3"]


def test_only_the_skipped_batch_is_left_out(webui, model):
    def before(number: int, cell: Any) -> None:
        cell.host.stopped = False
        calls = []

        def on_step(step: int) -> None:
            calls.append(step)
            if len(calls) <= cell.steps:
                return
            webui.state.skipped = True

        if number == 1:
            cell.on_step = on_step

    webui.before = before
    made = sweep(job(model=model, n_iter=2, batch_size=2), "1,2")
    swept = [last_line(text).get(INFOTEXT) for text in made.infotexts]
    assert swept[:4] == ["alpha=1,2", "alpha=1,2", "alpha=2", "alpha=2"]
    assert len(made.infotexts) == 4 + 3 + 3 + 2 + 2


def test_the_api_hears_what_any_picture_told(webui, model):
    p = job(model=model)
    webui.before = lambda number, cell: p.comment(f"VSF: of picture {number}")
    made = sweep(p, "1:2:1")
    told = made.extra_generation_params[NOTICES]
    assert told == p.comments
    assert "VSF: of picture 1" in told


def test_an_error_in_the_middle_keeps_what_is_finished(webui, model):
    def fail() -> None:
        raise RuntimeError("forced by a test")

    def before(number: int, cell: Any) -> None:
        if number == 2:
            at_step(cell, fail)

    webui.before = before
    p = job(model=model)
    made = sweep(p, "1:4:1")
    assert len(webui.jobs) == 3
    assert last_line(made.infotexts[0])[INFOTEXT] == "alpha=1"
    says = "the sweep stopped at alpha 2: forced by a test"
    assert made.extra_generation_params[STOPPED] == says
    assert says in made.comments
    assert NOTICES not in made.extra_generation_params, "this is no notice of a picture"
    assert STOPPED not in "".join(made.infotexts)
    webui.before = lambda number, cell: at_step(cell, fail)
    with pytest.raises(RuntimeError, match="forced by a test"):
        sweep(job(model=model), "1,2")
    webui.before = lambda number, cell: None
    assert np.array_equal(alone(model, False), np.asarray(made.images[1])), "the model is as before"


def test_what_was_not_guided_never_stands_under_a_value(webui, model):
    """With the option "skip" the host goes on without VSF, and so it does where a style has no negative."""
    p = job([{"alpha": 1.0}], model, styles=["no negative"])
    with pytest.raises(GuidanceError, match=r"alpha 1 was not guided so: VSF did nothing"):
        sweep(p, "1,2", unguided=False)
    p = job([{**BASE, "negative_prompt": "<lora:x:1>"}], model, strict=False, styles=["any"])
    made = None
    with pytest.raises(GuidanceError, match=r"alpha 1 was not guided so: VSF is off .*no word"):
        made = sweep(p, "1,2", unguided=False)
    assert made is None
    made = sweep(p, "1,2")
    assert len(made.images) == 1
    assert "VSF" not in made.infotexts[0]
    assert "alpha 1 was not guided so" in made.extra_generation_params[STOPPED]


def test_all_pictures_begin_with_the_same_random_numbers(webui, model):
    seen = []
    webui.before = lambda number, cell: seen.append(torch.rand(1).item())
    torch.manual_seed(5)
    sweep(job(model=model), "1,2")
    assert len(set(seen)) == 1
