"""Where videos' files go in a WebUI, and what its visitors may do, by its own arguments and options."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from vsf_lib.video.places import EVERYTHING, Rights
from vsf_lib.webui import folders


@pytest.fixture
def webui(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The modules of a host that are asked; what its pattern comes to is the host's own."""

    class FilenameGenerator:
        def __init__(self, p: Any, seed: int, prompt: str, image: Any) -> None:
            self.words = {"[seed]": seed, "[prompt_words]": prompt, "[width]": image.width}

        def apply(self, pattern: str) -> str:
            for name, value in self.words.items():
                pattern = pattern.replace(name, str(value))
            return pattern

    paths = SimpleNamespace(
        models_path=str(tmp_path / "models"),
        data_path=str(tmp_path),
        default_output_dir=str(tmp_path / "out"),
    )
    shared = SimpleNamespace(
        cmd_opts=SimpleNamespace(), opts=SimpleNamespace(save_to_dirs=True, directories_filename_pattern="")
    )
    made = SimpleNamespace(shared=shared, paths_internal=paths)
    for name, module in (("shared", shared), ("paths_internal", paths)):
        monkeypatch.setitem(sys.modules, f"modules.{name}", module)
    images = ModuleType("modules.images")
    images.FilenameGenerator = FilenameGenerator  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "modules.images", images)
    monkeypatch.setitem(sys.modules, "modules", made)
    return made


def test_a_public_webui_lets_its_visitors_watch_and_queue_alone(webui: Any) -> None:
    assert folders.rights() == EVERYTHING
    webui.shared.cmd_opts.disable_extension_access = True
    assert folders.rights() == Rights(install=False, paths=False, delete=False, open_folder=False)
    webui.shared.cmd_opts = SimpleNamespace(disable_extension_access=False, hide_ui_dir_config=True)
    assert folders.rights() == Rights(open_folder=False)
    assert "without --listen" in folders.rights().privately, "the remedy is this host's"


def test_models_are_looked_for_where_this_webui_has_them(webui: Any, tmp_path: Path) -> None:
    usual = folders.places()
    assert usual.data == tmp_path / "vsf-video"
    assert usual.outputs == tmp_path / "out" / "videos"
    assert (usual.models, usual.loras) == (tmp_path / "models" / "diffusers", tmp_path / "models" / "Lora")
    assert set(usual.downloads.values()) <= set(usual.files), "what was downloaded is found again"
    webui.shared.cmd_opts = SimpleNamespace(lora_dir=str(tmp_path / "mine"), vae_dir=str(tmp_path / "vaes"))
    named = folders.places()
    assert named.loras == tmp_path / "mine"
    assert set(named.files) - set(usual.files) == {tmp_path / "vaes"}


def test_a_file_goes_where_the_options_for_pictures_say(webui: Any) -> None:
    opts = webui.shared.opts
    assert folders.job_folder(5, "a red car", 640, 352) == Path("a red car")
    opts.directories_filename_pattern = "/[seed]/[width] "
    assert folders.job_folder(5, "a red car", 640, 352) == Path("5/640"), "below the folder for videos"
    opts.save_to_dirs = False
    assert folders.job_folder(5, "a red car", 640, 352) == Path()
