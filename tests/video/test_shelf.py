"""The names that a page shows, what they stand for, and what a visitor of a public page may not name."""

from __future__ import annotations

import os
import shutil

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
    with pytest.raises(SettingsError, match="not on this machine"):
        Shelf(**folders).model(SMALL)
    for name in ("/elsewhere/klein", "C:\\old\\klein"):
        assert shelf.model(name) == paths["klein"], "a folder that was moved is found by its name"


def test_what_a_model_in_one_file_needs_is_found_if_it_is_the_only_one(made, folders, tmp_path):
    shelf = Shelf(**folders)
    file = str(made / "unet" / "Wan" / "wan2.1_t2v.safetensors")
    assert shelf.part("vae", "", file) == str(made / "VAE" / "wan_2.1_vae.safetensors")
    assert shelf.part("vae", "", str(made / "diffusers" / "klein")) == "", "it has its own"
    two = Shelf(**{**folders, "files": (*folders["files"], tmp_path)})
    shutil.copy(made / "VAE" / "wan_2.1_vae.safetensors", tmp_path / "other.safetensors")
    assert two.part("vae", "", file) == "", "which of them is the user's to say"


def test_files_of_one_name_are_told_apart_whichever_came_first(made, folders, tmp_path):
    vae = made / "VAE" / "wan_2.1_vae.safetensors"
    for folder in ("more/VAE", "early", "more/VAE/early"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    roots = (tmp_path / "early", *folders["files"], tmp_path / "more" / "VAE")
    for paths in (True, False):
        shelf = Shelf(**{**folders, "files": roots}, paths=paths)
        assert shelf.part_names("vae") == [vae.name], "as an open page shows it"
        added = tmp_path / "early" / vae.name
        shutil.copy(vae, added)
        assert set(shelf.part_names("vae")) == {f"VAE/{vae.name}", f"early/{vae.name}"}
        assert shelf.part("vae", f"VAE/{vae.name}", "klein") == str(vae)
        if paths:
            assert shelf.part("vae", vae.name, "klein") == vae.name, "no longer a name: there is no such file"
        else:
            with pytest.raises(SettingsError, match="not among the files"):
                shelf.part("vae", vae.name, "klein")
        same = tmp_path / "more" / "VAE" / vae.name
        shutil.copy(vae, same)
        named = {name: shelf.part("vae", name, "klein") for name in shelf.part_names("vae")}
        assert set(named.values()) == {str(vae), str(added), str(same)}
        assert named[f"early/{vae.name}"] == str(added)
        assert set(named) == {f"early/{vae.name}", str(vae), str(same)}, "two folders have one name, too"
        assert {shelf.name(path) for path in named.values()} == set(named)
        added.unlink()
        same.unlink()


def test_a_name_means_one_file_whatever_its_kind(made, folders, tmp_path):
    """The way back from a path does not know which list it was chosen from."""
    file = made / "unet" / "Wan" / "wan2.1_t2v.safetensors"
    (tmp_path / "Wan").mkdir()
    shutil.copy(made / "VAE" / "wan_2.1_vae.safetensors", tmp_path / "Wan" / file.name)
    shelf = Shelf(**{**folders, "files": (*folders["files"], tmp_path)})
    assert shelf.name(str(file)) in shelf.model_names()
    assert shelf.model(shelf.name(str(file))) == str(file)


@pytest.mark.skipif(os.name == "nt", reason="symlinks")
def test_loras_in_linked_folders_are_listed(made, tmp_path):
    lora = made / "Lora" / "fast" / "CausVid.safetensors"
    (tmp_path / "Lora" / "a" / "b" / "c" / "d" / "e").mkdir(parents=True)
    (tmp_path / "Lora" / ".hidden").mkdir()
    for place in ("a/b/c/d/e/deep.SAFETENSORS", ".hidden/x.safetensors", ".x.safetensors"):
        shutil.copy(lora, tmp_path / "Lora" / place)
    (tmp_path / "Lora" / "linked").symlink_to(lora.parent, target_is_directory=True)
    shelf = Shelf(models=None, loras=tmp_path / "Lora")
    assert shelf.lora_names() == ["a/b/c/d/e/deep.SAFETENSORS", "linked/CausVid.safetensors"]
    assert shelf.lora("linked/CausVid.safetensors") == str(tmp_path / "Lora" / "linked" / lora.name)


def test_a_fetched_model_stands_for_its_name_on_the_hub(made, folders, tmp_path):
    shelf = Shelf(models=tmp_path, loras=None)
    assert SMALL in shelf.model_names()
    folder = tmp_path / SMALL.split("/")[1]
    folder.mkdir()
    (folder / "model_index.json").write_text("{}")
    assert shelf.model_names()[0] == folder.name
    assert SMALL not in shelf.model_names()
    assert shelf.model(SMALL) == str(folder)
    with pytest.raises(SettingsError, match="not on this machine"):
        shelf.model(f"{SMALL}/x.gguf")  # one of its files is not the model


def test_a_public_page_names_what_is_there_and_nothing_else(made, folders):
    shelf = Shelf(**folders, paths=False)
    assert shelf.model("klein")
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
