"""Drawing for somebody who tries one thing after another: the model stays, and so does the unguided picture.

Owns what is kept between jobs, which files a job leaves, and what is told while it runs. Knows no process.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from vsf_lib.adapters.predictions import check_scheduler
from vsf_lib.errors import ModelError, OutputError, VSFError, is_out_of_memory
from vsf_lib.files import free_name, reason
from vsf_lib.images.asked import Asked
from vsf_lib.images.besides import HEATMAP, WITHOUT, beside, free_path
from vsf_lib.images.loading import Machine, choose_machine, fetch, load
from vsf_lib.images.model import Folder, Model, find_model
from vsf_lib.images.pictures import Picture, Watch, draw_with
from vsf_lib.images.remarks import remarks
from vsf_lib.images.request import Request
from vsf_lib.images.resolve import resolve
from vsf_lib.images.swept import draw_sweep, pictures_in
from vsf_lib.jobs import messages
from vsf_lib.metadata import COMPARISON, Parameters, format_parameters, write_png
from vsf_lib.settings import Settings
from vsf_lib.sweep import Plan
from vsf_lib.video.files import check_ffmpeg

_OFF = Settings(method="off")


class Easel:
    """Draws, and keeps the model for the next job that needs the same."""

    def __init__(self, emit: Callable[[messages.Event], None], stopped: Callable[[], bool]) -> None:
        self._emit = emit
        self._stopped = stopped
        self._key: Any = None
        self._pipe: Any = None
        self._without: tuple[Any, Image.Image] | None = None
        """The last unguided picture, and what it depends on."""

    def warm(self, name: str) -> None:
        """Loads a model that may be asked for next."""
        model = find_model(name)
        if model.folder is not None:
            request = resolve(Asked(prompt="-", given={"method": "off"}, model=name))
            self._loaded(model, model.folder, choose_machine(request, model))

    def forget(self) -> None:
        """Gives the model's memory back."""
        self._pipe = self._key = self._without = None
        gc.collect()
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def draw(self, asked: Asked, folder: Path) -> messages.Drawn:
        """Draws what is asked for into `folder`; raises Stopped, VSFError, or what the model raises."""
        began = time.monotonic()
        request = resolve(asked)
        model = find_model(request.model, request.parts)
        machine = choose_machine(request, model)
        if model.folder is None:
            self._emit(messages.Progress("fetching the model, which may take long"))
        place = fetch(model)
        request = request.fitted(flux=place.flux)
        for note in (*request.notes, *remarks(request, model, place)):
            self._emit(messages.Note(note))
        place.size(request.size)
        pipe = self._loaded(model, place, machine)
        if request.heatmap:
            try:
                check_scheduler(pipe)
            except ModelError as error:
                self._emit(messages.Note(f"there is no heat map: {error}"))
                request = replace(request, heatmap=False)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make the folder {folder}: {reason(error)}") from error
        work = _Work(pipe, request, model, place, machine)
        drawn = (
            self._single(work, folder) if request.sweep is None else self._sweep(work, request.sweep, folder)
        )
        return replace(drawn, seconds=round(time.monotonic() - began, 3))

    def _loaded(self, model: Model, folder: Folder, machine: Machine) -> Any:
        key = (model.name, model.parts, folder, machine.device, machine.dtype, machine.offload)
        if self._key != key:
            self.forget()  # before the next one needs room
            self._emit(messages.Progress("loading the model"))
            self._pipe = load(folder, machine, quiet=True)
            self._key = key
        return self._pipe

    def _single(self, work: _Work, folder: Path) -> messages.Drawn:
        request = work.request
        key = (
            self._key,
            replace(request, settings=_OFF, compare=False, heatmap=False, notes=(), fingerprint=""),
        )
        kept = self._without[1] if self._without is not None and self._without[0] == key else None
        count = 2 if request.compare and kept is None else 1
        teller = _Teller(self._emit, self._stopped, count * request.steps)
        names = ["with the negative prompt" if request.settings.method != "off" else ""]
        teller.names = ["without the negative prompt", *names] if count == 2 else names
        (picture,) = work.pictures(watch=teller, without=kept)
        extra = {name: text for name, text in picture.parameters.extra.items() if name != COMPARISON}
        parameters = replace(picture.parameters, extra=extra)
        path = free_path(folder, request.prompt, request.seed)
        files = {}
        if request.compare:
            without = picture.parts[0]
            self._without = (key, without)
            files["without"] = str(beside(path, WITHOUT))
            write_png(files["without"], without, format_parameters(replace(parameters, settings=None)))
        infotext = format_parameters(parameters)
        write_png(path, picture.parts[-1], infotext)
        if picture.heatmap is not None:
            files |= self._heatmap(picture.heatmap, path)
        return messages.Drawn(str(path), infotext, 0.0, **files)

    def _heatmap(self, draw: Callable[[], tuple[Image.Image, Parameters]], path: Path) -> dict[str, str]:
        """Its file. The picture is there already, and a failure here does not cost it."""
        self._emit(messages.Progress("drawing where it acts"))
        file = beside(path, HEATMAP)
        try:
            sheet, parameters = draw()
            write_png(file, sheet, format_parameters(parameters))
        except Exception as error:
            if not (isinstance(error, VSFError) or is_out_of_memory(error)):
                raise
            self._emit(messages.Note(f"there is no heat map: {error}"))
            return {}
        return {"heatmap": str(file)}

    def _sweep(self, work: _Work, plan: Plan, folder: Path) -> messages.Drawn:
        request = work.request
        teller = _Teller(self._emit, self._stopped, pictures_in(plan) * request.steps)
        (swept,) = draw_sweep(
            work.pipe, request, plan, work.model, work.folder, work.machine,
            film=False, count=teller, watch=teller,
        )  # fmt: skip
        path = free_name(folder, request.prompt, f"{request.seed}-{request.kind}", ".png")
        infotext = format_parameters(swept.parameters)
        swept.write(path, infotext)
        film = path.with_suffix(".mp4")
        extra = {**swept.parameters.extra, **plan.extra(film=True)}
        self._emit(messages.Progress("writing the film"))
        try:
            check_ffmpeg()
            swept.write(film, format_parameters(replace(swept.parameters, extra=extra)))
        except OutputError as error:
            self._emit(messages.Note(f"there is no film: {error}"))
            return messages.Drawn(str(path), infotext, 0.0)
        return messages.Drawn(str(path), infotext, 0.0, film=str(film))


