"""The tab for pictures: the form, what was drawn, and the history.

Owns what happens at a press. Each visitor sees the own job while it runs; what is done is in the history of
all.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from vsf_lib.errors import VSFError
from vsf_lib.images.row import CANCELLED, DONE, FAILED, WAITING, Job
from vsf_lib.studio.desk import ImageDesk
from vsf_lib.studio.history import EXAMPLE, thumbnail
from vsf_lib.studio.ui.form import Form
from vsf_lib.studio.ui.result import BEFORE, Result
from vsf_lib.studio.words import on_page
from vsf_lib.video.progress import spoken
from vsf_lib.video.ui.form import QUIET
from vsf_lib.video.ui.words import bar, say

_HISTORY = 24
_LOOK = 0.5
"""Seconds between two looks at a job that does not change."""


class ImageTab:
    """Its elements, in the blocks that are being built, and what they do."""

    def __init__(self, desk: ImageDesk) -> None:
        self._desk = desk
        self._job = gr.State(0)
        """The job of this visitor that runs or waits."""
        self._path = gr.State("")
        """What is shown."""
        self._paths = gr.State([])
        """The history, as this visitor sees it."""
        with gr.Row(elem_classes=["vsf-studio"]):
            with gr.Column(scale=5, min_width=320, elem_classes=["vsf-form"]):
                self._form = Form(desk)
            with gr.Column(scale=6, min_width=320, elem_classes=["vsf-result"]):
                self._result = Result()
                self._gallery = gr.Gallery(
                    label="History", elem_id="vsf_image_history", columns=6, object_fit="contain",
                    allow_preview=False, interactive=False, format="png", height="auto", buttons=[],
                )  # fmt: skip
                self._dropped = gr.File(
                    label="Drop a picture, or a sweep's film, to restore its parameters",
                    type="filepath", height=150, elem_id="vsf_image_dropped",
                    file_types=[".png", ".mp4", ".webm", ".gif"],
                )  # fmt: skip

    def connect(self, blocks: gr.Blocks) -> None:
        """The events of all of them."""
        form, result = self._form, self._result
        form.connect()
        busy = [form.generate, form.sweep, form.cancel, self._job]
        drawn = [form.said, *busy, *result.outputs, self._path, self._gallery, self._paths]
        for button, sweep in ((form.generate, False), (form.sweep, True)):
            button.click(
                partial(self._draw, sweep), inputs=[*form.elements.values()], outputs=drawn,
                concurrency_limit=None, **QUIET,
            )  # fmt: skip
        form.cancel.click(self._cancel, inputs=[self._job], outputs=[form.cancel], **QUIET)
        result.view.input(self._view, inputs=[self._path, result.view], outputs=result.outputs, **QUIET)
        self._gallery.select(
            self._choose, inputs=[self._paths], outputs=[*result.outputs, self._path], **QUIET
        )
        filled = [*form.outputs, form.said]
        result.reuse.click(self._reuse, inputs=[self._path], outputs=filled, **QUIET)
        self._dropped.upload(self._drop, inputs=[self._dropped], outputs=filled, **QUIET)
        blocks.load(self._first, outputs=[*result.outputs, self._path, self._gallery, self._paths], **QUIET)

    def _first(self) -> list[Any]:
        """The latest picture, or for the first visitor an example."""
        _ = self._desk.row  # starts the worker, while the visitor reads
        latest = self._desk.history.latest(1)
        if not latest:
            return [*self._result.example(), str(EXAMPLE), *self._listed()]
        return [*self._result.shown(latest[0]), str(latest[0].path), *self._listed()]

    def _draw(self, sweep: bool, *values: Any) -> Iterator[list[Any]]:
        """One job, told while it runs. What is shown stays until there is something new."""
        same: list[Any] = [gr.skip()] * len([*self._result.outputs, self._path, self._gallery, self._paths])
        try:
            id = self._desk.add(self._form.values(*values), sweep=sweep)
            job = self._desk.row.job(id)
        except VSFError as error:
            yield [say(on_page(str(error)), bad=True), *_idle(), *same]
            return
        yield [self._told(job), *_busy(id), *same]
        while not job.ended:
            after = self._desk.row.wait(job, _LOOK)
            if after is not job or job.state == WAITING:
                yield [self._told(after), *[gr.skip()] * 4, *same]
            job = after
        said = "".join(say(on_page(note)) for note in job.notes)
        if job.state == DONE and job.drawn is not None:
            yield [said, *_idle(), *self._new(Path(job.drawn.path))]
        else:
            told = {CANCELLED: say("cancelled"), FAILED: say(on_page(job.message), bad=True)}
            yield [said + told.get(job.state, ""), *_idle(), *same]

    def _new(self, path: Path) -> list[Any]:
        try:
            entry = self._desk.history.entry(path)
        except VSFError:  # deleted in that moment
            return [*self._result.shown(None), "", *self._listed()]
        return [*self._result.shown(entry), str(path), *self._listed()]

    def _told(self, job: Job) -> str:
        """How far it is."""
        if job.state == WAITING:
            before = self._desk.row.before(job.id)
            return say(f"waiting: {before} before this one" if before else "waiting")
        left = "" if job.seconds_left is None else f", about {spoken(max(1, job.seconds_left))} left"
        step = f": step {job.step} of {job.steps}{left}" if job.steps else ""
        return say(f"{job.stage}{step}") + bar(job.step / job.steps if job.steps else 0)

    def _cancel(self, id: int) -> Any:
        if id:
            try:
                self._desk.row.cancel(id)
            except VSFError:  # it has ended long ago
                return gr.update(interactive=False)
        return gr.update(interactive=False)

    def _view(self, path: str, view: str) -> list[Any]:
        return self._shown(path, view)

    def _choose(self, paths: list[str], chosen: gr.SelectData) -> list[Any]:
        index = chosen.index if isinstance(chosen.index, int) else 0
        path = paths[index] if index < len(paths) else ""
        return [*self._shown(path, BEFORE), path]

    def _shown(self, path: str, view: str) -> list[Any]:
        if path == str(EXAMPLE):
            return self._result.example()
        try:
            return self._result.shown(self._desk.history.entry(Path(path)), view)
        except VSFError:
            return self._result.shown(None)

    def _reuse(self, path: str) -> list[Any]:
        return self._filled(Path(path) if path else None)

    def _drop(self, path: str | None) -> list[Any]:
        return self._filled(Path(path) if path else None)

    def _filled(self, path: Path | None) -> list[Any]:
        nothing = [gr.skip()] * len(self._form.outputs)
        if path is None:
            return [*nothing, gr.skip()]
        try:
            restored = self._desk.restored(path)
        except VSFError as error:
            return [*nothing, say(on_page(str(error).replace(str(path), path.name)), bad=True)]
        notes = "".join(say(on_page(note)) for note in restored.request.notes)
        return [*self._form.filled(restored), say(f"the parameters of {path.name} are in the form") + notes]

    def _listed(self) -> list[Any]:
        """The history as it is now."""
        entries = self._desk.history.latest(_HISTORY)
        pictures = []
        paths = []
        for entry in entries:
            try:
                pictures.append(thumbnail(entry))
            except VSFError:  # deleted since
                continue
            paths.append(str(entry.path))
        return [pictures, paths]


def _busy(id: int) -> list[Any]:
    return [gr.update(interactive=False), gr.update(interactive=False), gr.update(interactive=True), id]


def _idle() -> list[Any]:
    return [gr.update(interactive=True), gr.update(interactive=True), gr.update(interactive=False), 0]
