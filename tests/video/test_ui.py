"""The page's form and events, called as gradio calls them; `test_browser.py` has them in a browser."""

from __future__ import annotations

import base64
import json
import sqlite3
import sys
from pathlib import Path

import pytest

gr = pytest.importorskip("gradio")
pytest.importorskip("wan_files")

from page_events import answered  # noqa: E402
from wan_files import save_lora  # noqa: E402

from vsf_lib.controls import WHY, seen  # noqa: E402
from vsf_lib.errors import SettingsError  # noqa: E402
from vsf_lib.pages import world  # noqa: E402
from vsf_lib.settings import Settings, field  # noqa: E402
from vsf_lib.video.desk import Desk, Places  # noqa: E402
from vsf_lib.video.job import Lora, VideoJob  # noqa: E402
from vsf_lib.video.ui.form import Form  # noqa: E402
from vsf_lib.video.ui.page import _Page  # noqa: E402
from vsf_lib.video.ui.told import copies  # noqa: E402
from vsf_lib.video.ui.told import shown as shows  # noqa: E402


@pytest.fixture
def desk(tmp_path, wan):
    models = tmp_path / "models"
    models.mkdir()
    (models / "klein").symlink_to(wan, target_is_directory=True)
    (tmp_path / "loras").mkdir()
    save_lora(tmp_path / "loras" / "CausVid.safetensors")
    made = Desk(Places(tmp_path / "data", tmp_path / "videos", models, tmp_path / "loras"))
    made.queue.paused = True
    yield made
    made.close()


@pytest.fixture
def form(desk):
    with gr.Blocks():
        return Form(desk)


@pytest.fixture
def page(desk):
    with gr.Blocks():
        return _Page(desk)


def shown(form, job):
    """What the form's elements hold once they show a job."""
    updates = dict(zip([*form.elements, "preset", "size"], form.filled(job), strict=False))
    return {name: update["value"] for name, update in updates.items()}


def full(desk, **values):
    """A job in which nothing has its default."""
    given = {
        "prompt": "a red car", "model": desk.shelf.model("klein"), "width": 640, "height": 352, "frames": 5,
        "fps": 24, "steps": 60, "seed": 7, "guidance_scale": 12, "flow_shift": 8, "drop_frames": 16,
        "format": "webm", "quality": 3, "offload": "group",
        "loras": [Lora(file=desk.shelf.lora("CausVid.safetensors"), weight=0.4)],
        "settings": Settings(
            negative_prompt="wheels", method="nag", nag_phi=9, nag_tau=3, nag_alpha=0.4, start=0.1, end=0.8
        ),
    }  # fmt: skip
    return VideoJob.create(**{**given, **values})


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"drop_frames": 0, "flow_shift": None},
        {"drop_frames": None, "loras": []},
        {"frames": 161, "settings": Settings(negative_prompt="a", alpha=2.35, negative_tokens="words")},
        {"settings": Settings(negative_prompt="a", method="nasa", nasa_alpha=0.3)},
        {"settings": Settings(method="off"), "guidance_scale": 5},
        {"compare": True},
    ],
)  # fmt: skip
def test_a_job_comes_back_whole_from_the_form(desk, form, values):
    job = full(desk, **values)
    filled = shown(form, job)
    again = desk.job(form.values(*(filled[name] for name in form.elements)))
    assert again.settings.canonical() == job.settings.canonical()
    assert again.model_dump(exclude={"settings"}) == job.model_dump(exclude={"settings"})
    unguided = job.settings.method == "off"
    assert (filled["preset"], filled["size"]) == ("usual" if unguided else "own values", "own size")
    assert filled["model"] == "klein"


def test_a_usual_size_is_shown_by_its_name(desk, form):
    assert shown(form, full(desk, width=1280, height=720))["size"] == "720p landscape"


def test_a_slider_becomes_long_enough_for_what_a_file_says(desk, form):
    filled = form.filled(full(desk, settings=Settings(negative_prompt="a", alpha=40)))
    update = dict(zip(form.elements, filled, strict=False))["alpha"]
    assert (update["value"], update["minimum"], update["maximum"]) == (40, 0, 40)


def first(form):
    """What the form holds before anybody touches it."""
    return {name: element.value for name, element in form.elements.items()}


