"""What the page for pictures needs: the row of jobs, models, history, and from a form to a job and back.

Owns what is checked before a job waits. Knows no gradio.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vsf_lib.errors import ModelError, SettingsError
from vsf_lib.files import check_keeps
from vsf_lib.images.asked import Asked
from vsf_lib.images.model import Model, find_model
from vsf_lib.images.remarks import other_weights
from vsf_lib.images.request import MOST_STEPS, Request
from vsf_lib.images.resolve import resolve
from vsf_lib.images.row import Row
from vsf_lib.jobs.locks import turn
from vsf_lib.pages.numbers import count, optional, settings_given
from vsf_lib.preset_choice import strengths
from vsf_lib.recipes import FLUX, Example, family, offered, recipe_named
from vsf_lib.scenes.model import MODELS, check_words
from vsf_lib.seeds import seed_given
from vsf_lib.settings import SHARING
from vsf_lib.studio.history import History
from vsf_lib.studio.shelf import ImageShelf
from vsf_lib.sweep import INFOTEXT, MOST_FPS, swept_name
from vsf_lib.video.download.landing import is_cached
from vsf_lib.video.files import read_infotext
from vsf_lib.video.job import VIDEO
from vsf_lib.video.queue import Entry
from vsf_lib.video.runner import Surroundings

_OWN = ("prompt", "model", "parts", "steps", "seed", "size", "guidance_scale", "device", "dtype", "offload")


class ImageDesk:
    """One per program."""

    def __init__(
        self,
        outputs: Path,
        models: Path | None = None,
        *,
        paths: bool = True,
        row: Callable[..., Row] = Row,
    ) -> None:
        """`paths`: whether visitors may name any path and hub id."""
        self.outputs = outputs
        self.shelf = ImageShelf(models, paths)
        self.history = History(outputs)
        self.around = BesideVideos(self)
        self._row_class = row
        self._row: Row | None = None
        self._guard = threading.Lock()
        self._confirmed: set[str] = set()
        """Models that were agreed to be downloaded."""

    @property
    def row(self) -> Row:
        """The row of jobs, started when it is first asked for."""
        with self._guard:
            if self._row is None:
                self._row = self._row_class(self.outputs, turn=self.around.picture)
                self._row.start()
            return self._row

    def close(self) -> None:
        """Ends what is drawn."""
        with self._guard:
            row, self._row = self._row, None
        if row is not None:
            row.close()

    def make_room(self) -> None:
        """Gives the memory of a large model back, while no picture has its turn."""
        if self._row is not None:
            self._row.make_room()

    def add(self, values: Mapping[str, Any], *, sweep: bool = False) -> int:
        """Puts a form's values into the row; raises SettingsError, PromptError, ModelError, OutputError."""
        asked = self.asked(values, sweep=sweep)
        request = resolve(asked)
        if request.model in MODELS:
            check_words(request.prompt, "prompt")
            check_words(request.settings.negative_prompt, "negative prompt")
        model = find_model(request.model, request.parts)
        if model.folder is not None:
            request.fitted(flux=model.folder.flux)
            model.folder.size(request.size)
        check_keeps(self.outputs, "the picture", "" if self.shelf.paths else "its folder")
        if model.folder is None:
            self._confirm(model.name)
        return self.row.add(asked)

    def _confirm(self, id: str) -> None:
        """Raises SettingsError the first time that a model would be downloaded."""
        if id in self._confirmed or is_cached(id):
            return
        self._confirmed.add(id)
        raise SettingsError(
            f"{id} is not on this machine: press the button again to fetch it from Hugging Face, which may "
            "be tens of gigabytes"
        )

    def asked(self, values: Mapping[str, Any], *, sweep: bool = False) -> Asked:
        """What a form's values ask for: those of `Settings` by their names, and the page's own."""
        text = str(values.get("sweep") or "")
        swept = swept_name(text) if sweep else ""
        given = settings_given({name: value for name, value in values.items() if name != swept})
        own: dict[str, Any] = {name: values.get(name) for name in _OWN}
        own["model"] = self.shelf.model(str(own["model"] or ""))
        own["parts"] = self.shelf.part(str(own["parts"] or ""))
        own["size"] = str(own["size"] or "").strip() or None
        own["guidance_scale"] = optional("guidance scale", str(own["guidance_scale"] or ""))
        own["steps"] = count("steps", own["steps"], MOST_STEPS)
        own["seed"] = seed_given(own["seed"])
        negative = bool(str(given.get("negative_prompt") or "").strip())
        guides = negative and given.get("method") != "off"
        asked = Asked(**own, given=given)
        if sweep:
            fps = count("values per second of the film", values.get("fps"), MOST_FPS)
            return replace(asked, sweep=text, given=given, fps=fps, loop=bool(values.get("loop")))
        return replace(
            asked,
            compare=guides and bool(values.get("compare")),
            heatmap=guides and bool(values.get("heatmap")) and given.get("method") in SHARING,
        )

    def restored(self, path: Path) -> Restored:
        """What a file was made from, a picture's or that of a sweep's film; raises SettingsError."""
        told = read_infotext(path)
        film = path.suffix.lower() in (".mp4", ".webm", ".gif")
        if VIDEO in told.split("\n")[-1] or (film and f"{INFOTEXT}:" not in told):
            raise SettingsError(f"{path.name} is of a video: drop it in the tab Video")
        request = resolve(Asked(from_image=str(path)))
        notes = [note.replace(str(path), path.name) for note in request.notes]
        found = self._found(request)
        if found is None:
            notes.append(
                f"{path.name} was drawn with {request.model}, which is not here: the model stays as it is"
            )
        else:
            notes += other_weights(request, found, path.name)
        folder = None if found is None else found.folder
        flux = family(request.model) == FLUX if folder is None else folder.flux
        return Restored(replace(request, notes=tuple(notes)), flux, here=found is not None)

    def _found(self, request: Request) -> Model | None:
        """The model of a file, or nothing where this page cannot draw with it."""
        if not self.shelf.paths and self.shelf.name(request.model) not in self.shelf.names():
            return None
        try:
            return find_model(request.model, request.parts)
        except ModelError:
            return None

    def strengths(self, model: str, *, strong: bool = False, method: str = "vsf") -> dict[str, Any]:
        """Suggested values for a method and a model."""
        return strengths(model, method, strong=strong)

    def recipes(self, model: str) -> list[tuple[str, str]]:
        """The recipes that a model can show: what they do, and their names."""
        return offered(model)

    def example(self, recipe: str, model: str) -> Example:
        """The recipe's example for that model; raises SettingsError."""
        return recipe_named(recipe).example(self.shelf.model(model))


@dataclass(frozen=True)
class Restored:
    """What a file was made from."""

    request: Request
    flux: bool
    here: bool = True
    """Whether its model can be chosen on this page."""

    @property
    def guidance_scale(self) -> float:
        """That of the model's kind."""
        return self.request.distilled if self.flux else self.request.guidance_scale


class BesideVideos(Surroundings):
    """Pictures and videos take turns, because both want all of the machine."""

    def __init__(self, desk: ImageDesk) -> None:
        self._desk = desk
        self._lock = threading.Lock()

    def picture(self, stopped: Callable[[], bool]) -> AbstractContextManager[None]:
        """Entered around a picture."""
        return turn(self._lock, stopped)

    def notes(self, entry: Entry) -> tuple[str, ...]:
        return ("pictures wait until this video is done",)

    @contextmanager
    def job(self, entry: Entry, stopped: Callable[[], bool]) -> Iterator[None]:
        with turn(self._lock, stopped):
            self._desk.make_room()
            yield
