"""Registers the "VSF Video" tab. Only hands over between the host and vsf_lib."""

from __future__ import annotations

from typing import Any

from modules import script_callbacks

from vsf_lib.webui import support

if support.problem() is None:

    def tab() -> list[tuple[Any, str, str]]:
        """Built once the host builds its page; nothing of it is imported before."""
        from vsf_lib.video.ui.page import build
        from vsf_lib.webui.video_host import make_desk

        desk = make_desk()
        script_callbacks.on_script_unloaded(desk.close)
        return [(build(desk), "VSF Video", "vsf_video")]

    script_callbacks.on_ui_tabs(tab)

elif support.stale() is None:
    # A host that cannot show the page itself shows the one of a process with packages of its own.
    from vsf_lib.webui.apart import tab as apart

    script_callbacks.on_ui_tabs(apart.build)
    script_callbacks.on_app_started(apart.serve)
    script_callbacks.on_script_unloaded(apart.close)
