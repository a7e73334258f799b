"""What `python -m vsf_lib studio` opens to whom; the page itself is tested elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio")

from vsf_lib import studio
from vsf_lib.cli import main
from vsf_lib.errors import SettingsError
from vsf_lib.video.places import Rights


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[Any, ...]]:
    """What the page would have been opened with, had nobody pressed Ctrl-C in that moment."""
    found: list[tuple[Any, ...]] = []

    @contextmanager
    def open_page(desk: Any, images: Any, *, host: str, **_: Any) -> Iterator[str]:
        found.append((desk, images, host))
        raise KeyboardInterrupt
        yield ""

    monkeypatch.setattr(studio, "open_page", open_page)
    monkeypatch.chdir(tmp_path)
    return found


def test_on_its_own_machine_everything_is_allowed(opened: list[tuple[Any, ...]]) -> None:
    assert main(["studio"]) == 0
    desk, images, host = opened[0]
    assert (desk.rights, images.shelf.paths, host) == (Rights(), True, "127.0.0.1")


def test_others_may_neither_install_nor_delete_nor_name_paths_and_the_remedy_is_told(
    opened: list[tuple[Any, ...]],
) -> None:
    assert main(["studio", "--listen"]) == 0
    desk, images, host = opened[0]
    rights = Rights(install=False, paths=False, delete=False, open_folder=False)
    assert (desk.rights, images.shelf.paths, host) == (rights, False, "0.0.0.0")
    for refused in (desk.install, lambda: desk.fetch("Wan-AI/Wan2.1-T2V-1.3B-Diffusers")):
        with pytest.raises(SettingsError, match=r"through a public page: start the studio without --listen$"):
            refused()
