"""From a form to a job and back: what is refused before a job waits, and what a file restores."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import BASE, noise, save

from vsf_lib.errors import ModelError, OutputError, PromptError, SettingsError
from vsf_lib.images.asked import Asked
from vsf_lib.images.model import find_model
from vsf_lib.images.resolve import resolve
from vsf_lib.jobs.locks import Withdrawn
from vsf_lib.metadata import FINGERPRINT
from vsf_lib.pages.words import on_page
from vsf_lib.settings import Settings, fields
from vsf_lib.studio.desk import ImageDesk


class Kept:
    """A row that keeps what it is given."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.asked: list[Asked] = []

    def start(self) -> None: ...

    def close(self) -> None: ...

    def add(self, asked: Asked) -> int:
        self.asked.append(asked)
        return len(self.asked)


@pytest.fixture
def desk(tmp_path: Path) -> ImageDesk:
    return ImageDesk(tmp_path / "outputs", tmp_path / "models", row=Kept)


def form(**values: Any) -> dict[str, Any]:
    """What the page's form sends."""
    own = {
        "prompt": "a red car on a field", "model": "scenes", "parts": "", "steps": 8, "seed": 2, "size": "",
        "guidance_scale": "", "device": "auto", "dtype": "auto", "offload": "none", "compare": True,
        "heatmap": True, "sweep": "alpha=0:4:2", "fps": 4, "loop": False,
    }  # fmt: skip
    settings = {item.name: item.default for item in fields() if not item.webui}
    return {**own, **settings, "negative_prompt": "wheels", **values}