def test_what_is_typed_comes_to_the_desk_as_it_is(form):
    """Gradio's elements would refuse it in words of their own, or take the nearest number in silence."""
    for name, element in form.elements.items():
        if element.get_block_name() in ("slider", "number"):
            for typed in (None, -1, 1.5, 1000.25):
                assert element.preprocess(typed) == typed, name
    assert {"steps", "frames", "fps", "seed", "width", "quality", "guidance_scale", "nag_tau"} <= {
        name for name, element in form.elements.items() if isinstance(element, gr.Slider | gr.Number)
    }


def test_the_form_comes_back_from_what_the_browser_has_kept(desk, form):
    values = first(form) | {
        "prompt": "a cat \"in\" the snow", "negative_prompt": "ears", "method": "nag", "nag_phi": 33.5,
        "seed": 9, "frames": 161, "model": "klein", "width": 1280, "height": 720, "compare": True,
        "loras": "a.safetensors:0.5\nb",
    }  # fmt: skip
    updates = dict(zip(form.outputs, form.kept(json.dumps(values)), strict=True))
    assert {name: updates[element]["value"] for name, element in form.elements.items()} == values
    assert updates[form._size]["value"] == "720p landscape"
    assert updates[form._suggestions.preset]["value"] == "own values"
    assert [row["visible"] for row in [*updates.values()][-2:]] == [True, False], "the fields of nag"
    for kept in ("", "{", "[]", json.dumps({"no such": 1})):
        assert form.kept(kept) == [gr.skip()] * len(form.outputs)
    some = form.kept(json.dumps({"prompt": "a bird", "steps": None, "fps": "many"}))
    assert dict(zip(form.elements, some, strict=False))["prompt"]["value"] == "a bird"
    assert dict(zip(form.elements, some, strict=False))["steps"]["value"] == first(form)["steps"]


