"""What a job names on the hub, found on this machine or fetched: `--download`.

Owns where the command line keeps it, in the folders that the WebUIs have, below the current one.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from vsf_lib.cli.console import note
from vsf_lib.errors import ModelError, SettingsError
from vsf_lib.jobs import messages
from vsf_lib.video.download.catalogue import Source
from vsf_lib.video.download.downloads import fetch, found, spoken
from vsf_lib.video.download.landing import INDEX, is_cached, spoken_size
from vsf_lib.video.job import Lora, VideoJob
from vsf_lib.video.lora import check_loras
from vsf_lib.video.single_file.headers import SAFETENSORS

MODELS = Path("models", "diffusers")
LORAS = Path("models", "Lora")
_PERIOD = 10.0
"""Seconds between two lines of progress where they cannot be written over each other."""


def placed(job: VideoJob, *, download: bool) -> VideoJob:
    """The job with paths for what it names on the hub; raises ModelError for what is not here.

    With `download` that is fetched instead, LoRAs first, so that a wrong one is found before the model comes.
    """
    loras = [Lora(file=_lora(lora.file, download), weight=lora.weight) for lora in job.loras]
    check_loras(loras)
    return job.changed(model=_model(job.model, download), loras=[lora.model_dump() for lora in loras])


def _model(name: str, download: bool) -> str:
    source = _source(name)
    if source is None or source.file:
        return name
    folder = found(MODELS, source.id)
    if folder is None and download:
        folder = _fetch(source, MODELS)
    if folder is None and (MODELS / source.name / INDEX).is_file():
        folder = MODELS / source.name  # made elsewhere, or moved since
    if folder is not None:
        return str(folder.absolute())
    if not is_cached(source.id):
        raise ModelError(
            f"{name} is not on this machine: give the folder of a model or, if it is a name on the hub, add "
            f"--download to fetch it into {MODELS}"
        )
    return name


def _lora(name: str, download: bool) -> str:
    source = _source(name)
    if source is None or not source.file or not source.file.lower().endswith(SAFETENSORS):
        return name
    path = LORAS / source.name
    if not path.is_file():
        if not download:
            return name
        path = _fetch(source, LORAS)
    return str(path.absolute())


def _source(name: str) -> Source | None:
    """What is meant on the hub, unless there is such a file or folder here."""
    if Path(name).expanduser().exists():
        return None
    try:
        return Source.parse(name)
    except SettingsError:
        return None


def _fetch(source: Source, root: Path) -> Path:
    line = _Line()
    try:
        path = fetch(source, root, line.event)
    except KeyboardInterrupt:
        line.end()
        note("what was fetched is kept: the same command goes on from there")
        raise
    finally:
        line.end()
    if path is None:
        raise KeyboardInterrupt
    note(f"fetched {path}", prefix="")
    return path


class _Line:
    """Progress as one line that is written over, where a person looks at it."""

    def __init__(self) -> None:
        self._over = sys.stderr is not None and sys.stderr.isatty()
        self._width = 0
        self._next = 0.0

    def event(self, event: messages.Event) -> None:
        if isinstance(event, messages.Plan):
            if event.missing:
                kept = f", {spoken_size(event.here)} of it here" if event.here else ""
                note(
                    f"downloading {len(event.files)} files, {spoken_size(event.total)}{kept}, "
                    f"to {event.path} ({spoken_size(event.free)} free)",
                    prefix="",
                )
        elif isinstance(event, messages.Note):
            self.end()
            note(event.text)
        elif isinstance(event, messages.Fetching):
            self._show(spoken(event))

    def end(self) -> None:
        """The next line is another one."""
        if self._width:
            print(file=sys.stderr, flush=True)
        self._width = 0

    def _show(self, text: str) -> None:
        if self._over:
            print(f"\r{text:<{self._width}}", end="", file=sys.stderr, flush=True)
            self._width = len(text)
        elif time.monotonic() >= self._next:
            note(text, prefix="")
            self._next = time.monotonic() + _PERIOD
