"""The page on its own, without a WebUI.

Owns how it is served: to this machine alone unless asked, and of files only what was drawn (see `guard`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vsf_lib.errors import OutputError, SettingsError
from vsf_lib.files import reason
from vsf_lib.studio.desk import ImageDesk
from vsf_lib.video.desk import Desk

_ROOT = Path(__file__).parents[2]
_STYLE, _SCRIPT = _ROOT / "style.css", _ROOT / "javascript" / "vsf.js"
"""The WebUIs load these two from where they are."""
HOST = "127.0.0.1"
_FONTS, _MONO = ("system-ui", "sans-serif"), ("ui-monospace", "monospace")
"""The system's own: gradio's usual ones would come from another server."""


@contextmanager
def open_page(
    desk: Desk,
    images: ImageDesk | None = None,
    *,
    host: str = HOST,
    port: int = 7860,
    browser: bool = False,
    path: str = "",
) -> Iterator[str]:
    """Serves the page while the `with` lasts and yields its address; port 0 is any free one.

    Without `images` it is the page for videos alone.
    `path` is where another server shows it, as in `/vsf-video/page`; it goes by the forwarded host.
    Raises SettingsError where gradio is missing or the port is taken, OutputError where there is no place for
    outputs. The desks stay the caller's to close.
    """
    try:
        import gradio as gr
    except ImportError as error:
        raise SettingsError("the page needs gradio: python install.py studio installs it") from error
    from starlette.middleware import Middleware

    from vsf_lib.studio.guard import Guard
    from vsf_lib.studio.page import build
    from vsf_lib.video.ui.page import build as build_videos

    css, script = (one.read_text(encoding="utf-8") if one.is_file() else "" for one in (_STYLE, _SCRIPT))
    outputs = [desk.places.outputs] if images is None else [desk.places.outputs, images.outputs]
    served = [_made(folder).resolve() for folder in outputs]
    blocks = build_videos(desk) if images is None else build(images, desk)
    try:
        _, local, _ = blocks.launch(
            server_name=host,
            server_port=port or None,
            allowed_paths=[str(folder) for folder in served],
            blocked_paths=[str(desk.places.data.resolve())],  # it may lie in the outputs, too
            inbrowser=browser,
            prevent_thread_lock=True,
            quiet=True,
            share=False,  # not by the environment either: nobody else is let in unasked
            css=css,
            head=f"<script>{script}</script>",
            app_kwargs={"middleware": [Middleware(Guard, private=host == HOST, outputs=served)]},
            theme=gr.themes.Default(font=_FONTS, font_mono=_MONO).set(
                block_info_text_color="*neutral_500",  # the usual one is too pale to read
                body_text_color_subdued="*neutral_500",
            ),
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
        blocks.close(verbose=False)


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"the page cannot keep what it draws in {folder}: {reason(error)}; start it in another folder"
        ) from error
    return folder
