"""Draws the pictures of the protocol with any model that `generate` can draw with, one at a time.

Owns what a picture depends on. How a model is found, loaded and drawn with is the command line's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from vsf_lib import __version__
from vsf_lib.bench.drawing import Method
from vsf_lib.bench.neggen.keys import fingerprint
from vsf_lib.bench.neggen.prompts import Item
from vsf_lib.errors import ModelError, SettingsError, is_out_of_memory
from vsf_lib.images.loading import choose_machine, fetch, load
from vsf_lib.images.model import Folder, Model, find_model
from vsf_lib.images.pictures import draw_with
from vsf_lib.images.request import Request
from vsf_lib.metadata import format_parameters, png_bytes


@dataclass(frozen=True)
class Place:
    """What a model comes to on the machine that draws with it."""

    fingerprint: str
    dtype: str
    flux: bool
    distilled: bool
    size: tuple[int, int]


class Artist:
    """A model, loaded with its first picture. Raises ModelError or SettingsError as `generate` does."""

    def __init__(self, base: Request) -> None:
        self._model: Model = find_model(base.model, base.parts)
        self._machine = choose_machine(base, self._model)
        self._folder: Folder = fetch(self._model)
        self._size = self._folder.size(base.size)

    @cached_property
    def place(self) -> Place:
        """What pictures depend on beside their requests."""
        folder, places = self._folder, [self._folder.path]
        if folder.file is not None:
            places.append(folder.file.path)
        return Place(
            fingerprint=self._model.fingerprint() or fingerprint(*places),
            dtype=str(self._machine.dtype).removeprefix("torch."),
            flux=folder.flux,
            distilled=folder.distilled,
            size=self._size,
        )

    @cached_property
    def _pipe(self) -> Any:
        return load(self._folder, self._machine, quiet=True)

    def draw(self, request: Request, label: str = "") -> bytes:
        """The PNG file of a request for one picture, with its parameters."""
        try:
            drawn = list(
                draw_with(self._pipe, request, self._model, self._folder, self._machine, label=label)
            )
        except Exception as error:
            if is_out_of_memory(error):
                raise ModelError(
                    "out of memory: choose a smaller --size, --dtype bfloat16, --offload model or sequential"
                ) from error
            raise
        return png_bytes(drawn[0].image, format_parameters(drawn[0].parameters))


def request_for(base: Request, place: Place, method: Method, item: Item, seed: int) -> Request:
    """One picture: `item` by `method`. Raises SettingsError where the model cannot be drawn with so."""
    cfg = method.guidance_scale > 1
    if cfg and place.flux:
        raise SettingsError(f"the method {method.name} is of CFG, which Flux models have not: leave it out")
    settings = method.settings
    if cfg or settings.method != "off":
        settings = settings.changed(negative_prompt=item.missing_element)
    if settings.method != "off" and not settings.guided_steps(base.steps):
        raise SettingsError(
            f"the method {method.name} guides none of {base.steps} steps: change its start or end, or --steps"
        )
    request = replace(
        base, prompt=item.prompt, settings=settings, guidance_scale=method.guidance_scale, seed=seed
    )
    return replace(request.fitted(flux=place.flux), notes=())


def depends_on(request: Request, place: Place) -> dict[str, Any]:
    """Everything that the pixels of a request depend on, as plain JSON."""
    told: dict[str, Any] = {
        "model": place.fingerprint,
        "prompt": request.prompt,
        "settings": request.settings.infotext(),
        "seed": request.seed,
        "steps": request.steps,
        "size": list(place.size),
        "dtype": place.dtype,
        "version": __version__,
    }
    if request.guidance_scale > 1:
        told |= {"cfg": request.guidance_scale, "cfg negative": request.cfg_negative}
    if place.distilled:
        told["distilled"] = request.distilled
    return told