def test_another_model_brings_its_hints_recipes_and_strengths(desk):
    with gr.Blocks() as blocks:
        form = Form(desk)
    for model in ("wan", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"):
        chosen = form.elements["model"]
        found = answered(blocks, chosen, "input", {chosen: model})
        assert found[form.elements["alpha"]]["value"] == desk.strengths(model)["alpha"]
        assert found[form.elements["prompt"]]["info"] == world.world(model)
        assert found[form.elements["negative_prompt"]]["info"] == world.parts(model)
        assert found[form._suggestions.recipe]["choices"] == desk.recipes(model)


def folds(element):
    """Whether it is in an accordion."""
    while element is not None:
        if isinstance(element, gr.Accordion):
            return True
        element = element.parent
    return False


def test_methods_and_recipes_are_in_sight_and_why_it_is_there_is_said(form):
    method = form.elements["method"]
    assert [value for _, value in method.choices] == list(field("method").choices)
    assert method.info == field("method").help
    assert folds(form.elements["offload"]), "what folds is known"
    assert not folds(method)
    assert not folds(form._suggestions.recipe)
    assert form.elements["negative_prompt"].info == WHY
    assert "camouflage" in [value for _, value in form._suggestions.recipe.choices]


def row(desk, **values):
    return desk.queue.add(full(desk, **values))


def test_only_what_has_changed_is_drawn_again(desk, page):
    id = row(desk)
    first = page._look(0, {})
    seen = first[-1]
    assert first[1]["choices"][0][0].startswith(f"{id} · waiting · a red car · 640x352, 5 frames")
    again = page._look(0, seen)
    assert all("choices" not in update and "value" not in update for update in again[1:-1])
    desk.queue.paused = False
    desk.queue.take()
    desk.queue.done(id, "", "text", seconds=75)
    desk.queue.paused = True
    after = page._look(id, again[-1])
    assert after[1]["choices"] == []
    assert after[2]["choices"][0][0].endswith("1 min 15 s")
    assert after[2]["value"] == id
    assert after[6] == "text"


def test_a_save_that_fails_keeps_its_button(desk, page):
    id = row(desk)
    values = shown(page._form, full(desk, prompt="a bird"))
    given = [{**values, "width": 130}[name] for name in page._form.elements]
    failed = page._save_job(id, {}, "", id, *given)
    assert "128 or 144, not 130" in failed[-3]
    assert "visible" not in failed[-1]
    worked = page._save_job(id, {}, "", id, *(values[name] for name in page._form.elements))
    assert worked[-1]["visible"] is False
    assert desk.queue.entry(id).job.prompt == "a bird"


def test_the_buttons_of_each_list_leave_the_other_alone(desk, page):
    done, waiting = row(desk), row(desk)
    desk.queue.paused = False
    desk.queue.take()
    desk.queue.done(done, "", "text")
    desk.queue.paused = True
    for act in ("cancel", "up", "down", "remove"):
        with pytest.raises(SettingsError, match=f"job {done} is done: choose one in the queue"):
            page._act(act, done, "")
    assert f"job {done} is done: choose one in the queue" in page._double("duplicate", done, {}, "")[-3]
    *form, said, editing, save = page._edit(done)
    assert "choose one in the queue" in said
    assert all(update == gr.update() for update in (*form, editing, save)), "another may be being edited"
    assert [entry.id for entry in desk.queue.entries()] == [waiting, done]
    for act in ("forget", "delete"):
        with pytest.raises(SettingsError, match=f"job {waiting} is waiting"):
            page._act(act, waiting, "")
    assert f"job {waiting} is waiting" in page._double("again", waiting, {}, "")[-3]
    assert [entry.id for entry in desk.queue.entries()] == [waiting, done]
    page._act("forget", done, "")
    page._act("remove", waiting, "")
    assert desk.queue.entries() == []


def test_a_job_of_another_version_can_be_taken_out_of_the_queue(desk, page):
    id = row(desk)
    with sqlite3.connect(desk.places.data / "queue.sqlite") as db:
        db.execute("UPDATE jobs SET job = '{}'")
    db.close()
    assert "failed" in page._look(0, {})[1]["choices"][0][0]
    page._act("remove", id, "")
    assert desk.queue.entries() == []


def test_a_job_comes_into_the_form_with_its_preset(desk, page):
    usual = Settings(negative_prompt="a", **desk.strengths("klein"))
    id = row(desk, settings=usual)
    *_, said, editing, save = page._edit(id)
    shown = dict(zip(page._form.outputs, page._edit(id), strict=False))
    assert shown[page._form._suggestions.preset]["value"] == "usual"
    assert (editing, save["value"], save["visible"]) == (id, f"Save job {id}", True)
    assert "in the form" in said


def test_a_job_that_is_made_once_more_is_the_chosen_one(desk, page):
    id = row(desk)
    *_, said, _, chosen = page._double("duplicate", id, {}, "")
    assert chosen == id + 1
    assert f"job {chosen} is in the queue, which is paused" in said
    desk.queue.paused = False
    desk.queue.take()
    desk.queue.done(id, "", "text")
    desk.queue.paused = True
    *_, again = page._double("again", id, {}, "")
    assert again == id + 2
    assert desk.queue.entry(again).state == "waiting"


def test_a_page_that_is_loaded_shows_what_runs_or_comes_or_was_made_last(desk, page):
    assert page._first() == 0
    first, second = row(desk), row(desk)
    desk.queue.paused = False
    desk.queue.take()
    desk.queue.move(second, 0)
    assert page._first() == first, "it runs"
    desk.queue.done(first, "", "text")
    assert page._first() == second, "it comes next"
    desk.queue.withdraw(second)
    assert page._first() == second, "it ended last"


def test_what_was_said_of_a_job_goes_when_it_has_ended(desk, page):
    said, id = page._add(*(shown(page._form, full(desk))[name] for name in page._form.elements))
    looked = page._look(id, {"busy": 99}, None)
    assert looked[-2] == gr.update(), "it waits"
    desk.queue.paused = False
    desk.queue.take()
    looked = page._look(id, looked[-1], said)
    assert looked[-2] == gr.update(), "it runs"
    other = page._look(id, looked[-1], "the prompt is empty")
    desk.queue.done(id, "", "text")
    assert page._look(id, other[-1], "the prompt is empty")[-2] == gr.update(), "of something else"
    after = page._look(id, looked[-1], said)
    assert after[-2] == ""
    assert page._look(id, after[-1], None)[-2] == gr.update(), "as a page begins"


def test_what_cannot_be_restored_leaves_a_job_that_is_edited_alone(desk, page):
    *form, said, save = page._restore(VideoJob.from_infotext)("a red car\nSteps: 8")
    assert "vsf-error" in said
    assert all(update == gr.update() for update in (*form, save))
    assert all(update == gr.update() for update in page._restore(VideoJob.from_infotext)(""))
    *form, said, save = page._restore(VideoJob.from_infotext)(full(desk).infotext())
    assert (len(form), save["visible"]) == (len(page._form.outputs), False), "the form holds another"


def test_copies_that_were_made_to_show_a_video_go_with_it(desk, page, tmp_path, monkeypatch):
    monkeypatch.setattr(page._video, "GRADIO_CACHE", str(tmp_path / "cache"))
    file = desk.places.outputs / "a [red] car.mp4"
    for folder, text in (("one", "x"), ("two", "another of the same name")):
        (tmp_path / "cache" / folder).mkdir(parents=True)
        (tmp_path / "cache" / folder / file.name).write_text(text)
    file.parent.mkdir()
    file.write_text("x")
    strip = file.with_name("a [red] car-strip.png")
    for path in (strip, tmp_path / "cache" / "one" / strip.name):
        path.write_text("y")
    id = row(desk)
    desk.queue.paused = False
    desk.queue.take()
    desk.queue.done(id, str(file), "")
    said = page._act("delete", id, "job 9 is in the queue")
    assert "once more" in said
    assert file.exists(), "at the second press, with nothing said in between"
    assert "are deleted" in page._act("delete", id, said)
    assert not (tmp_path / "cache" / "one" / strip.name).exists()
    failed = row(desk)
    desk.queue.take()
    desk.queue.failed(failed, "it did not go")
    assert "are deleted" in page._act("delete", failed, None)
    assert [path.parent.name for path in (tmp_path / "cache").rglob("*.mp4")] == ["two"]
    assert copies(Path(), tmp_path) == []


def test_under_a_comparison_is_its_strip(tmp_path):
    film, strip = tmp_path / "a car.mp4", tmp_path / "a car-strip.png"
    for file in (film, strip):
        file.write_bytes(b"x")
    (tmp_path / "other-strip.png").write_bytes(b"x")
    picture = shows(str(film), "a car\nSteps: 1, VSF comparison: side by side")[1]
    assert (picture["value"], picture["visible"]) == (str(strip), True)
    assert shows(str(film), "a car\nSteps: 1")[1]["visible"] == seen(False), "another picture of that name"
    strip.unlink()
    assert shows(str(film), "a car\nSteps: 1, VSF comparison: side by side")[1]["visible"] == seen(False)
    assert shows("", "")[1]["visible"] == seen(False)


def test_a_job_in_which_nothing_acts_says_so(desk, page):
    values = shown(page._form, full(desk, settings=Settings()))
    said, _ = page._add(*(values[name] for name in page._form.elements))
    assert "job 1 is in the queue" in said
    assert "there is no negative prompt, so nothing is guided" in said


@pytest.mark.skipif(sys.platform == "win32", reason="the program is a script")
@pytest.mark.parametrize("programs", [(), ("ffmpeg",), ("ffmpeg", "ffprobe")])
def test_a_film_is_shown_whichever_programs_there_are(desk, page, tmp_path, monkeypatch, programs):
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in programs:
        (tmp_path / name).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    file = desk.places.outputs / "a car.mp4"
    file.parent.mkdir()
    file.write_bytes(b"a film")
    id = row(desk)
    desk.queue.paused = False
    desk.queue.take()
    desk.queue.done(id, str(file), "its text")
    looked = page._look(id, {})
    video, own = looked[4], looked[7]
    assert looked[6] == "its text"
    assert video["visible"] is not own["visible"]
    page._video.postprocess(video["value"])
    content = base64.b64encode(b"a film").decode()
    assert (video["value"] == str(file)) is (f"data:video/mp4;base64,{content}" not in own["value"])
    assert str(file) not in own["value"], "where it lies on the server is nobody's business"
    assert video["value"] or file.name in own["value"]


def test_what_stops_the_queue_is_shown(desk, page):
    assert desk.runner
    (desk.places.data / "queue.sqlite").write_bytes(b"x" * 4096)
    assert "is damaged" in page._look(0, {})[0]


def test_what_is_looked_at_stays_while_the_next_is_made(desk, page):
    first, second = row(desk), row(desk)
    desk.queue.paused = False
    desk.queue.take()
    desk.queue.done(first, str(desk.places.outputs / "gone.mp4"), "its text")
    desk.queue.paused = True
    seen = page._look(first, {})
    assert "its file is gone" in seen[2]["choices"][0][0]
    assert seen[6] == "its text"
    while_waiting = page._look(second, seen[-1])
    assert "value" not in while_waiting[4]
    assert while_waiting[-1]["shown"] == seen[-1]["shown"]
