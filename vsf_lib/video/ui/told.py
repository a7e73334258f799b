"""What the page says and shows of jobs: a line in a list, how far one is, and the file of one that is done.

Owns updates of elements that the page hands in order; knows no event.
"""

from __future__ import annotations

import filecmp
import glob
import html
import shutil
from pathlib import Path
from typing import Any

import gradio as gr

from vsf_lib.controls import seen
from vsf_lib.metadata import COMPARISON
from vsf_lib.pages.said import bar, film, say
from vsf_lib.video.comparison import still_of
from vsf_lib.video.desk import Desk
from vsf_lib.video.progress import overview, spoken
from vsf_lib.video.queue import DONE, WAITING, Entry


def copies(path: Path, cache: Path) -> list[Path]:
    """Those that gradio made of a file to show it; they would outlive it."""
    if not path.is_file():
        return []
    found = cache.glob(f"*/{glob.escape(path.name)}")
    return [copy for copy in found if copy.is_file() and filecmp.cmp(path, copy, shallow=False)]


def line(entry: Entry) -> str:
    job = entry.job
    parts = [
        str(entry.id),
        entry.state,
        job.prompt[:60],
        f"{job.width}x{job.height}, {job.frames} frames",
        "" if entry.seconds is None else spoken(entry.seconds),
        entry.message[:200],
        "its file is gone" if entry.state == DONE and not Path(entry.path).exists() else "",
    ]
    return " · ".join(part for part in parts if part)


def shown(path: str, infotext: str) -> list[Any]:
    """Updates of the player, of the picture in its place (a GIF or the first PNG) or under it (the strip of a
    comparison), of the parameters, and of our own player, which stands in."""
    file = Path(path)
    if path and file.is_dir():
        file = file / "00000.png"
    there = str(file) if path and file.is_file() else None
    plays = file.suffix.lower() in (".mp4", ".webm")
    own = plays and there is not None and _gradio_lacks_ffprobe()
    picture = None if plays else there
    if plays and f"{COMPARISON}: " in infotext and still_of(file).is_file():
        picture = str(still_of(file))
    return [
        gr.update(
            value=there if plays and not own else None, visible=seen((plays or there is None) and not own)
        ),
        gr.update(value=picture, visible=seen(picture is not None)),
        infotext,
        gr.update(value=film(file) if own else "", visible=seen(own)),
    ]


def _gradio_lacks_ffprobe() -> bool:
    """Where there is an ffmpeg, gradio's player asks its ffprobe about a film, and fails if there is none."""
    return shutil.which("ffmpeg") is not None and shutil.which("ffprobe") is None


def running(desk: Desk, queue: list[Entry]) -> str:
    if desk.installing:
        return say(f"installing: {desk.installing}")
    state = desk.runner.state
    if state.problem:
        return say(f"no job is made: {state.problem}", bad=True)
    if not queue:
        return ""
    if state.elsewhere:
        return say("another program on this machine works on the queue")
    job = next((entry.job for entry in queue if entry.id == state.id), None)
    if job is None:
        return ""
    waiting = [entry.job for entry in queue if entry.state == WAITING]
    view = overview(
        job, waiting, stage=state.stage, step=state.step, steps=state.steps,
        seconds_left=state.seconds_left, finished=state.finished,
    )  # fmt: skip
    left = "" if state.seconds_left is None else f", {spoken(state.seconds_left)} left"
    step = f" step {state.step} of {state.steps}{left}" if state.steps else ""
    step += f", {state.part}" if state.part else ""
    lines = [f"<div>Job {state.id}: {html.escape(state.stage)}{step}</div>", bar(view.job)]
    if waiting or state.finished:
        whole = "" if view.seconds_left is None else f", about {spoken(view.seconds_left)} left"
        behind = f"{view.waiting} more to come" if waiting else "the last one"
        lines += [f"<div>All jobs: {behind}{whole}</div>", bar(view.total)]
    lines += [say(note) for note in state.notes]
    if state.preview:
        lines.append(f'<img class="vsf-preview" alt="preview" src="data:image/jpeg;base64,{state.preview}">')
    return "".join(lines)