@pytest.mark.parametrize(
    ("values", "error", "says"),
    [
        ({"prompt": " "}, PromptError, "the prompt is empty"),
        ({"prompt": "a dragon"}, PromptError, "does not know: 'dragon'. It knows the things car, house"),
        ({"negative_prompt": "scales"}, PromptError, "the negative prompt has words"),
        ({"alpha": 101}, SettingsError, "alpha is 101"),
        ({"start": 0.5, "end": 0.5}, SettingsError, "start must be below end"),
        ({"start": 0.95}, SettingsError, "none of 8 steps lies between"),
        ({"seed": -2}, SettingsError, "seed is -2, but must be .* to 4294967295, or -1 for a new one"),
        ({"seed": 2**32}, SettingsError, "seed is 4294967296"),
        ({"seed": 2.5}, SettingsError, "seed is 2.5, but must be a whole number"),
        ({"seed": math.inf}, SettingsError, "seed is inf, but must be a whole number"),
        ({"steps": 0}, SettingsError, "steps is 0, but must be a whole number from 1 to 1000"),
        ({"steps": 1001}, SettingsError, "steps is 1001"),
        ({"steps": None}, SettingsError, "steps is empty, but must be a whole number from 1 to 1000"),
        ({"steps": 7.5}, SettingsError, "steps is 7.5"),
        ({"alpha": None}, SettingsError, "Alpha is empty, but must be a number from 0 to 100"),
        ({"beta": ""}, SettingsError, "Beta is empty"),
        ({"method": "nag", "nag_tau": None}, SettingsError, "NAG tau is empty, .* from 1 to 100"),
        ({"size": "60x64"}, SettingsError, "the width is 60"),
        ({"size": "large"}, SettingsError, "the size is 'large'"),
        ({"guidance_scale": "much"}, SettingsError, "the guidance scale is 'much'"),
        ({"guidance_scale": "0.5"}, SettingsError, "the guidance scale is 0.5"),
        ({"model": ""}, SettingsError, "no model is chosen"),
        ({"model": "no such model"}, ModelError, "there is no model 'no such model'"),
        ({"parts": "somewhere"}, ModelError, "goes with a single .safetensors file"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_it_waits(
    desk: ImageDesk, values: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        desk.add(form(**values))
    assert desk.row.asked == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "must be like alpha=0:8:0.5"),
        ("alpha", "must be like"),
        ("prompt=1,2", "no setting"),
        ("nag_phi=1,2", "which method vsf does not read"),
        ("alpha=0:200:1", "at most 200"),
        ("pooled_shift=0,1", "acts on Flux models only"),
    ],
)
def test_a_sweep_that_cannot_be_drawn_is_refused(desk: ImageDesk, text: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        desk.add(form(sweep=text), sweep=True)
    assert desk.row.asked == []


def test_minus_one_and_nothing_are_a_new_seed_that_is_known_before_it_is_drawn(desk: ImageDesk) -> None:
    """The worker resolves the job again, and would otherwise take a seed that nobody has seen checked."""
    for values in ({"seed": -1}, {"seed": None}, {"seed": "", "sweep": "alpha=1,2"}):
        for _ in range(2):
            desk.add(form(**values), sweep="sweep" in values)
    seeds = [asked.seed for asked in desk.row.asked]
    assert all(isinstance(seed, int) and 0 <= seed < 2**32 for seed in seeds)
    assert len(set(seeds)) == len(seeds)


def test_what_is_not_read_may_be_empty(desk: ImageDesk) -> None:
    desk.add(form(method="vsf", nag_tau=None, nasa_alpha=None))
    desk.add(form(method="off", alpha=None))
    desk.add(form(alpha=None), sweep=True)
    assert "nag_tau" not in desk.row.asked[0].given
    with pytest.raises(SettingsError, match="values per second of the film is empty"):
        desk.add(form(fps=None), sweep=True)


def test_a_job_is_what_the_form_says(desk: ImageDesk) -> None:
    desk.add(form(alpha=2.33, negative_tokens="words", size="64x32", guidance_scale="2,5"))
    desk.add(form(sweep="--alpha=1,2", fps=9, loop=True), sweep=True)
    single, swept = (resolve(Asked(**json.loads(json.dumps(asked.told())))) for asked in desk.row.asked)
    assert (single.settings.alpha, single.settings.negative_tokens, single.seed) == (2.33, "words", 2)
    assert (single.compare, single.heatmap, single.size, single.guidance_scale) == (True, True, (64, 32), 2.5)
    assert swept.sweep is not None
    assert (swept.sweep.sweep.values, swept.sweep.fps, swept.sweep.loop) == ((1.0, 2.0), 9, True)
    assert (swept.compare, swept.heatmap) == (False, False)


@pytest.mark.parametrize(
    ("values", "compares", "heats"),
    [
        ({"negative_prompt": " "}, False, False),
        ({"method": "off"}, False, False),
        ({"method": "nag"}, True, False),
        ({"heatmap": False}, True, False),
        ({"compare": False}, False, True),
    ],
)
def test_nothing_is_compared_that_is_not_guided(
    desk: ImageDesk, values: dict[str, Any], compares: bool, heats: bool
) -> None:
    desk.add(form(**values))
    request = resolve(desk.row.asked[0])
    assert (request.compare, request.heatmap) == (compares, heats)


def test_a_public_page_names_no_path(tmp_path: Path) -> None:
    desk = ImageDesk(tmp_path / "outputs", tmp_path / "models", paths=False, row=Kept)
    for values in ({"model": str(tmp_path)}, {"model": "a/b"}, {"parts": str(tmp_path)}):
        with pytest.raises(SettingsError, match="not among the models of this page"):
            desk.add(form(**values))
    desk.add(form(model="flux-schnell", steps=4))
    assert len(desk.row.asked) == 1
    told = replace(BASE, model=str(tmp_path))
    assert not desk.restored(save(tmp_path / "x.png", noise(np.random.default_rng()), told)).here


def test_outputs_that_cannot_be_written_to_are_told_before_anything_is_drawn(tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    desk = ImageDesk(outputs, row=Kept)
    desk.add(form())
    assert [*outputs.iterdir()] == [], "nothing is left of the probe"
    outputs.rmdir()
    outputs.write_text("a file in the way", "utf-8")
    with pytest.raises(OutputError, match=r"nothing is made, .* be kept in .*outputs: File exists"):
        desk.add(form())
    desk.shelf = replace(desk.shelf, paths=False)
    with pytest.raises(OutputError, match="could not be kept in its folder: ") as caught:
        desk.add(form())
    assert str(tmp_path) not in str(caught.value), "others need not know where"
    assert len(desk.row.asked) == 1


@pytest.mark.parametrize(
    ("model", "here"),
    [
        ("sd_xl_base_1.0", False),
        ("/home/somebody/model", False),
        ("scenes", True),
        ("nobody/nothing-of-the-kind", True),
    ],
)
def test_a_file_of_a_model_that_is_not_here_says_so(
    tmp_path: Path, desk: ImageDesk, model: str, here: bool
) -> None:
    told = replace(BASE, model=model, settings=None, version="v1.10.1")
    restored = desk.restored(save(tmp_path / "x.png", noise(np.random.default_rng()), told))
    said = f"x.png was drawn with {model}, which is not here: the model stays as it is"
    assert restored.here == here
    assert (said in restored.request.notes) != here


def test_a_model_of_the_hub_is_fetched_at_the_second_press(desk: ImageDesk) -> None:
    values = form(model="nobody/nothing-of-the-kind")
    with pytest.raises(SettingsError, match="press the button again to fetch it"):
        desk.add(values)
    assert desk.row.asked == []
    desk.add(values)
    assert len(desk.row.asked) == 1


def test_folders_are_offered_by_their_names(tmp_path: Path, desk: ImageDesk) -> None:
    for name, kind in (("turbo", "StableDiffusion3Pipeline"), ("wan", "WanPipeline")):
        folder = tmp_path / "models" / name
        folder.mkdir(parents=True)
        (folder / "model_index.json").write_text(json.dumps({"_class_name": kind}), encoding="utf-8")
    assert "turbo" in desk.shelf.names()
    assert "wan" not in desk.shelf.names(), "it makes videos"
    path = desk.shelf.model("turbo")
    assert path == str(tmp_path / "models" / "turbo")
    assert desk.shelf.name(path) == "turbo"
    assert desk.shelf.name("scenes") == "scenes"


def test_a_file_restores_what_it_was_made_from(tmp_path: Path, desk: ImageDesk) -> None:
    rng, pick = np.random.default_rng(), random.Random()
    for number in range(20):
        method = pick.choice(["vsf", "difference", "nag", "nasa"])
        settings = Settings(
            method=method, negative_prompt="wheels, a \"hat\"", alpha=round(pick.uniform(0.1, 40), 3),
            beta=round(pick.uniform(0, 9), 3), nag_phi=round(pick.uniform(0.1, 30), 2), start=0.125,
        ).canonical()  # fmt: skip
        told = replace(BASE, settings=settings, seed=pick.randrange(2**32), steps=pick.randint(2, 90))
        path = save(tmp_path / f"{number}.png", noise(rng), told)
        request = desk.restored(path).request
        assert request.settings == settings
        assert (request.seed, request.steps, request.prompt) == (told.seed, told.steps, told.prompt)
        assert request.size == (64, 48)


def test_a_file_of_other_weights_says_so_in_the_form(tmp_path: Path, desk: ImageDesk) -> None:
    ours = find_model("scenes").fingerprint()
    for name, weights, differs in (("old.png", "0123456789", True), ("new.png", ours, False)):
        told = replace(BASE, extra={FINGERPRINT: weights})
        notes = desk.restored(save(tmp_path / name, noise(np.random.default_rng()), told)).request.notes
        said = f"{name} was made with other weights of this model, so the picture differs"
        assert (said in notes) == differs


def test_what_restores_nothing_says_why(tmp_path: Path, desk: ImageDesk) -> None:
    noise(np.random.default_rng()).save(tmp_path / "plain.png")
    with pytest.raises(SettingsError, match="carries no"):
        desk.restored(tmp_path / "plain.png")
    (tmp_path / "broken.mp4").write_bytes(b"no film")
    pytest.importorskip("imageio_ffmpeg")
    with pytest.raises(SettingsError):
        desk.restored(tmp_path / "broken.mp4")


def test_a_film_restores_its_sweep_and_a_video_is_sent_to_its_tab(tmp_path: Path, desk: ImageDesk) -> None:
    pytest.importorskip("imageio_ffmpeg")
    from PIL import Image

    from vsf_lib.metadata import format_parameters, write_png
    from vsf_lib.video.files import write_video
    from vsf_lib.video.job import VideoJob

    frames = np.random.default_rng().integers(0, 256, (3, 32, 32, 3), np.uint8)
    extra = {"VSF sweep": "alpha=0:4:2", "VSF fps": "9", "VSF loop": "there and back"}
    film = write_video(tmp_path / "film.mp4", frames, format_parameters(replace(BASE, extra=extra)))
    plan = desk.restored(film).request.sweep
    assert plan is not None
    assert (plan.sweep.text, plan.fps, plan.loop) == ("alpha=0:4:2", 9, True)
    strip = tmp_path / "video-strip.png"
    write_png(strip, Image.fromarray(frames[0]), VideoJob(prompt="a red car", model="wan").infotext())
    with pytest.raises(SettingsError, match=r"video-strip\.png is of a video: drop it in the tab Video"):
        desk.restored(strip)
    video = write_video(tmp_path / "video.mp4", frames, format_parameters(BASE))
    with pytest.raises(SettingsError, match=r"video\.mp4 is of a video: drop it in the tab Video"):
        desk.restored(video)


def test_flux_s_guidance_scale_is_its_own(tmp_path: Path, desk: ImageDesk) -> None:
    told = replace(BASE, model="flux-dev", extra={"Distilled CFG Scale": "2.5"})
    restored = desk.restored(save(tmp_path / "x.png", noise(np.random.default_rng()), told))
    assert (restored.flux, restored.guidance_scale) == (True, 2.5)
    plain = desk.restored(
        save(tmp_path / "y.png", noise(np.random.default_rng()), replace(BASE, cfg_scale=3))
    )
    assert (plain.flux, plain.guidance_scale) == (False, 3)


def test_recipes_are_those_that_the_model_can_show(desk: ImageDesk) -> None:
    small = [name for _, name in desk.recipes("scenes")]
    assert "remove" in small
    assert "camouflage" not in small
    assert "camouflage" in [name for _, name in desk.recipes("black-forest-labs/FLUX.1-dev")]
    assert desk.example("gentle", "scenes").values["alpha"] == 5.0


def test_a_video_has_the_room_of_the_pictures_and_no_picture_beside_it(desk: ImageDesk) -> None:
    def room() -> None:
        asked.append("room")
        with pytest.raises(Withdrawn), around.picture(lambda: True):
            asked.append("a picture beside the video")

    asked: list[str] = []
    around = desk.around
    desk.row.make_room = room
    with around.job(None, lambda: False):  # type: ignore[arg-type]
        assert asked == ["room"]
    with around.picture(lambda: False), pytest.raises(Withdrawn), around.job(None, lambda: True):  # type: ignore[arg-type]
        asked.append("a video beside the picture")
    assert asked == ["room"]


def test_messages_are_in_the_page_s_words() -> None:
    assert on_page("--negative-prompt, what") == "“Negative prompt”, what"
    assert on_page("pass --nag-phi or --from-image") == "fill in “NAG phi” or the file"
    assert on_page('the prompt is empty: pass --prompt "what the picture shows"') == (
        "the prompt is empty: fill in “Prompt”"
    )
    assert on_page("--heatmap shows: give --negative-prompt, what the picture must not show") == (
        "“Show where it acts” shows: fill in “Negative prompt”"
    )
    assert (
        on_page("a single file: name with --parts a folder")
        == "a single file: name in “Other parts” a folder"
    )
    assert on_page("use --dtype bfloat16; a red-car--1, --parts") == (
        "use “Precision” bfloat16; a red-car--1, “Other parts”"
    )
