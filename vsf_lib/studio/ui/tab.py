"""The tab for pictures: the form, what was drawn, and the history.

Owns what happens at a press. Each visitor sees the own job while it runs, also after the page was loaded
anew; what is done is in the history of all.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from vsf_lib.controls import QUIET
from vsf_lib.errors import VSFError
from vsf_lib.images.row import CANCELLED, DONE, FAILED, WAITING, Job
from vsf_lib.pages.kept import NOTHING, keep_as_typed, keep_form, kept_form
from vsf_lib.pages.said import bar, say
from vsf_lib.pages.words import on_page
from vsf_lib.studio.desk import ImageDesk
from vsf_lib.studio.history import EXAMPLE, thumbnail
from vsf_lib.studio.ui.form import Form
from vsf_lib.studio.ui.kept import KEEP_JOB, KEPT_JOBS
from vsf_lib.studio.ui.result import BEFORE, Result
from vsf_lib.video.progress import spoken

_HISTORY = 24
_LOOK = 0.5
"""Seconds between two looks at a job that does not change."""


class ImageTab:
    """Its elements, in the blocks that are being built, and what they do."""

    def __init__(self, desk: ImageDesk) -> None:
        self._desk = desk
        self._followed: set[tuple[str, object]] = set()
        """The keys of the jobs that some visitor's page shows, once for each."""
        self._job, self._last, self._kept = (gr.Textbox(visible="hidden", container=False) for _ in range(3))
        """The key of this page's job that runs or waits, and what the browser keeps."""
        self._path = gr.State("")
        """What is shown."""
        self._paths = gr.State([])
        """The history, as this visitor sees it."""
        with gr.Row(elem_classes=["vsf-studio"]):
            with gr.Column(scale=5, min_width=320, elem_classes=["vsf-form", "vsf-typed"]):
                self._form = Form(desk)
            with gr.Column(scale=6, min_width=320, elem_classes=["vsf-result"]):
                self._result = Result()
                self._gallery = gr.Gallery(
                    label="History", elem_id="vsf_image_history", columns=6, object_fit="contain",
                    allow_preview=False, interactive=False, format="png", height="auto", buttons=[],
                )  # fmt: skip
                self._dropped = gr.File(
                    label="Drop a picture, or a sweep's film, to restore its parameters",
                    type="filepath", height=150, elem_id="vsf_image_dropped", elem_classes=["vsf-drop"],
                    file_types=[".png", ".mp4", ".webm", ".gif"],
                )  # fmt: skip

    def connect(self, blocks: gr.Blocks) -> None:
        """The events of all of them."""
        form, result = self._form, self._result
        form.connect()
        busy = [form.generate, form.sweep, form.cancel, self._job]
        seen = [*result.outputs, self._path, self._gallery, self._paths]
        for button, sweep in ((form.generate, False), (form.sweep, True)):
            button.click(
                partial(self._begin, sweep), inputs=[*form.elements.values()], outputs=[form.said, *busy],
                js=keep_form("image", form.elements), concurrency_limit=None, **QUIET,
            ).then(
                self._follow, inputs=[self._job], outputs=[form.said, *busy, *seen], js=KEEP_JOB,
                concurrency_limit=None, **QUIET,
            )  # fmt: skip
        # Also of a job that another tab began and this one took up.
        self._job.change(None, inputs=[self._job], js=KEEP_JOB)
        form.cancel.click(self._cancel, inputs=[self._job], outputs=[form.cancel], **QUIET)
        result.view.input(
            self._view, inputs=[self._path, result.view], outputs=[*result.outputs, *seen[-2:]], **QUIET
        )
        self._gallery.select(self._choose, inputs=[self._paths], outputs=seen, **QUIET)
        filled = [*form.outputs, form.said]
        reused = result.reuse.click(self._reuse, inputs=[self._path], outputs=filled, **QUIET)
        dropped = self._dropped.upload(self._drop, inputs=[self._dropped], outputs=filled, **QUIET)
        keep = keep_form("image", form.elements)
        for restored in (reused, dropped):
            restored.then(None, inputs=[*form.elements.values()], js=keep)
        # What lies in the zone would keep the next file out of it.
        dropped.then(None, outputs=[self._dropped], js=NOTHING)
        keep_as_typed("image", form.elements)
        blocks.load(self._first, outputs=seen, **QUIET)
        blocks.load(self._restore, inputs=[self._kept], outputs=form.outputs, js=kept_form("image"), **QUIET)
        blocks.load(
            self._take_up, inputs=[self._job, self._last], outputs=[form.said, *busy, *seen], js=KEPT_JOBS,
            concurrency_limit=None, **QUIET,
        )  # fmt: skip

    def _first(self) -> list[Any]:
        """The latest picture, or for the first visitor an example."""
        _ = self._desk.row  # starts the worker, while the visitor reads
        latest = self._desk.history.latest(1)
        if not latest:
            return [*self._result.example(), str(EXAMPLE), *self._listed()]
        return [*self._result.shown(latest[0]), str(latest[0].path), *self._listed()]

    def _begin(self, sweep: bool, *values: Any) -> list[Any]:
        """Puts a job into the row, or says why not."""
        try:
            id = self._desk.add(self._form.values(*values), sweep=sweep)
            job = self._desk.row.job(id)
        except VSFError as error:
            return [say(on_page(str(error)), bad=True), *_idle()]
        return [self._told(job), *_busy(job.key)]

    def _take_up(self, own: str, last: str) -> Iterator[list[Any]]:
        """Follows the job of a page that was loaded anew, or that of one of this browser that is gone."""
        alone = last not in [key for key, _ in self._followed.copy()]
        for key, free in ((own, True), (last, alone)):
            job = self._desk.row.keyed(key)
            if job is not None and not job.ended and free:
                yield from self._follow(key)
                return
        yield [gr.skip()] * (5 + len(self._same))

    def _follow(self, key: str) -> Iterator[list[Any]]:
        """One job, told while it runs. What is shown stays until there is something new."""
        same = self._same
        job = self._desk.row.keyed(key)
        if job is None:
            yield [gr.skip()] * (5 + len(same))
            return
        follower = (key, object())
        self._followed.add(follower)
        try:
            yield [self._told(job), *_busy(key), *same]
            while not job.ended:
                after = self._desk.row.wait(job, _LOOK)
                news = after is not job or job.state == WAITING
                # Also without news: only so is it noticed that nobody follows any more.
                yield [self._told(after) if news else gr.skip(), *[gr.skip()] * 4, *same]
                job = after
        finally:
            self._followed.discard(follower)
        said = "".join(say(on_page(note)) for note in job.notes)
        if job.state == DONE and job.drawn is not None:
            yield [said, *_idle(), *self._new(Path(job.drawn.path))]
        else:
            told = {CANCELLED: say("cancelled"), FAILED: say(on_page(job.message), bad=True)}
            yield [said + told.get(job.state, ""), *_idle(), *same]

    @property
    def _same(self) -> list[Any]:
        """Updates that leave what is shown as it is."""
        return [gr.skip()] * (len(self._result.outputs) + 3)

    def _restore(self, kept: str) -> list[Any]:
        """The form as this browser has sent it the last time."""
        return self._form.kept(kept)

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

    def _cancel(self, key: str) -> Any:
        job = self._desk.row.keyed(key)
        if job is not None:
            self._desk.row.cancel(job.id)
        return gr.update(interactive=False)

    def _view(self, path: str, view: str) -> list[Any]:
        shown, there = self._shown(path, view)
        return [*shown, *([gr.skip()] * 2 if there else self._listed())]

    def _choose(self, paths: list[str], chosen: gr.SelectData) -> list[Any]:
        index = chosen.index if isinstance(chosen.index, int) else 0
        path = paths[index] if index < len(paths) else ""
        shown, there = self._shown(path, BEFORE)
        return [*shown, path, *[gr.skip()] * 2] if there else [*shown, "", *self._listed()]

    def _shown(self, path: str, view: str) -> tuple[list[Any], bool]:
        """Updates that show a file, or say that it is gone; and whether it is there."""
        if path == str(EXAMPLE):
            return self._result.example(), True
        try:
            entry = self._desk.history.entry(Path(path))
        except VSFError as error:
            return self._result.missing(str(error)), False
        return self._result.shown(entry, view), True

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


def _busy(key: str) -> list[Any]:
    return [gr.update(interactive=False), gr.update(interactive=False), gr.update(interactive=True), key]


def _idle() -> list[Any]:
    return [gr.update(interactive=True), gr.update(interactive=True), gr.update(interactive=False), ""]
