"""Drawing a sweep, and writing it as a strip of pictures or as a film.

Owns what is told while it is drawn. The pictures are those that `generate` draws alone, to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from vsf_lib.images.loading import Machine
from vsf_lib.images.model import Folder, Model
from vsf_lib.images.pictures import NOBODY, Picture, Watch, draw_with
from vsf_lib.images.plans import FILMS
from vsf_lib.images.request import Request
from vsf_lib.metadata import write_png
from vsf_lib.settings import Settings
from vsf_lib.strip import swept_film, swept_strip
from vsf_lib.sweep import WITHOUT, Plan


@dataclass(frozen=True, kw_only=True)
class SweepPicture(Picture):
    """A whole sweep of one seed. `image` is the picture without guidance, `pictures` are the guided ones."""

    plan: Plan
    pictures: tuple[Image.Image, ...]
    each: tuple[float, ...]
    """Seconds that each of them took."""

    @property
    def told(self) -> dict[str, Any]:
        """What `--json` says of it beside path, infotext and seconds of the whole."""
        sweep = self.plan.sweep
        return {
            "sweep": sweep.text,
            "values": list(sweep.values),
            "value_seconds": [round(seconds, 3) for seconds in self.each],
        }

    def write(self, path: Path, infotext: str) -> None:
        """Writes the film or the strip, by the name's ending; raises OutputError."""
        if path.suffix.lower() not in FILMS:
            write_png(path, swept_strip(self.plan.sweep, self.pictures, self.image), infotext)
            return
        from vsf_lib.video.files import write_video

        write_video(path, swept_film(self.plan, self.pictures, self.image), infotext, fps=self.plan.fps)


class Count(Protocol):
    """Counts the pictures of a sweep while they are drawn."""

    def label(self, name: str) -> str:
        """The next one's number, and its name."""

    def done(self) -> None:
        """It is drawn."""


def draw_sweep(
    pipe: Any,
    request: Request,
    plan: Plan,
    model: Model,
    folder: Folder,
    machine: Machine,
    *,
    film: bool,
    count: Count,
    watch: Watch = NOBODY,
) -> Iterator[SweepPicture]:
    """One sweep for each seed of the request, with a loaded model. `film` is what its infotext says it is.

    `count` counts `pictures_in` of them for each seed.
    """
    frames = plan.sweep.settings(request.settings)
    labels = [WITHOUT, *map(plan.sweep.label, plan.sweep.values)]
    for number in range(request.batch):
        drawn: list[Picture] = []
        for settings, label in zip([Settings(method="off"), *frames], labels, strict=True):
            alone = replace(request, settings=settings, seed=request.seed + number, batch=1, sweep=None)
            drawn += draw_with(pipe, alone, model, folder, machine, label=count.label(label), watch=watch)
            count.done()
        still, *guided = drawn
        told = guided[0].parameters
        yield SweepPicture(
            image=still.image,
            parameters=replace(told, extra={**told.extra, **plan.extra(film=film)}),
            seconds=sum(picture.seconds for picture in drawn),
            plan=plan,
            pictures=tuple(picture.image for picture in guided),
            each=tuple(picture.seconds for picture in guided),
        )


def pictures_in(plan: Plan) -> int:
    """How many pictures a sweep is made of, with the one without guidance."""
    return 1 + len(plan.sweep.values)
