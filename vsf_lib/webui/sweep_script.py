"""The script "VSF sweep": one job of the host's drawn once per value, and put together as strips and films.

Owns the order of events, what of an interrupted job counts as finished, and that a picture stands under a
value only if its own parameters say so. How a value reaches a generation is `axes`'; what it asks of the host
comes in through `SweepHost`.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from vsf_lib.errors import GuidanceError, VSFError
from vsf_lib.infotext import read_pairs, write_pairs
from vsf_lib.settings import Settings
from vsf_lib.strip import swept_film, swept_strip
from vsf_lib.sweep import Plan
from vsf_lib.webui import axes
from vsf_lib.webui.notices import notices
from vsf_lib.webui.options import Options
from vsf_lib.webui.request import Checkpoint
from vsf_lib.webui.sweep_request import TITLE, SweepRequest, read

log = logging.getLogger("vsf")

FILMS, LACKS, STOPPED = "VSF sweep films", "VSF sweep lacks", "VSF sweep stopped"
"""Names among the values of a job that its page and the API's clients get; no picture carries them."""
UNGUIDED, NO = "VSF sweep unguided", "no"
"""Written where the strip has no unguided picture."""


class SweepHost(Protocol):
    """What a sweep asks of the WebUI."""

    @property
    def options(self) -> Options:
        """What is chosen in the WebUI's settings."""

    def checkpoint(self, p: Any) -> Checkpoint:
        """What `p` will load, which need not be what is loaded; as far as its file tells."""

    def begin(self, p: Any, jobs: int) -> None:
        """Fixes the seed and counts the steps of `jobs` times `p`."""

    def draw(self, job: Any, note: str) -> tuple[Any, Collection[int]]:
        """The host's result of a job, and which of its batches were interrupted or skipped."""

    def pictures(self, job: Any, drawn: Any) -> list[Image.Image]:
        """One per infotext of a result: without grids, masks and the like."""

    def stopped(self) -> bool:
        """Whether the user wants no more pictures."""

    def font(self, size: int) -> Any:
        """What the host writes on grids with."""

    def save_strip(self, p: Any, job: Any, image: Image.Image, infotext: str, number: int) -> Path | None:
        """Where it was saved; None where `p` saves no grids. Named as picture `number` of `job`, one of its
        cells, would be."""

    def write_film(self, strip: Path, frames: np.ndarray, infotext: str, fps: int) -> Path:
        """Writes an MP4 beside a strip; raises OutputError."""


@dataclass
class _Cell:
    """What was drawn with one value."""

    value: float | None
    """None for the unguided pictures."""
    drawn: Any
    """The host's result."""
    finished: dict[int, tuple[Image.Image, str]]
    """Pictures with their infotexts, by their number in the job: one for each seed."""


def run(p: Any, arguments: Sequence[Any], host: SweepHost) -> Any:
    """The host's result with the strips first; raises VSFError where nothing can be drawn as asked.

    An error after the first picture ends the sweep, and what is finished is returned with a comment.
    """
    asked = read(arguments)
    asked.check(p, host.checkpoint(p), host.options)
    host.begin(p, len(asked.cells))
    result = _Result(p, asked, host)
    for number, value in enumerate(asked.cells, 1):
        label = asked.label(value)
        job = _job(p)
        axes.put(job, **({"method": "off"} if value is None else {asked.sweep.name: value}))
        try:
            cell = _draw(job, value, asked, host, f"{TITLE}: {label} ({number} of {len(asked.cells)})")
        except Exception as error:
            if not result.cells:
                raise
            result.stop(label, error)
            break
        stopped = host.stopped()
        if cell.finished:
            result.add(cell, job)
        elif not stopped:
            result.skip(label)
        if stopped:
            result.stop(label)
            break
    return result.put_together() if result.cells else result.nothing(cell.drawn)


def _draw(job: Any, value: float | None, asked: SweepRequest, host: SweepHost, note: str) -> _Cell:
    drawn, unfinished = host.draw(job, note)
    cell = _Cell(value, drawn, {})
    texts = drawn.infotexts[drawn.index_of_first_image :]
    for number, pair in enumerate(zip(host.pictures(job, drawn), texts, strict=False)):
        if number // job.batch_size not in unfinished:
            _check_label(value, asked, pair[1], job.comments)
            cell.finished[number] = pair
    return cell


def _job(p: Any) -> Any:
    """A copy that shares nothing with `p` which the host, or an extension, writes into."""
    job = copy.copy(p)
    job.do_not_save_grid = True
    job.extra_generation_params = dict(p.extra_generation_params)
    for name in ("latents_after_sampling", "pixels_after_sampling", "extra_result_images"):
        if hasattr(p, name):
            setattr(job, name, [])
    if getattr(p, "styles", None) is not None:
        job.styles = list(p.styles)
    return job


