"""The page for videos, in a WebUI's tab or on its own: a form, the queue, what is being made, what was made.

Owns the arrangement and its events. Every page shows the same queue, by asking for it once a second.
"""

from __future__ import annotations

import functools
import html
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from vsf_lib.errors import VSFError
from vsf_lib.settings import field
from vsf_lib.video.desk import Desk
from vsf_lib.video.job import SIZES, USUAL_FRAMES, VideoJob
from vsf_lib.video.queue import RUNNING, WAITING, Entry

_OWN_SIZE = "own size"
_PERIOD = 1.0
"""Seconds between two looks at the queue."""
_ACTS = {
    "cancel": "Cancel",
    "up": "Up",
    "down": "Down",
    "duplicate": "Duplicate",
    "edit": "Edit",
    "again": "Again",
    "remove": "Remove",
    "delete": "Delete file",
}
_HEAD = ["number", "state", "prompt", "size", "frames", "message"]


def build(desk: Desk) -> gr.Blocks:
    """The page as gradio blocks."""
    with gr.Blocks(analytics_enabled=False, title="VSF Video") as blocks:
        _Page(desk).connect(blocks)
    return blocks


class _Page:
    """The elements of one page, and what they do."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._said = gr.HTML(elem_id="vsf_video_note")
        with gr.Row(visible=bool(desk.lacks())) as self._packages:
            gr.Markdown(
                "Videos need other versions of some packages than this WebUI has. They are put into a folder "
                "of their own, about 130 MB, which nothing else uses."
            )
            self._install = gr.Button("Install", elem_id="vsf_video_install")
        with gr.Row():
            with gr.Column(scale=2):
                self._form = _form(desk)
                with gr.Row():
                    self._generate = gr.Button("Generate", variant="primary", elem_id="vsf_video_generate")
                    self._pause = gr.Button("Pause the queue", elem_id="vsf_video_pause")
            with gr.Column(scale=3):
                self._now = gr.HTML(elem_id="vsf_video_now")
                self._table = gr.Dataframe(
                    headers=_HEAD,
                    interactive=False,
                    elem_id="vsf_video_queue",
                    label="Queue, then history",
                    wrap=True,
                )
                self._number = gr.Number(
                    label="Job number", info="click a row above", precision=0, elem_id="vsf_video_number"
                )
                with gr.Row():
                    self._acts = {
                        name: gr.Button(label, elem_id=f"vsf_video_{name}", size="sm", min_width=90)
                        for name, label in _ACTS.items()
                    }
                self._video = gr.Video(label="Video", elem_id="vsf_video_player", interactive=False)
                self._infotext = gr.Textbox(
                    label="Parameters", elem_id="vsf_video_infotext", interactive=False, lines=3
                )
                self._reuse = gr.Button("Reuse parameters", elem_id="vsf_video_reuse", size="sm")
                self._dropped = gr.File(
                    label="Drop a video of this program to restore its parameters",
                    type="filepath",
                    height=120,
                )

    def connect(self, blocks: gr.Blocks) -> None:
        """The events of all of them."""
        quiet: dict[str, Any] = {"show_progress": False}
        live = [self._now, self._table, self._pause]
        said = [*live, self._said]
        filled = [*self._form.values(), self._said]
        self._generate.click(self._guarded(self._add), inputs=[*self._form.values()], outputs=said, **quiet)
        self._pause.click(self._guarded(self._pause_or_go), outputs=said, **quiet)
        for name, button in self._acts.items():
            if name == "edit":
                edit = self._restore(lambda id: self._desk.queue.entry(int(id)).job)
                button.click(edit, inputs=[self._number], outputs=filled, **quiet)
            else:
                act = self._guarded(functools.partial(_act, self._desk, name))
                button.click(act, inputs=[self._number], outputs=said, **quiet)
        self._table.select(_picked, inputs=[self._table], outputs=[self._number], **quiet)
        shown = [self._video, self._infotext]
        self._number.change(self._selected, inputs=[self._number], outputs=shown, **quiet)
        reuse, drop = self._restore(VideoJob.from_infotext), self._restore(self._dropped_job)
        self._reuse.click(reuse, inputs=[self._infotext], outputs=filled, **quiet)
        self._dropped.upload(drop, inputs=[self._dropped], outputs=filled, **quiet)
        self._install.click(self._set_up, outputs=[self._packages, self._said])
        gr.Timer(_PERIOD).tick(self._state, outputs=live, **quiet)
        blocks.load(self._state, outputs=live, **quiet)

    def _guarded(self, act: Callable[..., str]) -> Callable[..., list[Any]]:
        """Runs an event and shows what it says, or its error, and the queue as it is then."""

        def event(*values: Any) -> list[Any]:
            try:
                said = _say(act(*values), bad=False)
            except VSFError as error:
                said = _say(str(error), bad=True)
            return [*self._state(), said]

        return event

    def _restore(self, get: Callable[[Any], VideoJob]) -> Callable[[Any], list[Any]]:
        """An event that fills the form with a job."""

        def event(value: Any) -> list[Any]:
            nothing = [gr.update()] * len(self._form)
            if not value:
                return [*nothing, gr.update()]
            try:
                job = get(value)
            except VSFError as error:
                return [*nothing, _say(str(error), bad=True)]
            values = {**job.settings.model_dump(), **job.model_dump(exclude={"settings", "loras"})}
            values["loras"] = "\n".join(map(str, job.loras))
            filled = [gr.update(value=values[name]) for name in self._form]
            return [*filled, _say("the parameters are in the form", bad=False)]

        return event

    def _add(self, *values: Any) -> str:
        return f"job {self._desk.add(dict(zip(self._form, values, strict=True)))} is in the queue"

    def _pause_or_go(self) -> str:
        queue = self._desk.queue
        queue.paused = not queue.paused
        self._desk.runner.wake()
        return "no job is begun until the queue goes on" if queue.paused else ""

    def _dropped_job(self, path: str) -> VideoJob:
        return self._desk.restored(Path(path))

    def _selected(self, id: Any) -> list[Any]:
        found = next((entry for entry in self._desk.queue.entries() if entry.id == int(id or 0)), None)
        if found is None:
            return [gr.update(value=None), ""]
        playable = found.path.endswith((".mp4", ".webm")) and Path(found.path).is_file()
        return [gr.update(value=found.path if playable else None), found.infotext]

    def _set_up(self) -> list[Any]:
        try:
            self._desk.install()
        except VSFError as error:
            return [gr.update(), _say(str(error), bad=True)]
        return [gr.update(visible=False), _say("the packages are there", bad=False)]

    def _state(self) -> list[Any]:
        """What is being made, the rows of the queue, and what the pause button says."""
        try:
            entries, paused = self._desk.queue.entries(), self._desk.queue.paused
            running = _running(self._desk, entries)
        except VSFError as error:
            return [_say(str(error), bad=True), [], gr.update()]
        rows = [_row(entry) for entry in entries]
        return [running, rows, gr.update(value="Go on with the queue" if paused else "Pause the queue")]


def _form(desk: Desk) -> dict[str, Any]:
    usual = VideoJob.model_fields
    models = desk.models()
    preset = desk.preset(models[0])
    made: dict[str, Any] = {"prompt": gr.Textbox(label="Video prompt", lines=3, elem_id="vsf_video_prompt")}
    made["negative_prompt"] = gr.Textbox(
        label="Video negative prompt", lines=2, elem_id="vsf_video_negative",
        placeholder="What the video must not show",
    )  # fmt: skip
    with gr.Row():
        for name in ("alpha", "beta"):
            made[name] = _slider(name, getattr(preset, name))
    made["model"] = gr.Dropdown(
        label="Video model", choices=models, value=models[0], allow_custom_value=desk.rights.paths,
        elem_id="vsf_video_model", info="a folder in diffusers' format, or a hub id that was fetched",
    )  # fmt: skip
    made["loras"] = gr.Textbox(
        label="LoRAs", lines=2, placeholder="one FILE:WEIGHT per line", elem_id="vsf_video_loras",
        info=("there are " + ", ".join(desk.loras()[:6])) if desk.loras() else None,
    )  # fmt: skip
    with gr.Row():
        size = gr.Dropdown(label="Video size", choices=[*SIZES, _OWN_SIZE], value=next(iter(SIZES)))
        made["width"] = gr.Number(label="Video width", value=832, precision=0, elem_id="vsf_video_width")
        made["height"] = gr.Number(label="Video height", value=480, precision=0, elem_id="vsf_video_height")
    with gr.Row():
        made["frames"] = gr.Slider(17, 121, USUAL_FRAMES, step=4, label="Frames", elem_id="vsf_video_frames")
        made["fps"] = gr.Slider(1, 60, usual["fps"].default, step=1, label="Frames per second")
    with gr.Row():
        made["steps"] = gr.Slider(
            1, 50, usual["steps"].default, step=1, label="Video steps", elem_id="vsf_video_steps"
        )
        made["seed"] = gr.Number(label="Video seed", value=-1, precision=0, elem_id="vsf_video_seed")
    with gr.Accordion("More", open=False, elem_id="vsf_video_more"):
        with gr.Row():
            for name in ("start", "end"):
                made[name] = _slider(name, field(name).default)
        with gr.Row():
            made["method"] = gr.Radio(
                label="Video method", choices=list(field("method").choices), value="vsf"
            )
            made["guidance_scale"] = gr.Slider(1, 10, 1, step=0.1, label="Video CFG scale")
        with gr.Row():
            made["quality"] = gr.Slider(1, 10, usual["quality"].default, step=1, label="Quality of the file")
            made["format"] = gr.Dropdown(label="Format", choices=["mp4", "webm", "gif", "png"], value="mp4")
            made["offload"] = gr.Dropdown(
                label="Offload", choices=["auto", "none", "model", "group"], value="auto"
            )

    def sized(chosen: str) -> list[Any]:
        return [gr.update(value=pixels) for pixels in SIZES[chosen]] if chosen in SIZES else [gr.update()] * 2

    for pixels in (made["width"], made["height"]):
        pixels.input(lambda: _OWN_SIZE, outputs=[size], show_progress=False)
    size.input(sized, inputs=[size], outputs=[made["width"], made["height"]], show_progress=False)
    return made


def _slider(name: str, value: float) -> gr.Slider:
    item = field(name)
    assert item.slider is not None
    return gr.Slider(
        item.slider.minimum, item.slider.maximum, value, step=item.slider.step,
        label=item.label.replace("VSF", "Video"), info=item.help, elem_id=f"vsf_video_{name}",
    )  # fmt: skip


def _picked(event: gr.SelectData, rows: Any) -> Any:
    return int(rows.iloc[event.index[0], 0]) if len(rows) else None


def _act(desk: Desk, name: str, number: Any) -> str:
    queue, id = desk.queue, int(number or 0)
    waiting = [entry.id for entry in queue.entries(WAITING)]
    if name == "cancel":
        desk.runner.cancel(id)
    elif name in ("up", "down"):
        place = waiting.index(id) if id in waiting else 0
        queue.move(id, place + (1 if name == "down" else -1))
    elif name == "duplicate":
        queue.duplicate(id)
    elif name == "again":
        queue.again(id)
    elif name == "remove":
        queue.remove(id)
    elif name == "delete":
        desk.delete(id)
    desk.runner.wake()
    return ""


def _row(entry: Entry) -> list[Any]:
    job = entry.job
    return [
        entry.id,
        entry.state,
        job.prompt[:60],
        f"{job.width}x{job.height}",
        job.frames,
        entry.message[:200],
    ]


def _running(desk: Desk, entries: list[Entry]) -> str:
    if desk.installing:
        return _say(f"installing: {desk.installing}", bad=False)
    if not any(entry.state in (RUNNING, WAITING) for entry in entries):
        return ""
    state = desk.runner.state
    if state.elsewhere:
        return _say("another program on this machine works on the queue", bad=False)
    if state.id is None:
        return ""
    share = state.step / state.steps if state.steps else float(state.stage in ("decoding", "writing"))
    left = "" if state.seconds_left is None else f", {state.seconds_left:.0f} s left"
    step = f" step {state.step} of {state.steps}{left}" if state.steps else ""
    lines = [f"<div>Job {state.id}: {html.escape(state.stage)}{step}</div>"]
    lines.append(f'<progress class="vsf-progress" value="{share:.3f}" max="1"></progress>')
    lines += [f"<div class='vsf-advice'>{html.escape(note)}</div>" for note in state.notes]
    if state.preview:
        lines.append(f'<img class="vsf-preview" alt="preview" src="data:image/jpeg;base64,{state.preview}">')
    return "".join(lines)


def _say(text: str, *, bad: bool) -> str:
    return f'<div class="{"vsf-error" if bad else "vsf-advice"}">{html.escape(text)}</div>' if text else ""
