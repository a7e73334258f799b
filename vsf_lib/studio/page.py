"""The studio's page: the tabs Image and Video."""

from __future__ import annotations

from typing import Any

import gradio as gr

from vsf_lib.controls import QUIET
from vsf_lib.studio.desk import ImageDesk
from vsf_lib.studio.ui.kept import KEPT_TAB, keep_tab
from vsf_lib.studio.ui.tab import ImageTab
from vsf_lib.video.desk import Desk
from vsf_lib.video.ui.page import place


def build(images: ImageDesk, videos: Desk) -> gr.Blocks:
    """The page as gradio blocks."""
    with gr.Blocks(analytics_enabled=False, title="VSF studio", fill_width=True) as blocks:
        with gr.Tabs() as tabs:
            with gr.Tab("Image", id="image", elem_id="vsf_tab_image") as image:
                ImageTab(images).connect(blocks)
            with gr.Tab("Video", id="video", elem_id="vsf_tab_video") as video:
                place(videos, blocks)
        for tab in (image, video):
            tab.select(None, js=keep_tab(str(tab.id)))
        kept = gr.Textbox(visible="hidden", container=False)
        blocks.load(_opened, inputs=[kept], outputs=[tabs], js=KEPT_TAB, **QUIET)
    return blocks


def _opened(kept: str) -> Any:
    """An update to the tab that this browser's page showed before it was loaded anew.

    None to the first one, which is open: told so, gradio's page freezes.
    """
    return gr.update(selected="video") if kept == "video" else gr.skip()