def _check_label(value: float | None, asked: SweepRequest, infotext: str, comments: Iterable[str]) -> None:
    """Raises GuidanceError if the picture is not what would be written under it.

    With the option "skip" a picture that cannot be guided is drawn without.
    """
    told = Settings.from_infotext(read_pairs(infotext.rsplit("\n", 1)[-1]))
    if (None if told is None else getattr(told, asked.sweep.name)) != value:
        why = "; ".join(comment for comment in comments if comment.startswith("VSF"))
        raise GuidanceError(f"the picture of {asked.label(value)} was not guided so: {why or 'see the log'}")


class _Result:
    """The pictures that are there, seed by seed."""

    def __init__(self, p: Any, asked: SweepRequest, host: SweepHost) -> None:
        self.cells: list[_Cell] = []
        self._p, self._asked, self._host = p, asked, host
        self._told: dict[str, Any] = {}
        """Beside the pictures, for the page and the API."""
        self._strips: list[tuple[Image.Image, str]] = []
        self._job: Any = None

    def add(self, cell: _Cell, job: Any) -> None:
        """A cell with finished pictures. Of the jobs the first alone is kept: they hold latents."""
        self.cells.append(cell)
        self._job = self._job or job

    def skip(self, label: str) -> None:
        """The user has skipped a cell."""
        self._say(LACKS, f"{label} was skipped")

    def stop(self, label: str, error: Exception | None = None) -> None:
        """No further cell comes, because of `error`, or because the user wants none."""
        self._say(STOPPED, f"the sweep stopped at {label}", error)

    def nothing(self, drawn: Any) -> Any:
        """Without a finished picture: what the host shows of one that was interrupted or skipped."""
        drawn.extra_generation_params = {**drawn.extra_generation_params, **self._told}
        return drawn

    def put_together(self) -> Any:
        numbers = sorted({number for cell in self.cells for number in cell.finished})
        for number in numbers:
            self._put_together(number)
        found = [(cell, number) for number in numbers for cell in self.cells if number in cell.finished]
        shown = [*self._strips, *(cell.finished[number] for cell, number in found)]
        made = copy.copy(self.cells[0].drawn)
        made.images, made.infotexts = [image for image, _ in shown], [text for _, text in shown]
        made.index_of_first_image, made.info = len(self._strips), made.infotexts[0]
        for name in ("all_prompts", "all_negative_prompts", "all_seeds", "all_subseeds"):
            setattr(made, name, [getattr(cell.drawn, name)[number] for cell, number in found])
        made.extra_generation_params = {
            **made.extra_generation_params,
            **self._told,
            **notices(self._p.comments),  # of all pictures, not of the first alone
        }
        made.comments = "".join(f"{comment}\n" for comment in self._p.comments)
        return made

    def _put_together(self, number: int) -> None:
        """The strip and the film of one seed, if one of its pictures is guided."""
        there = {cell.value: cell for cell in self.cells if number in cell.finished}
        unguided = there.pop(None, None)
        if not there:
            return
        guided = list(there.values())
        # In RGB: the host may have hidden parameters in the alpha channel of what it saves.
        pictures = [cell.finished[number][0].convert("RGB") for cell in guided]
        without = None if unguided is None else unguided.finished[number][0].convert("RGB")
        values = [cell.value for cell in guided if cell.value is not None]
        plan = replace(self._asked.plan, sweep=self._asked.sweep.only(values))
        first = guided[0].finished[number][1]
        sheet = swept_strip(plan.sweep, pictures, without, font_of=self._host.font)
        strip = (sheet, self._infotext(first, plan, film=False, unguided=without is not None))
        self._strips.append(strip)
        try:
            saved = self._host.save_strip(self._p, self._job, *strip, number)
        except Exception as error:  # the pictures are there, whatever becomes of their files
            self._say(LACKS, "the strip was not saved, and there is no film of it", error)
            return
        if not self._asked.film:
            return
        if saved is None:
            self._say(LACKS, "there is no film: it goes beside the strip, and this job saves no grids")
            return
        try:
            told = self._infotext(first, plan, film=True, unguided=without is not None)
            frames = swept_film(plan, pictures, without, font_of=self._host.font)
            film = self._host.write_film(saved, frames, told, plan.fps)
        except Exception as error:
            self._say(LACKS, "there is no film", error)
            return
        self._told.setdefault(FILMS, []).append(str(film))
        self._p.comment(f"film of the sweep: {film}")

    def _infotext(self, first: str, plan: Plan, *, film: bool, unguided: bool) -> str:
        """That of the first guided picture, and what makes a sweep of it: the host pastes all of it back."""
        pairs: dict[str, str | float] = {"Script": TITLE, **plan.extra(film=film)}
        if not unguided:
            pairs[UNGUIDED] = NO
        return f"{first}, {write_pairs(pairs)}"

    def _say(self, name: str, text: str, error: Exception | None = None) -> None:
        log.warning("%s", text, exc_info=None if isinstance(error, VSFError) else error)
        text = text if error is None else f"{text}: {error}"
        self._told[name] = f"{self._told[name]}; {text}" if name in self._told else text
        self._p.comment(text)