class _Work:
    """A request with all that it is drawn with."""

    def __init__(self, pipe: Any, request: Request, model: Model, folder: Folder, machine: Machine) -> None:
        self.pipe, self.request, self.model, self.folder, self.machine = pipe, request, model, folder, machine

    def pictures(self, **others: Any) -> list[Picture]:
        return list(draw_with(self.pipe, self.request, self.model, self.folder, self.machine, **others))


class _Teller(Watch):
    """Tells how far a job of several pictures is, and how long it will take at the pace so far."""

    def __init__(
        self, emit: Callable[[messages.Event], None], stopped: Callable[[], bool], steps: int
    ) -> None:
        self._emit = emit
        self._stopped = stopped
        self._steps = steps
        self._done = 0
        self._picture = 0
        self._first = 0.0
        """When the first step was done, which takes the text encoders with it."""
        self.names: list[str] = []
        """Of the pictures in their order."""

    def label(self, name: str) -> str:
        """Of the next picture of a sweep."""
        self.names.append(name)
        return name

    def done(self) -> None:
        """A picture of a sweep is drawn; `step` has counted it."""

    def step(self, done: int, steps: int) -> None:
        self._done += 1
        now = time.monotonic()
        self._first = self._first or now
        each = (now - self._first) / (self._done - 1) if self._done > 1 else None
        left = None if each is None else each * (self._steps - self._done)
        name = self.names[min(self._picture, len(self.names) - 1)]
        self._emit(messages.Progress(f"drawing {name}".strip(), self._done, self._steps, left))
        if done == steps:
            self._picture += 1

    def stopped(self) -> bool:
        return self._stopped()
