"""The built-in Wan and comparisons on the page: what a newcomer finds there, and what is sent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

gr = pytest.importorskip("gradio")
pytest.importorskip("wan_files")

from waiting import until  # noqa: E402

from vsf_lib.errors import PromptError, SettingsError  # noqa: E402
from vsf_lib.presets import preset_for  # noqa: E402
from vsf_lib.scenes import model  # noqa: E402
from vsf_lib.scenes.model import WAN, WAN_STEPS  # noqa: E402
from vsf_lib.scenes.motion import FRAMES  # noqa: E402
from vsf_lib.video.builtin import USUAL  # noqa: E402
from vsf_lib.video.desk import Desk, Places, Rights  # noqa: E402
from vsf_lib.video.job import VideoJob  # noqa: E402
from vsf_lib.video.queue import DONE, FAILED  # noqa: E402
from vsf_lib.video.ui import fitting  # noqa: E402
from vsf_lib.video.ui.form import Form  # noqa: E402
from vsf_lib.video.ui.page import _Page  # noqa: E402

REAL = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"


@pytest.fixture
def desk(tmp_path, built_in):
    made = Desk(Places(tmp_path / "data", tmp_path / "videos", tmp_path / "models", tmp_path / "loras"))
    yield made
    made.close()


def form_of(desk: Desk) -> Form:
    with gr.Blocks():
        return Form(desk)


def sent(form: Form, **typed) -> dict:
    """What the form sends after its first look, with what a visitor has typed."""
    shown = {name: element.value for name, element in form.elements.items()}
    return {**shown, "negative_prompt": "", **typed}


def test_on_a_fresh_machine_a_prompt_is_all_it_takes(desk):
    form = form_of(desk)
    assert form.elements["model"].value == WAN
    assert form._size.value == "64x64"
    words = {"prompt": "a red car driving on a field", "negative_prompt": "wheels"}
    id = desk.add(sent(form, **words, seed=1, compare=True))
    job = desk.queue.entry(id).job
    usual = VideoJob.create(
        **USUAL, model=WAN, prompt=words["prompt"], seed=1, compare=True,
        settings=preset_for(WAN).settings("wheels").model_dump(),
    )  # fmt: skip
    assert job.infotext() == usual.infotext()
    assert (job.offload, job.made_frames) == ("none", FRAMES)
    until(lambda: desk.queue.entry(id).state in (DONE, FAILED))
    entry = desk.queue.entry(id)
    assert entry.state == DONE, entry.message
    path = Path(entry.path)
    assert path.name == "a-red-car-driving-on-a-field-1-compare.mp4"
    assert path.with_name(f"{path.stem}-strip.png").is_file()
    assert desk.restored(path).infotext() == job.infotext()
    desk.delete(id)
    assert list(desk.places.outputs.iterdir()) == [], "the strip goes with its video"


def test_a_newcomer_only_presses_generate(desk):
    desk.queue.paused = True
    form = form_of(desk)
    job = desk.queue.entry(desk.add({name: element.value for name, element in form.elements.items()})).job
    assert (job.model, job.compare, job.acts) == (WAN, True, True)
    assert (job.prompt, job.settings.negative_prompt) == ("a red car driving on a field", "wheels")
    assert form._suggestions.recipe.choices
    assert "driving" in form.elements["prompt"].info
    for what in (
        {"negative_prompt": " "},
        {"method": "off"},
    ):  # the usual tick at "compare" is no reason to refuse an ordinary video
        assert desk.job(sent(form, **{"negative_prompt": "wheels", **what})).compare is False


def test_without_its_weights_it_is_not_named(tmp_path, monkeypatch):
    monkeypatch.setattr(model, "WAN_FOLDER", tmp_path / "nowhere")
    desk = Desk(Places(tmp_path / "data", tmp_path / "videos", tmp_path / "models", tmp_path / "loras"))
    with gr.Blocks() as blocks:
        _Page(desk).connect(blocks)
    page = json.dumps(blocks.config["components"], default=str)
    assert "Video model" in page
    for named in ('"wan"', "wan (", "64x64", "built in", "built-in"):
        assert named not in page, "neither chosen, nor offered, nor named"
    desk.close()


def test_where_there_is_a_real_one_it_comes_first(desk, wan):
    folder = desk.places.models / "klein"
    folder.parent.mkdir()
    folder.symlink_to(wan, target_is_directory=True)
    assert desk.shelf.model_names()[:2] == ["klein", WAN]
    form = form_of(desk)
    assert [form.elements[name].value for name in ("model", "width", "frames")] == ["klein", 832, 81]
    assert form.elements["negative_tokens"].value == "all"


def test_sizes_steps_and_lora_follow_the_kind_of_model_and_nothing_else_moves_them():
    def shown(*values):
        updates = fitting.fitted(*values)
        return [update.get("value", "as it was") for update in updates]

    ours = [64, 64, FRAMES, 8, WAN_STEPS, 0, "none", "few-steps:1", True, "64x64"]
    real = [832, 480, 81, 16, 8, -1, "auto", "", False, "480p landscape"]
    assert shown(WAN, 832, 480) == ours
    assert shown(WAN, 100, 100.0) == ours
    assert shown(REAL, 64, 64.0) == real
    assert shown(None, 64, 64) == real
    for kept in ((WAN, 64, 64), (REAL, 640, 352), ("klein", 1280, 720)):
        assert shown(*kept) == ["as it was"] * len(ours)


def test_the_preset_is_the_small_models(desk):
    form, preset = form_of(desk), preset_for(WAN)
    updates = form._suggestions.suggested("usual", WAN, "vsf")
    tokens = preset.settings().negative_tokens
    assert [update["value"] for update in updates][:3] == [preset.alpha, preset.beta, tokens]
    assert form.elements["negative_tokens"].value == tokens
    assert form.elements["alpha"].value == preset.alpha


@pytest.mark.parametrize(
    ("typed", "kind", "says"),
    [
        ({"prompt": "a zebra"}, PromptError, "the wan model does not know: 'zebra'.*driving"),
        ({"width": 832, "height": 480}, SettingsError, "64x64, not 832x480"),
        ({"model": "klein/of/mine"}, SettingsError, "not on this machine"),
    ],
)
def test_what_it_cannot_make_is_told_and_nothing_is_queued(desk, typed, kind, says):
    with pytest.raises(kind, match=says):
        desk.add(sent(form_of(desk), **{"prompt": "a red car", **typed}))
    assert desk.queue.entries() == []


def test_a_public_page_has_it_too(tmp_path, built_in):
    rights = Rights(install=False, paths=False, delete=False, open_folder=False)
    desk = Desk(Places(tmp_path / "data", tmp_path / "videos"), rights)
    job = desk.job(sent(form_of(desk), prompt="a red car"))
    assert (job.model, job.loras[0].file) == (WAN, "few-steps")
    desk.close()


def test_a_folder_of_its_name_is_another_model(desk, wan):
    folder = desk.places.models / WAN
    folder.parent.mkdir()
    folder.symlink_to(wan, target_is_directory=True)
    assert desk.shelf.model_names()[:2] == [str(folder), WAN]
    assert desk.shelf.model(str(folder)) == str(folder)
    assert desk.shelf.model(WAN) == WAN
    assert desk.strengths(str(folder))["alpha"] == preset_for(REAL).alpha


def test_a_job_with_it_comes_back_whole_from_the_form(desk):
    form = form_of(desk)
    job = desk.job(sent(form, prompt="a red car", negative_prompt="wheels", seed=3, compare=True))
    filled = dict(zip([*form.elements, "preset", "size"], form.filled(job), strict=False))
    values = {name: filled[name]["value"] for name in form.elements}
    assert (filled["size"]["value"], filled["preset"]["value"]) == ("64x64", "usual")
    assert "driving" in filled["prompt"]["info"]
    assert values["loras"] == "few-steps:1"
    assert desk.job(values).infotext() == job.infotext()
