"""The page for videos, in a WebUI's tab or on its own: a form, the queue, what is being made, what was made.

Owns the arrangement and its events. Every page shows the same queue, by asking for it once a second.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from vsf_lib.controls import QUIET, seen
from vsf_lib.errors import VSFError
from vsf_lib.pages.kept import NOTHING, keep_as_typed, keep_form, kept_form
from vsf_lib.pages.said import say
from vsf_lib.pages.words import on_page
from vsf_lib.video.desk import Desk
from vsf_lib.video.job import VideoJob
from vsf_lib.video.queue import RUNNING, WAITING
from vsf_lib.video.ui import acts, told
from vsf_lib.video.ui.downloads import DownloadPanel
from vsf_lib.video.ui.form import Form

_PERIOD = 1.0
"""Seconds between two looks at the queue."""
_HISTORY = 50
_PUBLIC = (
    "This page is open to others, so installing, downloading, deleting and free paths are off: it offers the "
    "models and LoRAs in this machine's folders."
)


def build(desk: Desk) -> gr.Blocks:
    """The page as gradio blocks."""
    with gr.Blocks(analytics_enabled=False, title="VSF Video") as blocks:
        place(desk, blocks)
    return blocks


def place(desk: Desk, blocks: gr.Blocks) -> None:
    """The page's elements where `blocks` are being built, such as in a tab."""
    _Page(desk).connect(blocks)


