"""The page beside other pages of the same program."""

from __future__ import annotations

from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

import pytest

gr = pytest.importorskip("gradio")

from vsf_lib.studio import open_page  # noqa: E402
from vsf_lib.video.desk import Desk, Places  # noqa: E402


def test_a_page_that_ends_leaves_others_open(tmp_path: Path) -> None:
    get = build_opener(ProxyHandler({})).open
    desk = Desk(Places(tmp_path / "data", tmp_path / "videos"))
    with gr.Blocks() as other:
        gr.Markdown("somebody else's")
    _, theirs, _ = other.launch(server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, share=False)
    try:
        with open_page(desk, port=0) as mine:
            assert get(mine).status == get(theirs).status == 200
        assert get(theirs).status == 200
        with pytest.raises(URLError):
            get(mine)
    finally:
        other.close(verbose=False)
        desk.close()
