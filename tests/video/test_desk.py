"""What a page may ask for: values of a form, lists, and what a public server refuses."""

from __future__ import annotations

import io
import os
import sys

import pytest

pytest.importorskip("imageio_ffmpeg")
pytest.importorskip("wan_files")

from PIL import Image
from waiting import until
from wan_files import save_lora

from vsf_lib.errors import ModelError, OutputError, PromptError, SettingsError
from vsf_lib.video import overlay
from vsf_lib.video.desk import Desk, Places, Rights
from vsf_lib.video.download.catalogue import Source
from vsf_lib.video.queue import CANCELLED, DONE
from vsf_lib.video.runner import Surroundings

FORM = {
    "prompt": "a red car",
    "negative_prompt": "wheels",
    "alpha": 1.5,
    "beta": 0.1,
    "loras": "",
    "width": 80,
    "height": 64,
    "frames": 5,
    "fps": 8,
    "steps": 2,
    "seed": 3,
    "start": 0.0,
    "end": 1.0,
    "method": "vsf",
    "guidance_scale": 1,
    "quality": 8,
    "format": "mp4",
    "offload": "auto",
    "vae": "",
    "text_encoder": "",
}


@pytest.fixture
def places(tmp_path, wan):
    models = tmp_path / "models"
    models.mkdir()
    (models / "klein").symlink_to(wan, target_is_directory=True)
    (tmp_path / "loras" / "fast").mkdir(parents=True)
    save_lora(tmp_path / "loras" / "fast" / "CausVid.safetensors")
    return Places(tmp_path / "data", tmp_path / "videos", models, tmp_path / "loras")


@pytest.fixture
def desk(places):
    made = Desk(places)
    yield made
    made.close()


def test_a_form_becomes_a_video_and_the_video_the_form(desk, places):
    id = desk.add({**FORM, "model": "klein", "loras": "fast/CausVid.safetensors:0.5\n\n"})
    until(lambda: desk.queue.entry(id).state == DONE)
    entry = desk.queue.entry(id)
    assert entry.path.startswith(str(places.outputs))
    again = desk.restored(places.outputs / "a-red-car-3.mp4")
    assert again.settings == entry.job.settings.canonical()
    assert again.loras == entry.job.loras
    assert again.loras[0].file == str(places.loras / "fast" / "CausVid.safetensors")
    assert again.model == str(places.models / "klein")
    desk.delete(id)
    assert not list(places.outputs.iterdir())
    assert desk.queue.entries() == []


def test_lists_are_what_is_there(desk, places):
    assert desk.shelf.model_names()[0] == "klein"
    assert desk.shelf.lora_names() == ["fast/CausVid.safetensors"]
    nowhere = Desk(Places(places.data, places.outputs))
    assert nowhere.shelf.lora_names() == []
    assert all(name == "wan" or "Wan-AI/" in name for name in nowhere.shelf.model_names())
    assert desk.strengths("Wan2.1-T2V-1.3B")["alpha"] == 1.5
    assert desk.strengths("my own folder", strong=True)["alpha"] == 1.7, "only Wan makes videos here"


@pytest.mark.parametrize(
    ("values", "kind", "says"),
    [
        ({"prompt": " "}, PromptError, "prompt is empty"),
        ({"model": ""}, SettingsError, "no model is chosen"),
        ({"alpha": -1}, SettingsError, "alpha is -1"),
        ({"frames": 6}, SettingsError, "5 or 9"),
        ({"model": "someone/nothing"}, SettingsError, "not on this machine"),
        ({"model": "/nix/da"}, SettingsError, "not on this machine"),
        ({"loras": "a:b|c"}, SettingsError, "cannot be a LoRA"),
        ({"colour": 1}, SettingsError, "no setting 'colour'"),
    ],
)
def test_bad_forms_are_told(desk, values, kind, says):
    with pytest.raises(kind, match=says):
        desk.add({**FORM, "model": "klein", **values})
    assert desk.queue.entries() == []


