"""The tab in an old WebUI: a frame, which is loaded when it is first looked at.

Owns the one desk of the program. Gradio comes from the host, of whatever version.
"""

from __future__ import annotations

from typing import Any

from vsf_lib.webui.apart import routes
from vsf_lib.webui.apart.desk import ApartDesk
from vsf_lib.webui.apart.environment import Environment
from vsf_lib.webui.apart.host import Host

_FRAME = """<iframe id="vsf_video_frame" src="{source}" title="VSF Video" loading="lazy"
style="width: 100%; height: calc(100vh - 10rem); min-height: 40rem; border: 0"></iframe>"""

_desk: ApartDesk | None = None


def build() -> list[tuple[Any, str, str]]:
    """For the host's `on_ui_tabs`."""
    import gradio as gr

    with gr.Blocks(analytics_enabled=False) as blocks:
        # Relative: the WebUI may be shown below a path of another server.
        gr.HTML(_FRAME.format(source=routes.PATH.lstrip("/") + "/"))
    return [(blocks, "VSF Video", "vsf_video")]


def serve(blocks: Any, app: Any) -> None:
    """For the host's `on_app_started`: a new application at every reload of the UI.

    Without `blocks` it is the API alone, which has neither a tab nor the pages' login.
    """
    global _desk
    if blocks is None:
        return
    from modules import shared

    from vsf_lib.webui import folders

    subpath = str(getattr(shared.cmd_opts, "subpath", None) or "").strip("/")
    above = f"/{subpath}" if subpath else ""
    _desk = ApartDesk(
        folders.places(), folders.rights(), above + routes.PAGE, environment=Environment(), host=Host()
    )
    routes.add(app, _desk)


def close() -> None:
    """For the host's `on_script_unloaded`."""
    if _desk is not None:
        _desk.close()
