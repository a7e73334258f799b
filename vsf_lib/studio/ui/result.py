"""What was drawn, as the page shows it: a slider between unguided and guided, or a strip and its film.

Owns its elements, and which of them an entry of the history is shown by.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from vsf_lib.controls import seen
from vsf_lib.errors import VSFError
from vsf_lib.pages.said import film, say
from vsf_lib.studio.history import EXAMPLE, Entry, large, read_entry

BEFORE, WHERE, STEPS = "Before and after", "Where it acts", "Step by step"
_HEIGHT = 470


class Result:
    """`outputs` are its elements, for which `shown` has updates."""

    def __init__(self) -> None:
        self.slider = gr.ImageSlider(
            label="Without, and with the negative prompt", elem_id="vsf_image_slider", interactive=False,
            format="png", max_height=_HEIGHT, buttons=["fullscreen"], show_label=False,
        )  # fmt: skip
        self._picture = gr.Image(
            label="Picture", elem_id="vsf_image_picture", interactive=False, visible=seen(False),
            format="png", buttons=["fullscreen"], show_label=False,
        )  # fmt: skip
        self._film = gr.HTML(elem_id="vsf_image_film", visible=seen(False), padding=False)
        self._caption = gr.HTML(elem_id="vsf_image_caption")
        self.view = gr.Radio(
            choices=[BEFORE, WHERE, STEPS], value=BEFORE, show_label=False, container=False,
            visible=seen(False), elem_id="vsf_image_view",
        )  # fmt: skip
        with gr.Accordion("Parameters", open=False, elem_id="vsf_image_parameters"):
            self._infotext = gr.Textbox(
                show_label=False, elem_id="vsf_image_infotext", interactive=False, lines=3, buttons=["copy"]
            )
        with gr.Row():
            self.reuse = gr.Button("Reuse parameters", elem_id="vsf_image_reuse", size="sm")
            self._file = gr.DownloadButton("Download", elem_id="vsf_image_download", size="sm")

    @property
    def outputs(self) -> list[Any]:
        """All elements that `shown` has an update for."""
        return [
            self.slider, self._picture, self._film, self._caption, self.view, self._infotext, self._file
        ]  # fmt: skip

    def shown(self, entry: Entry | None, view: str = BEFORE) -> list[Any]:
        """Updates of `outputs`; nothing is shown for None."""
        if entry is None:
            return self._updates()
        try:
            return self._of(entry, view)
        except VSFError as error:
            return self.missing(str(error))

    def missing(self, why: str) -> list[Any]:
        """Updates of `outputs` in place of an entry that cannot be shown."""
        return self._updates(caption=say(why, bad=True))

    def example(self) -> list[Any]:
        """Updates of `outputs` that show what it does."""
        return self.shown(read_entry(EXAMPLE))

    def _of(self, entry: Entry, view: str) -> list[Any]:
        overlays, pictures = entry.overlays(), entry.pictures()
        view = view if overlays else BEFORE
        film_of = entry.film
        if view == STEPS and entry.sheet is not None:
            images: tuple[Any, ...] = (str(entry.sheet),)
        else:
            images = overlays if view == WHERE else tuple(map(large, pictures))
        return self._updates(
            images=images,
            film=film(film_of) if film_of is not None else "",
            caption=_caption(entry, two=len(images) == 2, overlaid=view == WHERE),
            view=view if overlays else "",
            infotext=entry.infotext,
            file=None if entry.path == EXAMPLE else str(entry.path),
        )

    def _updates(
        self,
        images: tuple[Any, ...] = (),
        film: str = "",
        caption: str = "",
        view: str = "",
        infotext: str = "",
        file: str | None = None,
    ) -> list[Any]:
        """`view` is nothing where there is no choice of it."""
        two = len(images) != 1
        return [
            gr.update(value=images if len(images) == 2 else None, visible=seen(two)),
            gr.update(value=None if two else images[0], visible=seen(not two)),
            gr.update(value=film, visible=seen(bool(film))),
            caption,
            gr.update(value=view or BEFORE, visible=seen(bool(view))),
            infotext,
            gr.update(value=file, interactive=file is not None),
        ]


def _caption(entry: Entry, *, two: bool, overlaid: bool) -> str:
    sides = "left without, right with the negative prompt · " if two else ""
    colours = "bright: much attention to the negative prompt · " if overlaid else ""
    return say(f"{sides}{colours}{entry.caption}")
