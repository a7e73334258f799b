"""The page on its own, without a WebUI.

Owns how it is served: to this machine alone unless asked, and files from its outputs alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vsf_lib.errors import SettingsError
from vsf_lib.video.desk import Desk

_STYLE = Path(__file__).parents[2] / "style.css"
HOST = "127.0.0.1"


@contextmanager
def open_page(
    desk: Desk, *, host: str = HOST, port: int = 7860, browser: bool = False, path: str = ""
) -> Iterator[str]:
    """Serves the page while the `with` lasts and yields its address; port 0 is any free one.

    `path` is where another server shows it, as in `/vsf-video/page`; it goes by the forwarded host.
    Raises SettingsError where gradio is missing or the port is taken. The desk stays the caller's to close.
    """
    try:
        import gradio as gr
    except ImportError as error:
        raise SettingsError("the page needs gradio: python install.py studio installs it") from error
    from vsf_lib.video.ui.page import build

    css = _STYLE.read_text(encoding="utf-8") if _STYLE.is_file() else ""
    desk.places.outputs.mkdir(parents=True, exist_ok=True)
    blocks = build(desk)
    try:
        _, local, _ = blocks.launch(
            server_name=host,
            server_port=port or None,
            allowed_paths=[str(desk.places.outputs.resolve())],
            inbrowser=browser,
            prevent_thread_lock=True,
            quiet=True,
            share=False,  # not by the environment either: nobody else is let in unasked
            css=css,
            root_path=path or None,
            footer_links=[],
        )
    except OSError as error:
        raise SettingsError(f"port {port} is taken: choose another with --port") from error
    except ValueError as error:  # gradio could not reach its own page
        raise SettingsError(
            f"the page at {host} cannot be reached: {error}; if there is a proxy, put {host} into no_proxy"
        ) from error
    try:
        yield str(local)
    finally:
        gr.close_all()
