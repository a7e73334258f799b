"""The small models' own judge network in the protocol's place: it reads pictures of the little world only."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from vsf_lib.bench.neggen.asking import Answer
from vsf_lib.bench.neggen.prompts import Item, pair_of
from vsf_lib.errors import SettingsError
from vsf_lib.scenes.judge import Judge
from vsf_lib.scenes.model import SIZE


class SceneJudge:
    """The network that `bench scenes` uses, with its definitions of the three numbers."""

    def __init__(self) -> None:
        self._judge = Judge.load()

    def ask(self, picture: bytes, item: Item) -> Answer:
        """Of a picture of 64x64 pixels; quality is 1 for a clean drawing and 0 for another."""
        with Image.open(io.BytesIO(picture), formats=["PNG"]) as opened:
            image = opened.convert("RGB")
        check_size(image.size)
        check_items([item])
        pair = pair_of(item)
        assert pair is not None
        verdict = self._judge(np.asarray(image)[None])[0]
        return Answer(pair.positive(verdict), pair.negative(verdict), float(verdict.clean))


def check_items(items: list[Item]) -> None:
    """Raises SettingsError for what the network cannot judge."""
    for item in items:
        if pair_of(item) is None:
            raise SettingsError(
                f"the judge scenes knows no {item.prompt!r} without {item.missing_element!r}: it reads "
                "pictures of the little world only (--prompts scenes); choose another --judge"
            )


def check_size(size: tuple[int, int]) -> None:
    """The same for a picture's size."""
    if size != (SIZE, SIZE):
        raise SettingsError(
            f"the judge scenes reads {SIZE}x{SIZE} pixels, not {size[0]}x{size[1]}: leave out --size, or "
            "choose another --judge"
        )
