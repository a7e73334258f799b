"""The part of the page that fetches models: a list, one button that says how much, and how far it is.

Owns its elements and events; what is fetched and how is `Desk`'s.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from vsf_lib.controls import QUIET
from vsf_lib.errors import VSFError
from vsf_lib.pages.said import bar, say
from vsf_lib.video import builtin
from vsf_lib.video.desk import Desk
from vsf_lib.video.download.catalogue import BASES, LORAS, Source
from vsf_lib.video.download.downloads import ASK, State, label

_PERIOD = 1.0
_REFUSED = "refused"


class DownloadPanel:
    """An accordion in a page."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        offers = [(f"{offer.label}: {offer.about}", str(offer.source)) for offer in (*BASES, *LORAS)]
        needed = not (desk.shelf.has_models() or builtin.is_there())
        with gr.Accordion("Download models", open=needed, elem_id="vsf_video_downloads"):
            self._source = gr.Dropdown(
                label="What to download", choices=offers, value=offers[0][1], allow_custom_value=True,
                elem_id="vsf_video_source", info="or any OWNER/NAME or OWNER/NAME/FILE of the hub",
            )  # fmt: skip
            with gr.Row():
                self._go = gr.Button(ASK, elem_id="vsf_video_fetch", size="sm")
                self._stop = gr.Button("Stop", elem_id="vsf_video_fetch_stop", size="sm", visible=False)
            self._state = gr.HTML(elem_id="vsf_video_fetch_state")
        self._seen = gr.State(None)
        """Of this page: the source, what the button says, and how far it is."""

    def connect(self) -> None:
        """Its events."""
        shown = [self._go, self._stop, self._state, self._seen]
        look: dict[str, Any] = {"inputs": [self._source, self._seen], "outputs": shown, **QUIET}
        self._go.click(self._fetch, **look)
        self._stop.click(self._cancel, **look)
        self._source.change(self._look, **look)
        gr.Timer(_PERIOD).tick(self._look, **look)

    def _fetch(self, text: str, seen: Any) -> list[Any]:
        shown = seen[1] if seen and seen[0] == text else ASK
        try:
            self._desk.fetch(text or "", shown)
        except VSFError as error:
            return [gr.update(value=ASK), gr.update(), say(str(error), bad=True), [text, ASK, _REFUSED]]
        return self._look(text, seen)

    def _cancel(self, text: str, seen: Any) -> list[Any]:
        try:
            self._desk.downloads.cancel(Source.parse(text or ""))
        except VSFError as error:
            return [gr.update(), gr.update(), say(str(error), bad=True), seen]
        return self._look(text, seen)

    def _look(self, text: str, seen: Any) -> list[Any]:
        """Updates where something changed; a refusal stays until another source is chosen."""
        try:
            state = self._desk.downloads.state(Source.parse(text or ""))
        except VSFError:
            state = None
        now = [text, label(state), "" if state is None else f"{state.stage} {state.text}"]
        if seen is not None and (seen == now or (state is None and seen == [text, ASK, _REFUSED])):
            return [gr.update()] * 4
        busy = state is not None and state.busy
        return [
            gr.update(value=label(state), interactive=not busy),
            gr.update(visible=busy),
            _told(state),
            now,
        ]


def _told(state: State | None) -> str:
    if state is None:
        return ""
    if state.stage == "failed":
        return say(state.text, bad=True)
    text = say(state.text)
    if state.stage == "done":
        return text + say("Press Refresh to have it in the lists.")
    if state.stage == "fetching":
        return text + bar(state.share)
    return text
