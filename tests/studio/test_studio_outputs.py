"""Where the page cannot keep anything, it says so in a line before it opens."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("gradio")

from vsf_lib.errors import OutputError
from vsf_lib.studio import open_page
from vsf_lib.studio.desk import ImageDesk
from vsf_lib.video.desk import Desk, Places, Rights


def test_outputs_that_cannot_be_made_are_told(tmp_path: Path) -> None:
    (tmp_path / "outputs").write_text("a file in the way", "utf-8")
    images = ImageDesk(tmp_path / "outputs")
    places = Places(tmp_path / "queue", tmp_path / "videos")
    videos = Desk(places, Rights(install=False, paths=True, delete=False, open_folder=False))
    try:
        with (
            pytest.raises(OutputError, match=r"cannot keep what it draws in .*outputs: .*another folder"),
            open_page(videos, images, port=0),
        ):
            raise AssertionError("the page opened")
    finally:
        images.close()
        videos.close()
