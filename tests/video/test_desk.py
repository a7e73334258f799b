"""What a page may ask for: values of a form, lists, and what a public server refuses."""

from __future__ import annotations

import pytest

pytest.importorskip("imageio_ffmpeg")
pytest.importorskip("wan_files")

from waiting import until
from wan_files import save_lora

from vsf_lib.errors import OutputError, PromptError, SettingsError
from vsf_lib.video import overlay
from vsf_lib.video.desk import Desk, Places, Rights
from vsf_lib.video.queue import DONE

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
    assert desk.models()[0] == "klein"
    assert desk.loras() == ["fast/CausVid.safetensors"]
    nowhere = Desk(Places(places.data, places.outputs))
    assert nowhere.loras() == []
    assert all("Wan-AI/" in name for name in nowhere.models())
    assert desk.preset("Wan2.1-T2V-1.3B").alpha == 1.5


@pytest.mark.parametrize(
    ("values", "kind", "says"),
    [
        ({"prompt": " "}, PromptError, "prompt is empty"),
        ({"model": ""}, SettingsError, "no model is chosen"),
        ({"alpha": -1}, SettingsError, "alpha is -1"),
        ({"frames": 6}, SettingsError, "5 or 9"),
        ({"loras": "a:b|c"}, SettingsError, "cannot be a LoRA"),
        ({"colour": 1}, SettingsError, "no setting 'colour'"),
    ],
)
def test_bad_forms_are_told(desk, values, kind, says):
    with pytest.raises(kind, match=says):
        desk.add({**FORM, "model": "klein", **values})
    assert desk.queue.entries() == []


def test_a_seed_below_zero_is_a_random_one(desk):
    seeds = {desk.job({**FORM, "model": "klein", "seed": -1}).seed for _ in range(4)}
    assert len(seeds) == 4


def test_without_the_packages_nothing_is_queued(desk, monkeypatch):
    monkeypatch.setattr(overlay, "pins", lambda: ("diffusers==0.0",))
    with pytest.raises(SettingsError, match="press Install"):
        desk.add({**FORM, "model": "klein"})


def test_a_public_server_installs_deletes_and_reads_nothing_of_its_visitors_choice(places, tmp_path):
    desk = Desk(places, Rights(install=False, paths=False, delete=False))
    with pytest.raises(SettingsError, match="public page"):
        desk.install()
    with pytest.raises(SettingsError, match="public page"):
        desk.delete(1)
    for values in ({"model": str(tmp_path)}, {"model": "someone/else"}, {"model": "../klein"}):
        with pytest.raises(SettingsError, match="not among the models"):
            desk.job({**FORM, **values})
    for file in (str(tmp_path / "x.safetensors"), "../x.safetensors"):
        with pytest.raises(SettingsError, match="not among the LoRAs"):
            desk.job({**FORM, "model": "klein", "loras": file})
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