@pytest.mark.parametrize("none", [-1, None, ""])
def test_without_a_seed_it_is_another_each_time(desk, none):
    seeds = {desk.job({**FORM, "model": "klein", "seed": none}).seed for _ in range(4)}
    assert len(seeds) == 4


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"seed": -7}, "seed is -7, but must be a whole number"),
        ({"seed": 1.5}, "seed is 1.5, but must be a whole number"),
        ({"alpha": None}, "Alpha is empty, but must be a number from 0 to 100"),
        ({"method": "nag", "nag_tau": None}, "NAG tau is empty"),
        ({"alpha": 101}, "alpha is 101"),
    ],
)
def test_numbers_are_taken_as_typed_or_refused(desk, values, says):
    with pytest.raises(SettingsError, match=says):
        desk.job({**FORM, "model": "klein", **values})


def test_an_emptied_number_of_another_method_is_none_of_this_one(desk):
    assert desk.job({**FORM, "model": "klein", "nag_tau": None}).settings.alpha == FORM["alpha"]


def test_a_file_of_another_kind_is_refused_as_a_model_before_anything_waits(desk, tmp_path):
    (tmp_path / "passwd").write_text("x", "utf-8")
    with pytest.raises(ModelError, match=r"passwd is no .safetensors or .gguf file"):
        desk.add({**FORM, "model": str(tmp_path / "passwd")})
    assert desk.queue.entries() == []


def test_outputs_that_cannot_be_written_to_are_told_before_anything_waits(desk, places):
    places.outputs.write_text("a file in the way", "utf-8")
    with pytest.raises(OutputError, match=r"nothing is made, .* in .*videos: File exists"):
        desk.add({**FORM, "model": "klein"})
    assert desk.queue.entries() == []


def test_a_public_page_is_not_told_where_its_videos_lie(places):
    desk = Desk(places, Rights(paths=False))
    places.outputs.write_text("a file in the way", "utf-8")
    with pytest.raises(OutputError, match="could not be kept in its folder: ") as told:
        desk.add({**FORM, "model": "klein"})
    assert str(places.outputs) not in str(told.value)
    desk.close()


def test_a_lora_that_is_not_there_is_told_before_anything_waits(desk):
    desk.queue.paused = True
    gone = {**FORM, "model": "klein", "loras": "gone.safetensors"}
    with pytest.raises(ModelError, match=r"there is no LoRA gone\.safetensors"):
        desk.add(gone)
    assert desk.queue.entries() == []
    id = desk.add({**FORM, "model": "klein"})
    with pytest.raises(ModelError, match=r"there is no LoRA gone\.safetensors"):
        desk.save(id, gone)
    assert desk.queue.entry(id).job.loras == ()


def test_a_file_of_no_video_is_told_by_its_name_alone(desk, tmp_path):
    (tmp_path / "a.gif").write_bytes(_gif())
    (tmp_path / "b.mp4").write_bytes(b"junk")
    (tmp_path / "c.txt").write_bytes(b"\xff\xfe\xfa")
    (tmp_path / "d.txt").write_text("a shopping list", "utf-8")
    for name, says in (
        ("a.gif", "a.gif carries no parameters, .* take the text file"),
        ("b.mp4", "b.mp4"),
        ("c.txt", "cannot read c.txt"),
        ("d.txt", "does not end in a line of parameters"),
    ):
        with pytest.raises(SettingsError, match=says) as told:
            desk.restored(tmp_path / name)
        assert str(tmp_path) not in str(told.value)
    video = desk.job({**FORM, "model": "klein"})
    (tmp_path / "a.txt").write_text(video.infotext() + "\n", "utf-8")
    for name in ("a.gif", "a.txt"):
        assert desk.restored(tmp_path / name).infotext() == video.infotext()


def _gif():
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "GIF")
    return file.getvalue()


def test_without_the_packages_nothing_is_queued(desk, monkeypatch):
    monkeypatch.setattr(overlay, "pins", lambda: ("diffusers==0.0",))
    with pytest.raises(SettingsError, match="press Install"):
        desk.add({**FORM, "model": "klein"})


