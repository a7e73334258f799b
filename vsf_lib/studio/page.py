"""The studio's page: the tabs Image and Video."""

from __future__ import annotations

import gradio as gr

from vsf_lib.studio.desk import ImageDesk
from vsf_lib.studio.ui.tab import ImageTab
from vsf_lib.video.desk import Desk
from vsf_lib.video.ui.page import place


def build(images: ImageDesk, videos: Desk) -> gr.Blocks:
    """The page as gradio blocks."""
    with gr.Blocks(analytics_enabled=False, title="VSF studio", fill_width=True) as blocks, gr.Tabs():
        with gr.Tab("Image", id="image", elem_id="vsf_tab_image"):
            ImageTab(images).connect(blocks)
        with gr.Tab("Video", id="video", elem_id="vsf_tab_video"):
            place(videos, blocks)
    return blocks