class _Page:
    """The elements of one page, and what they do."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        with gr.Row(visible=bool(desk.lacks())) as self._packages:
            gr.Markdown(
                "Videos need other versions of some packages than this WebUI has. They are put into a folder "
                "of their own, about 130 MB, which nothing else uses."
            )
            self._install = gr.Button("Install", elem_id="vsf_video_install")
        self._seen = gr.State({})
        self._chosen = gr.State(0)
        self._editing = gr.State(0)
        self._kept = gr.Textbox(visible=seen(False), container=False)
        with gr.Row(elem_classes=["vsf-studio"]):
            with gr.Column(scale=2, min_width=320, elem_classes=["vsf-form", "vsf-typed"]):
                self._form = Form(desk, self._build_buttons)
                self._said = self._form.said
                with gr.Column(elem_classes=["vsf-settings"]):
                    self._downloads = DownloadPanel(desk) if desk.rights.install else None
            with gr.Column(scale=3, min_width=320, elem_classes=["vsf-form"]):
                with gr.Column(elem_classes=["vsf-shown"]):
                    if not desk.rights.install:
                        gr.HTML(say(_PUBLIC))
                    self._now = gr.HTML(elem_id="vsf_video_now")
                    self._build_result()
                with gr.Column(elem_classes=["vsf-jobs-column"]):
                    self._build_jobs()

    def _build_buttons(self) -> None:
        with gr.Row():
            self._generate = gr.Button("Generate", variant="primary", elem_id="vsf_video_generate")
            self._save = gr.Button("Save", visible=False, elem_id="vsf_video_save")

    def _build_result(self) -> None:
        self._video = gr.Video(label="Video", elem_id="vsf_video_player", interactive=False)
        self._picture = gr.Image(
            label="Video",
            elem_id="vsf_video_picture",
            interactive=False,
            visible=seen(False),
            type="filepath",
        )
        self._film = gr.HTML(elem_id="vsf_video_film", visible=seen(False))
        self._infotext = gr.Textbox(
            label="Parameters", elem_id="vsf_video_infotext", interactive=False, lines=3
        )
        self._reuse = gr.Button("Reuse parameters", elem_id="vsf_video_reuse", size="sm")

    def _build_jobs(self) -> None:
        frees = self._desk.frees
        self._queue = _jobs("Queue", "vsf_video_queue")
        self._acts = _buttons(acts.QUEUE)
        with gr.Row():
            self._pause = gr.Button("Pause the queue", elem_id="vsf_video_pause", size="sm")
            self._free = gr.Button(frees or "Free", visible=bool(frees), elem_id="vsf_video_free", size="sm")
        self._history = _jobs("History", "vsf_video_history")
        self._acts |= _buttons(acts.of_history(self._desk.rights))
        self._dropped = gr.File(
            label="Drop a video of this program to restore its parameters",
            type="filepath",
            height=150,
            elem_id="vsf_video_dropped",
            elem_classes=["vsf-drop"],
        )

    def connect(self, blocks: gr.Blocks) -> None:
        """The events of all of them."""
        form = [*self._form.elements.values()]
        look = [self._chosen, self._seen, self._said]
        live = [self._now, self._queue, self._history, self._pause, self._video, self._picture]
        live += [self._infotext, self._film, self._said, self._seen]
        guarded, restore = self._guarded, self._restore

        added = self._generate.click(
            self._add, inputs=[*form], outputs=[self._said, self._chosen],
            js=keep_form("video", self._form.elements), **QUIET,
        )  # fmt: skip
        added.then(self._look, inputs=look, outputs=live, **QUIET)
        self._save.click(
            self._save_job,
            inputs=[*look, self._editing, *form],
            outputs=[*live, self._save],
            **QUIET,
        )
        self._pause.click(guarded(self._pause_or_go), inputs=look, outputs=live, **QUIET)
        self._free.click(guarded(self._free_memory), inputs=look, outputs=live, **QUIET)
        for name, button in self._acts.items():
            if name in acts.DOUBLING:
                double = functools.partial(self._double, name)
                button.click(double, inputs=look, outputs=[*live, self._chosen], **QUIET)
            elif name != "edit":
                act = functools.partial(self._act, name)
                button.click(guarded(act), inputs=[*look, self._chosen, self._said], outputs=live, **QUIET)
        self._acts["edit"].click(
            self._edit, inputs=[self._chosen],
            outputs=[*self._form.outputs, self._said, self._editing, self._save], **QUIET,
        )  # fmt: skip
        for jobs in (self._queue, self._history):
            jobs.input(lambda id: id or 0, inputs=[jobs], outputs=[self._chosen], **QUIET).then(
                self._look, inputs=look, outputs=live, **QUIET
            )
        filled = [*self._form.outputs, self._said, self._save]
        reused = self._reuse.click(
            restore(VideoJob.from_infotext), inputs=[self._infotext], outputs=filled, **QUIET
        )
        dropped = self._dropped.upload(
            restore(lambda path: self._desk.restored(Path(path))),
            inputs=[self._dropped],
            outputs=filled,
            **QUIET,
        )
        for restored in (reused, dropped):
            restored.then(None, inputs=form, js=keep_form("video", self._form.elements))
        # What lies in the zone would keep the next file out of it.
        dropped.then(None, outputs=[self._dropped], js=NOTHING)
        if self._downloads is not None:
            self._downloads.connect()
        self._install.click(self._set_up, outputs=[self._packages, self._said])
        blocks.load(
            self._form.kept, inputs=[self._kept], outputs=self._form.outputs, js=kept_form("video"), **QUIET
        )
        gr.Timer(_PERIOD).tick(self._look, inputs=look, outputs=live, **QUIET)
        blocks.load(self._first, outputs=[self._chosen], **QUIET).then(
            self._look, inputs=look, outputs=live, **QUIET
        )
        keep_as_typed("video", self._form.elements)
        blocks.load(lambda: gr.update(visible=bool(self._desk.lacks())), outputs=[self._packages], **QUIET)

    def _first(self) -> int:
        """What a page shows that was just loaded: the job that runs or comes next, or the latest film."""
        try:
            entries = self._desk.queue.entries(RUNNING, WAITING) or self._desk.queue.history(1)
        except VSFError:  # told by `_look`
            return 0
        return entries[0].id if entries else 0

    def _guarded(self, act: Callable[..., str]) -> Callable[..., list[Any]]:
        """An event that shows what `act` says, or its error, and the queue as it is then."""

        def event(chosen: int, seen: dict[str, Any], _: str, *values: Any) -> list[Any]:
            try:
                said = say(act(*values))
            except VSFError as error:
                said = say(on_page(str(error)), bad=True)
            return self._saying(said, chosen, seen)

        return event

    def _saying(self, said: str, chosen: int, seen: dict[str, Any]) -> list[Any]:
        """What there is to see, with `said` above it."""
        *shown, _, fresh = self._look(chosen, seen)
        return [*shown, said, fresh]

    def _restore(self, get: Callable[[Any], VideoJob]) -> Callable[[Any], list[Any]]:
        """An event that fills the form with a job, which is then no longer the one that is being edited."""

        def event(value: Any) -> list[Any]:
            nothing = [gr.update()] * len(self._form.outputs)
            if not value:
                return [*nothing, gr.update(), gr.update()]
            try:
                job = get(value)
            except VSFError as error:
                return [*nothing, say(on_page(str(error)), bad=True), gr.update()]
            return [*self._filled(job), gr.update(visible=False)]

        return event

    def _filled(self, job: VideoJob) -> list[Any]:
        return [*self._form.filled(job), say("the parameters are in the form")]

    def _double(self, name: str, chosen: int, seen: dict[str, Any], _: str) -> list[Any]:
        """The chosen job once more, which is the chosen one from here on."""
        try:
            id = acts.once_more(self._desk, name, chosen)
        except VSFError as error:
            return [*self._saying(say(on_page(str(error)), bad=True), chosen, seen), gr.update()]
        return [*self._saying(self._waits(id), id, seen), id]

    def _waits(self, id: int) -> str:
        paused = ", which is paused" if self._desk.queue.paused else ""
        return "".join(map(say, (f"job {id} is in the queue{paused}", *self._desk.queue.entry(id).job.notes)))

    def _add(self, *values: Any) -> list[Any]:
        """Shows the new job from here on."""
        try:
            id = self._desk.add(self._form.values(*values))
            return [self._waits(id), id]
        except VSFError as error:
            return [say(on_page(str(error)), bad=True), gr.update()]

    def _edit(self, id: int) -> list[Any]:
        """The job in the form, and a button that puts it back; if there is none, what was edited stays."""
        try:
            entry = acts.queued(self._desk, id)
        except VSFError as error:
            said = say(on_page(str(error)), bad=True)
            return [*[gr.update()] * len(self._form.outputs), said, gr.update(), gr.update()]
        save = gr.update(visible=entry.state == WAITING, value=f"Save job {id}")
        return [*self._filled(entry.job), id, save]

    def _save_job(self, chosen: int, seen: dict[str, Any], _: str, id: int, *values: Any) -> list[Any]:
        """The button stays until it has worked, or the edits would be lost."""
        try:
            self._desk.save(id, self._form.values(*values))
        except VSFError as error:
            return [*self._saying(say(on_page(str(error)), bad=True), chosen, seen), gr.update()]
        return [*self._saying(say(f"job {id} is changed"), chosen, seen), gr.update(visible=False)]

    def _pause_or_go(self) -> str:
        queue = self._desk.queue
        queue.paused = not queue.paused
        self._desk.runner.wake()
        return "no job is begun until the queue goes on" if queue.paused else ""

    def _act(self, name: str, id: int, said: str | None) -> str:
        """A file is deleted at the second press, which nothing has been said in between."""
        asked = f"press it once more to delete the file of job {id} for good"
        if name == "delete" and id and asked not in (said or "") and self._desk.queue.entry(id).path:
            return asked
        return acts.act(self._desk, name, id, Path(self._video.GRADIO_CACHE))

    def _free_memory(self) -> str:
        self._desk.free()
        return "its memory is free; the next picture loads it again"

    def _set_up(self) -> list[Any]:
        try:
            self._desk.install()
        except VSFError as error:
            return [gr.update(), say(on_page(str(error)), bad=True)]
        return [gr.update(visible=False), say("the packages are there")]

    def _look(self, id: int, seen: dict[str, Any], said: str | None = "") -> list[Any]:
        """Updates of all that shows the queue; what is as it was `seen` is left alone, to be scrolled and
        played in peace. What is `said` of the chosen job goes when it has ended, or another is chosen."""
        try:
            queue, paused = self._desk.queue.entries(RUNNING, WAITING), self._desk.queue.paused
            history = self._desk.queue.history(_HISTORY)
            now = told.running(self._desk, queue)
        except VSFError as error:
            return [say(on_page(str(error)), bad=True), *[gr.update()] * 8, seen]
        chosen = next((entry for entry in [*queue, *history] if entry.id == id), None)
        shown = (chosen.path, chosen.infotext) if chosen else ("", "")
        if chosen in queue and seen.get("shown"):
            shown = seen["shown"]  # what is looked at stays until there is something new
        fresh: dict[str, Any] = {
            "queue": ([(told.line(entry), entry.id) for entry in queue], id if chosen in queue else None),
            "history": (
                [(told.line(entry), entry.id) for entry in history],
                id if chosen in history else None,
            ),
            "paused": paused,
            "shown": shown,
            "busy": id if chosen in queue else 0,
        }
        changed = {name for name, value in fresh.items() if seen.get(name) != value}
        lists = [
            gr.update(choices=fresh[name][0], value=fresh[name][1]) if name in changed else gr.update()
            for name in ("queue", "history")
        ]
        pause = gr.update(value="Go on with the queue" if paused else "Pause the queue")
        return [
            now,
            *lists,
            pause if "paused" in changed else gr.update(),
            *(told.shown(*shown) if "shown" in changed else [gr.update()] * 4),
            "" if "busy" in changed and f"job {seen.get('busy')} " in (said or "") else gr.update(),
            fresh,
        ]


def _jobs(label: str, id: str) -> gr.Radio:
    """A list to choose a job from: gradio's tables differ among its versions, and the newest lose rows."""
    return gr.Radio(label=label, choices=[], elem_id=id, elem_classes=["vsf-jobs"])


def _buttons(labels: dict[str, str]) -> dict[str, Any]:
    with gr.Row():
        return {
            name: gr.Button(label, elem_id=f"vsf_video_{name}", size="sm", min_width=90)
            for name, label in labels.items()
        }