def test_a_public_server_installs_deletes_and_reads_nothing_of_its_visitors_choice(places, tmp_path):
    rights = Rights(
        install=False, paths=False, delete=False, open_folder=False, privately="start it without --listen"
    )
    desk = Desk(places, rights)
    with pytest.raises(SettingsError, match="public page: start it without --listen"):
        desk.install()
    with pytest.raises(SettingsError, match="public page: start it without --listen"):
        desk.fetch("Wan-AI/Wan2.1-T2V-1.3B-Diffusers")
    with pytest.raises(SettingsError, match="not opened"):
        desk.open_folder()
    with pytest.raises(SettingsError, match="public page"):
        desk.delete(1)
    for values in ({"model": str(tmp_path)}, {"model": "someone/else"}, {"model": "../klein"}):
        with pytest.raises(SettingsError, match="not among the models"):
            desk.job({**FORM, **values})
    for file in (str(tmp_path / "x.safetensors"), "../x.safetensors"):
        with pytest.raises(SettingsError, match="not among the LoRAs"):
            desk.job({**FORM, "model": "klein", "loras": file})
        for part in ("vae", "text_encoder"):
            with pytest.raises(SettingsError, match="not among the files"):
                desk.job({**FORM, "model": "klein", part: file})
    assert desk.job({**FORM, "model": "klein", "loras": "fast/CausVid.safetensors"}).loras


def test_what_lies_outside_is_not_deleted(desk, tmp_path):
    precious = tmp_path / "precious.mp4"
    precious.write_text("x")
    id = desk.queue.add(desk.job({**FORM, "model": "klein"}))
    desk.queue.take()
    desk.queue.done(id, str(precious), "")
    with pytest.raises(OutputError, match="left alone"):
        desk.delete(id)
    assert precious.exists()
    assert desk.queue.entry(id).state == DONE, "and not forgotten either"


def test_a_job_without_a_file_is_not_deleted_in_its_place(desk):
    desk.queue.paused = True
    id = desk.add({**FORM, "model": "klein"})
    with pytest.raises(SettingsError, match=f"job {id} is waiting and has no file"):
        desk.delete(id)
    desk.queue.paused = False
    desk.queue.take()
    with pytest.raises(SettingsError, match=f"job {id} is running"):
        desk.delete(id)
    assert desk.queue.entry(id)


def test_links_and_dots_lead_out_of_no_folder(desk, places, tmp_path):
    precious = tmp_path / "precious.mp4"
    precious.write_text("x")
    places.outputs.mkdir()
    (places.outputs / "link").symlink_to(tmp_path, target_is_directory=True)
    for name in ("../precious.mp4", "link/precious.mp4"):
        id = desk.queue.add(desk.job({**FORM, "model": "klein"}))
        desk.queue.take()
        desk.queue.done(id, str(places.outputs / name), "")
        for act in (desk.delete, desk.open_folder):
            with pytest.raises(OutputError, match="left alone"):
                act(id)
    assert precious.exists()


def test_a_form_says_automatic_in_numbers(desk):
    job = desk.job({**FORM, "model": "klein", "flow_shift": 0, "drop_frames": -1.0, "seed": None})
    assert (job.flow_shift, job.drop_frames) == (None, None)
    told = desk.job({**FORM, "model": "klein", "flow_shift": 8, "drop_frames": 0.0})
    assert (told.flow_shift, told.drop_frames) == (8.0, 0)


def test_after_its_end_a_desk_starts_nothing(places):
    desk = Desk(places)
    assert desk.runner
    desk.close()
    with pytest.raises(SettingsError, match="being closed"):
        _ = desk.runner


def test_a_job_of_another_program_is_cancelled_there(desk, places):
    other = Desk(places)
    try:
        until(lambda: desk.runner.state is not None and not desk.runner.state.elsewhere)
        id = desk.add({**FORM, "model": "klein", "steps": 40, "frames": 33})
        until(lambda: desk.runner.state.step > 0)
        until(lambda: other.runner.state.elsewhere)
        with pytest.raises(SettingsError, match="another program"):
            other.cancel(id)
        desk.cancel(id)
        until(lambda: desk.queue.entry(id).state == CANCELLED)
    finally:
        other.close()


