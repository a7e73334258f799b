"""What a page needs to have videos made: the queue, who runs it, the packages, and where things lie.

Owns the life of the runner and what is allowed on this server. Knows no gradio and no host: those come in.
"""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vsf_lib.errors import OutputError, SettingsError
from vsf_lib.presets import preset_for
from vsf_lib.settings import Settings
from vsf_lib.video import overlay
from vsf_lib.video.files import read_infotext
from vsf_lib.video.job import Lora, VideoJob
from vsf_lib.video.process import Worker
from vsf_lib.video.queue import DONE, Queue
from vsf_lib.video.runner import Runner, Surroundings


@dataclass(frozen=True)
class Places:
    """Where a program keeps what belongs to videos."""

    data: Path
    """Queue, lock, packages."""
    outputs: Path
    models: Path | None = None
    """Whose folders are Wan models in diffusers' format, if there is such a place."""
    loras: Path | None = None


@dataclass(frozen=True)
class Rights:
    """What this server lets its visitors do."""

    install: bool = True
    """Install packages."""
    paths: bool = True
    """Name any path on this machine, not only what the lists offer."""
    delete: bool = True


class Desk:
    """One per program."""

    def __init__(
        self,
        places: Places,
        rights: Rights = Rights(),
        around: Surroundings | None = None,
    ) -> None:
        self.places = places
        self.rights = rights
        self._around = around
        self._queue: Queue | None = None
        self._runner: Runner | None = None
        self._guard = threading.Lock()
        self._installing = ""

    @property
    def queue(self) -> Queue:
        """The jobs; raises OutputError where they cannot be kept."""
        with self._guard:
            if self._queue is None:
                self._queue = Queue(self.places.data / "queue.sqlite")
            return self._queue

    @property
    def runner(self) -> Runner:
        """Started when it is first asked for."""
        queue = self.queue
        with self._guard:
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
            runner, self._runner = self._runner, None
        if runner is not None:
            runner.stop()

    # Packages

    def lacks(self) -> tuple[str, ...]:
        """The packages that have to be installed before a video can be made."""
        wanted = overlay.pins()
        return wanted if wanted and overlay.folder(self._packages, wanted) is None else ()

    @property
    def installing(self) -> str:
        """The last line of an installation that runs, or nothing."""
        return self._installing

    def install(self) -> None:
        """Installs them; raises OutputError, and where this server forbids it SettingsError."""
        if not self.rights.install:
            raise SettingsError(
                "packages are not installed through a public page: start the WebUI without --listen or "
                "--share once, or with --enable-insecure-extension-access"
            )

        def say(line: str) -> None:
            self._installing = line.strip()[:200] or self._installing

        self._installing = "beginning"
        try:
            overlay.install(self._packages, overlay.pins(), say)
        finally:
            self._installing = ""

    # Jobs

    def add(self, values: dict[str, Any]) -> int:
        """Puts a job at the end of the queue; raises SettingsError, PromptError, OutputError."""
        job = self.job(values)
        lacking = self.lacks()
        if lacking:
            raise SettingsError("the packages for videos are not installed yet: press Install first")
        id = self.queue.add(job)
        self.runner.wake()
        return id

    def job(self, values: dict[str, Any]) -> VideoJob:
        """The job in a form's values: its own names, those of Settings, `loras` as lines, seed -1 random."""
        given = dict(values)
        own = {name: given.pop(name) for name in list(given) if name in VideoJob.model_fields}
        lines = [line for line in str(own.get("loras") or "").splitlines() if line.strip()]
        own["loras"] = [self._placed(Lora.parse(line)).model_dump() for line in lines]
        own["model"] = self._model(str(own.get("model") or ""))
        if int(own.get("seed", -1)) < 0:
            own["seed"] = secrets.randbelow(2**32)
        return VideoJob.create(**own, settings=Settings.create(**given).model_dump())

    def restored(self, path: Path) -> VideoJob:
        """The job that a file was made from."""
        return VideoJob.from_infotext(read_infotext(path))

    def delete(self, id: int) -> None:
        """Forgets a finished job and deletes its file."""
        if not self.rights.delete:
            raise SettingsError("files are not deleted through a public page")
        entry = self.queue.entry(id)
        self.queue.remove(id)
        if entry.state == DONE and entry.path:
            path = Path(entry.path)
            if not path.resolve().is_relative_to(self.places.outputs.resolve()):
                raise OutputError(f"{path} lies outside of {self.places.outputs}, so it is left alone")
            for file in (path, path.with_suffix(".txt")):
                file.unlink(missing_ok=True)

    # What there is to choose

    def models(self) -> list[str]:
        """Names of the models in the models' folder, and the hub ids that are usual."""
        return [*self._names(self.places.models, "*/model_index.json"), *_HUB]

    def loras(self) -> list[str]:
        """Names of the LoRA files in the LoRAs' folder."""
        root = self.places.loras
        if root is None or not root.is_dir():
            return []
        return sorted(path.relative_to(root).as_posix() for path in root.rglob("*.safetensors"))

    def preset(self, model: str, *, strong: bool = False) -> Settings:
        """Suggested values for a model."""
        return preset_for(model, strong=strong).settings()

    @property
    def _packages(self) -> Path:
        return self.places.data / "packages"

    def _worker(self) -> Worker:
        wanted = overlay.pins()
        return Worker(overlay=overlay.folder(self._packages, wanted) if wanted else None)

    def _model(self, name: str) -> str:
        if not name.strip():
            raise SettingsError("no model is chosen: choose one, or give a folder or hub id")
        root = self.places.models
        if root is not None and name in self._names(root, "*/model_index.json"):
            return str(root / name)
        if not self.rights.paths and name not in _HUB:
            raise SettingsError(f"{name} is not among the models of this server")
        return name.strip()

    def _placed(self, lora: Lora) -> Lora:
        root = self.places.loras
        if root is not None and lora.file in self.loras():
            return Lora(file=str(root / lora.file), weight=lora.weight)
        if not self.rights.paths:
            raise SettingsError(f"{lora.file} is not among the LoRAs of this server")
        return lora

    @staticmethod
    def _names(root: Path | None, pattern: str) -> list[str]:
        if root is None or not root.is_dir():
            return []
        return sorted(path.parent.name for path in root.glob(pattern))


_HUB = ("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "Wan-AI/Wan2.1-T2V-14B-Diffusers")
