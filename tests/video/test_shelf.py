"""The names that a page shows, what they stand for, and what a visitor of a public page may not name."""

from __future__ import annotations

import pytest

wan_files = pytest.importorskip("wan_files")

from waiting import until  # noqa: E402

from vsf_lib.errors import SettingsError  # noqa: E402
from vsf_lib.video.desk import Desk, Places  # noqa: E402
from vsf_lib.video.queue import DONE, FAILED  # noqa: E402
from vsf_lib.video.shelf import Shelf  # noqa: E402

SMALL = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Folders as a WebUI has them, and the files in them."""
    root = tmp_path_factory.mktemp("Modelle")
    files = wan_files.save_files(root / "files")
    for file, folder in ((files.transformer, "unet/Wan"), (files.vae, "VAE"), (files.text_encoder, "te")):
        (root / folder).mkdir(parents=True)
        file.rename(root / folder / file.name)
    (root / "diffusers").mkdir()
    files.folder.rename(root / "diffusers" / "klein")
    (root / "Lora" / "fast").mkdir(parents=True)
    (root / "Lora" / ".downloads" / "x").mkdir(parents=True)
    wan_files.save_lora(root / "Lora" / "fast" / "CausVid.safetensors")
    wan_files.save_lora(root / "Lora" / ".downloads" / "x" / "half.safetensors")
    return root


@pytest.fixture
def folders(made):
    return {
        "models": made / "diffusers",
        "loras": made / "Lora",
        "files": (made / "unet", made / "VAE", made / "te", made / "gone"),
    }


def test_names_and_paths_are_two_ways_of_the_same(made, folders):
    shelf = Shelf(**folders)
    transformer = made / "unet" / "Wan" / "wan2.1_t2v.safetensors"
    assert shelf.model_names()[:2] == ["klein", "Wan/wan2.1_t2v.safetensors"]
    assert shelf.lora_names() == ["fast/CausVid.safetensors"], "nothing that is still on its way"
    assert shelf.part_names("vae") == ["wan_2.1_vae.safetensors"]
    paths = {name: shelf.model(name) for name in ("klein", "Wan/wan2.1_t2v.safetensors")}
    assert paths["klein"] == str(made / "diffusers" / "klein")
    assert paths["Wan/wan2.1_t2v.safetensors"] == str(transformer)
    paths["fast/CausVid.safetensors"] = shelf.lora("fast/CausVid.safetensors")
    paths["wan_2.1_vae.safetensors"] = shelf.part("vae", "wan_2.1_vae.safetensors", "klein")
    for name, path in paths.items():
        assert shelf.name(path) == name
    assert shelf.name("/elsewhere/x.safetensors") == "/elsewhere/x.safetensors"
    assert Shelf(**folders).model(SMALL) == SMALL


def test_what_a_model_in_one_file_needs_is_found_if_it_is_the_only_one(made, folders):
    shelf = Shelf(**folders)
    file = str(made / "unet" / "Wan" / "wan2.1_t2v.safetensors")
    assert shelf.part("vae", "", file) == str(made / "VAE" / "wan_2.1_vae.safetensors")
    assert shelf.part("vae", "", str(made / "diffusers" / "klein")) == "", "it has its own"
    two = Shelf(**{**folders, "files": (*folders["files"], made / "more")})
    (made / "more").mkdir()
    (made / "more" / "other.safetensors").write_bytes((made / "VAE" / "wan_2.1_vae.safetensors").read_bytes())
    assert two.part("vae", "", file) == "", "which of them is the user's to say"
    (made / "more" / "other.safetensors").rename(made / "more" / "wan_2.1_vae.safetensors")
    assert len(two.part_names("vae")) == 2, "two of the same name are told apart"
    assert {two.part("vae", name, file) for name in two.part_names("vae")} == {
        str(made / folder / "wan_2.1_vae.safetensors") for folder in ("VAE", "more")
    }


def test_a_fetched_model_stands_for_its_name_on_the_hub(made, folders, tmp_path):
    shelf = Shelf(models=tmp_path, loras=None)
    assert SMALL in shelf.model_names()
    (made / "diffusers" / "klein" / "model_index.json").read_bytes()
    folder = tmp_path / SMALL.split("/")[1]
    folder.mkdir()
    (folder / "model_index.json").write_text("{}")
    assert shelf.model_names()[0] == folder.name
    assert SMALL not in shelf.model_names()
    assert shelf.model(SMALL) == str(folder)


def test_a_public_page_names_what_is_there_and_nothing_else(made, folders):
    shelf = Shelf(**folders, paths=False)
    assert shelf.model("klein")
    assert shelf.model(SMALL) == SMALL
    for name in ("someone/else", "../klein", str(made / "diffusers" / "klein"), "/etc"):
        with pytest.raises(SettingsError, match="not among the models"):
            shelf.model(name)
    for name in ("../x.safetensors", ".downloads/x/half.safetensors"):
        with pytest.raises(SettingsError, match="not among the LoRAs"):
            shelf.lora(name)
    with pytest.raises(SettingsError, match="not among the files"):
        shelf.part("vae", str(made / "VAE" / "wan_2.1_vae.safetensors"), "klein")


def test_a_video_from_names_of_files(made, folders, tmp_path):
    desk = Desk(Places(tmp_path / "data", tmp_path / "videos", **folders))
    form = {"prompt": "a red car", "negative_prompt": "wheels", "width": 64, "height": 64, "frames": 5}
    form |= {"steps": 2, "seed": 3, "model": "Wan/wan2.1_t2v.safetensors", "loras": ""}
    try:
        id = desk.add(form)
        until(lambda: desk.queue.entry(id).state in (DONE, FAILED))
        entry = desk.queue.entry(id)
    finally:
        desk.close()
    assert entry.state == DONE, entry.message
    assert "VSF VAE: " in entry.infotext
    assert "VSF alpha" in entry.infotext