def test_only_who_may_frees_memory(places):
    class Host(Surroundings):
        frees = "Free it"
        freed = 0

        def free(self):
            self.freed += 1

    host = Host()
    allowed, forbidden = Desk(places, around=host), Desk(places, Rights(free=False), around=host)
    assert (allowed.frees, forbidden.frees, Desk(places).frees) == ("Free it", "", "")
    with pytest.raises(SettingsError, match="public page"):
        forbidden.free()
    allowed.free()
    assert host.freed == 1


def test_pictures_of_a_video_are_deleted_and_what_else_lies_there_is_not(desk, places):
    folder = places.outputs / "a-red-car-3"
    folder.mkdir(parents=True)
    for name in ("00000.png", "00001.png", "mine.png"):
        (folder / name).write_bytes(b"x")
    folder.with_suffix(".txt").write_text("x")
    id = desk.queue.add(desk.job({**FORM, "model": "klein", "format": "png"}))
    desk.queue.take()
    desk.queue.done(id, str(folder), "")
    with pytest.raises(OutputError, match="cannot delete"):
        desk.delete(id)
    assert [path.name for path in folder.iterdir()] == ["mine.png"]
    (folder / "mine.png").unlink()
    desk.delete(id)
    assert not folder.exists()
    assert not list(places.outputs.iterdir())


def test_a_job_that_waits_is_changed_and_one_that_runs_is_not(desk):
    desk.queue.paused = True
    id = desk.add({**FORM, "model": "klein"})
    desk.save(id, {**FORM, "model": "klein", "prompt": "a blue bird"})
    assert desk.queue.entry(id).job.prompt == "a blue bird"
    assert "before it began" in desk.cancel(id)
    assert desk.queue.entry(id).state == CANCELLED
    with pytest.raises(SettingsError, match="nothing to cancel"):
        desk.cancel(id)
    assert desk.queue.again(id) == id
    desk.queue.paused = False
    desk.runner.wake()
    until(lambda: desk.queue.entry(id).state == DONE)
    with pytest.raises(SettingsError, match=f"job {id} is done"):
        desk.save(id, {**FORM, "model": "klein"})


@pytest.mark.skipif(sys.platform == "win32", reason="its file manager is no program on the path")
def test_only_a_folder_of_the_outputs_is_opened(desk, places, tmp_path, monkeypatch):
    with pytest.raises(OutputError, match="it appears with the first file"):
        desk.open_folder()
    opened = tmp_path / "opened"
    manager = tmp_path / "bin" / ("open" if sys.platform == "darwin" else "xdg-open")
    manager.parent.mkdir()
    manager.write_text(f'#!/bin/sh\necho "$1" > "{opened}"\n')
    manager.chmod(0o755)
    places.outputs.mkdir()
    monkeypatch.setenv("PATH", str(manager.parent), prepend=os.pathsep)
    desk.open_folder()
    until(lambda: opened.exists() and opened.read_text().strip() == str(places.outputs))
    id = desk.queue.add(desk.job({**FORM, "model": "klein"}))
    desk.queue.take()
    desk.queue.done(id, "/etc/passwd", "")
    with pytest.raises(OutputError, match="left alone"):
        desk.open_folder(id)


def test_a_download_begins_only_where_its_size_was_seen(tmp_path, monkeypatch):
    """Nothing answers at that address: what was asked for ends as failed, and nothing is begun unasked."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    desk = Desk(Places(tmp_path / "data", tmp_path / "videos", tmp_path / "models", tmp_path / "loras"))
    source = Source.parse("someone/wan/x.safetensors")
    try:
        desk.fetch(str(source), "Download 1 GB")
        until(lambda: not desk.downloads.state(source).busy)
        assert desk.downloads.state(source).stage == "failed"
        assert not (tmp_path / "loras").exists()
    finally:
        desk.close()
