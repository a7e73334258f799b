"""What a page needs to have videos made: the queue, who runs it, the packages, and where things lie.

Owns the life of the runner and what is allowed on this server. Knows no gradio and no host: those come in.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from vsf_lib.errors import OutputError, SettingsError
from vsf_lib.files import check_keeps, show_folder
from vsf_lib.pages.numbers import settings_given
from vsf_lib.preset_choice import strengths
from vsf_lib.presets import WAN
from vsf_lib.recipes import WAN21, Example, offered, recipe_named
from vsf_lib.seeds import seed_given
from vsf_lib.settings import Settings
from vsf_lib.video import overlay
from vsf_lib.video.comparison import delete_still
from vsf_lib.video.download.catalogue import Source
from vsf_lib.video.download.downloads import Downloads
from vsf_lib.video.files import delete_video, read_infotext
from vsf_lib.video.job import Lora, VideoJob
from vsf_lib.video.loading import check
from vsf_lib.video.places import EVERYTHING, Places, Rights
from vsf_lib.video.process import Worker
from vsf_lib.video.queue import CANCELLED, DONE, FAILED, RUNNING, WAITING, Queue
from vsf_lib.video.runner import Runner, Surroundings
from vsf_lib.video.shelf import PARTS, Shelf


class Desk:
    """One per program."""

    def __init__(
        self,
        places: Places,
        rights: Rights = EVERYTHING,
        around: Surroundings | None = None,
    ) -> None:
        self.places = places
        self.rights = rights
        self._around = around or Surroundings()
        self.shelf = Shelf(places.models, places.loras, places.files, rights.paths)
        self.downloads = Downloads(places.models, places.loras, self._overlay, files=places.downloads or None)
        self._queue: Queue | None = None
        self._runner: Runner | None = None
        self._guard = threading.Lock()
        self._installing = ""
        self._closed = False

    @property
    def queue(self) -> Queue:
        """The jobs; raises OutputError where they cannot be kept."""
        with self._guard:
            if self._queue is None:
                self._queue = Queue(self.places.data / "queue.sqlite")
            return self._queue

    @property
    def runner(self) -> Runner:
        """Started when it is first asked for; raises SettingsError after `close`."""
        queue = self.queue
        with self._guard:
            if self._closed:
                raise SettingsError("this page is being closed: reload it")
            if self._runner is None:
                self._runner = Runner(
                    queue,
                    self.places.outputs,
                    lock=self.places.data / "queue.lock",
                    worker=self._worker,
                    around=self._around,
                )
                self._runner.start()
            return self._runner

    def close(self) -> None:
        """Ends the runner and its worker."""
        with self._guard:
            self._closed = True
            runner, self._runner = self._runner, None
        if runner is not None:
            runner.stop()
        self.downloads.close()

    # Packages

    def lacks(self) -> tuple[str, ...]:
        """The packages that have to be installed before a video can be made."""
        return overlay.pins() if self._overlay() is None else ()

    @property
    def installing(self) -> str:
        """The last line of an installation that runs, or nothing."""
        return self._installing

    def install(self) -> None:
        """Installs them; raises OutputError, and where this server forbids it SettingsError."""
        if not self.rights.install:
            raise SettingsError(f"packages are not installed through a public page: {self.rights.privately}")

        def say(line: str) -> None:
            self._installing = line.strip()[:200] or self._installing

        if self._installing:
            raise SettingsError("the packages are being installed: wait for that")
        self._installing = "beginning"
        try:
            overlay.install(self._packages, overlay.pins(), say)
        finally:
            self._installing = ""

    # Jobs

    def add(self, values: dict[str, Any]) -> int:
        """Puts a job at the end of the queue; raises SettingsError, PromptError, ModelError, OutputError."""
        job = self.job(values)
        if self.lacks():
            raise SettingsError("the packages for videos are not installed yet: press Install first")
        check(job)
        check_keeps(self.places.outputs, "the video", "" if self.rights.paths else "its folder")
        id = self.queue.add(job)
        self.runner.wake()
        return id

    def job(self, values: dict[str, Any]) -> VideoJob:
        """The job in a form's values: its own names, those of Settings, `loras` as lines, seed -1 random."""
        own = {name: value for name, value in values.items() if name in VideoJob.model_fields}
        unknown = {*values} - {*own} - {*Settings.model_fields}
        given = settings_given(values) | {name: values[name] for name in unknown}
        lines = map(str.strip, str(own.get("loras") or "").splitlines())
        loras = [Lora.parse(line) for line in lines if line.lower() not in ("", "none")]
        own["loras"] = [{"file": self.shelf.lora(one.file), "weight": one.weight} for one in loras]
        own["model"] = self.shelf.model(str(own.get("model") or ""))
        for part in PARTS:
            own[part] = self.shelf.part(part, str(own.get(part) or ""), own["model"])
        for name, automatic in AUTOMATIC.items():
            if name in own and own[name] in (None, automatic):
                own[name] = None
        own["seed"] = seed_given(own.get("seed"))
        settings = Settings.create(**given)
        if settings.method == "off" or not settings.negative_prompt:
            own["compare"] = False  # both halves would be the same
        return VideoJob.create(**own, settings=settings.model_dump())

    def restored(self, path: Path) -> VideoJob:
        """The job that a file was made from; raises SettingsError, with the file's name alone."""
        try:
            return VideoJob.from_infotext(read_infotext(path))
        except SettingsError as error:
            raise SettingsError(str(error).replace(str(path), path.name)) from error

    def save(self, id: int, values: dict[str, Any]) -> None:
        """Another job in the place of the one that waits under that number."""
        job = self.job(values)
        check(job)
        self.queue.edit(id, job)

    def cancel(self, id: int) -> str:
        """Stops the job that runs, or takes one that waits out of the row; says what happened."""
        entry = self.queue.entry(id)
        if entry.state == WAITING:
            self.queue.withdraw(id)
            return f"job {id} is cancelled before it began"
        if entry.state != RUNNING:
            raise SettingsError(f"job {id} is {entry.state}: there is nothing to cancel")
        if self.runner.state.elsewhere:
            raise SettingsError(f"job {id} is made by another program on this machine: cancel it there")
        self.runner.cancel(id)
        return f"job {id} is being stopped"

    def delete(self, id: int) -> None:
        """Deletes the file of a finished job and forgets it."""
        if not self.rights.delete:
            raise SettingsError("files are not deleted through a public page")
        entry = self.queue.entry(id)
        if entry.state in (WAITING, RUNNING):
            raise SettingsError(f"job {id} is {entry.state} and has no file yet")
        if entry.state == DONE and entry.path:
            path = self._inside(entry.path)
            delete_still(path, entry.infotext)
            delete_video(path)
        self.queue.remove(id, DONE, FAILED, CANCELLED)

    def open_folder(self, id: int = 0) -> None:
        """Shows the folder of a finished job's file; 0 and others show the folder of all."""
        if not self.rights.open_folder:
            raise SettingsError("folders are not opened through this page")
        path = self.queue.entry(id).path if id else ""
        folder = self._inside(path).parent if path else self.places.outputs
        show_folder(folder)

    def _inside(self, name: str) -> Path:
        path = Path(name)
        if not path.resolve().is_relative_to(self.places.outputs.resolve()):
            raise OutputError(f"{path} lies outside of {self.places.outputs}, so it is left alone")
        return path

    @property
    def frees(self) -> str:
        """The label of the button for `free`, or nothing where there is nothing to free."""
        return self._around.frees if self.rights.free else ""

    def free(self) -> None:
        """Gives memory of this program back; raises SettingsError while it is in use."""
        if not self.rights.free:
            raise SettingsError("memory is not freed through a public page")
        self._around.free()

    def fetch(self, text: str, shown: str = "") -> None:
        """Asks for the size of a download, or starts it if the pressed button `shown` said that size.

        Raises SettingsError.
        """
        if not self.rights.install:
            raise SettingsError(f"nothing is downloaded through a public page: {self.rights.privately}")
        self.downloads.press(Source.parse(text), shown)

    def strengths(self, model: str, *, strong: bool = False, method: str = "vsf") -> dict[str, Any]:
        """Suggested values for a method and a model, whose folder may have any name: Wan's for all."""
        return strengths(model, method, strong=strong, usual=WAN)

    def recipes(self, model: str) -> list[tuple[str, str]]:
        """The recipes that a model can show: what they do, and their names."""
        return offered(model, usual=WAN21)

    def example(self, recipe: str, model: str) -> Example:
        """The recipe's example for that model; raises SettingsError."""
        return recipe_named(recipe).example(model, usual=WAN21)

    @property
    def _packages(self) -> Path:
        return self.places.data / "packages"

    def _overlay(self) -> Path | None:
        wanted = overlay.pins()
        return overlay.folder(self._packages, wanted) if wanted else None

    def _worker(self) -> Worker:
        return Worker(overlay=self._overlay())


AUTOMATIC = {"flow_shift": 0, "drop_frames": -1}
"""What stands for None in a form's fields of numbers."""
