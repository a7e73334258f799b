"""What is done for one prompt and seed, in this process or in one on another machine.

Owns what a process holds loaded: one model or one judge, never both, since either may fill a GPU. Keeps
nothing on disk, and knows no cluster.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from vsf_lib.bench.neggen.artist import Artist, Place
from vsf_lib.bench.neggen.asking import Answer
from vsf_lib.bench.neggen.judges import Judge, JudgeSpec, identity, make_judge
from vsf_lib.bench.neggen.prompts import Item
from vsf_lib.errors import ModelError
from vsf_lib.images.request import Request


def look_at_model(base: Request) -> Place:
    """What the model comes to here."""
    return _artist(base).place


def look_at_judge(spec: JudgeSpec) -> dict[str, Any]:
    """What makes this judge another than others."""
    return identity(spec)


def draw(base: Request, place: Place, request: Request, label: str = "") -> bytes:
    """A picture; raises ModelError where this machine's model is not the one at `place`."""
    _judge.cache_clear()
    artist = _artist(base)
    if artist.place != place:
        raise ModelError(
            f"the model {base.model} is not the same here ({artist.place}) as where it was looked at first "
            f"({place}): put the same files and kind of device on every machine"
        )
    return artist.draw(request, label)


def draw_all(base: Request, place: Place, requests: Sequence[Request]) -> list[bytes]:
    """The pictures of one prompt and seed by all methods that lack it."""
    return [draw(base, place, request) for request in requests]


def ask(spec: JudgeSpec, picture: bytes, item: Item) -> Answer:
    """An answer."""
    return judge_for(spec).ask(picture, item)


def ask_all(spec: JudgeSpec, told: dict[str, Any], pictures: Sequence[bytes], item: Item) -> list[Answer]:
    """The answers to the pictures of one prompt and seed; `told` is the identity that they are kept under."""
    if _identity(spec) != told:
        raise ModelError("the judge is not the same on all machines: put the same files on every one")
    return [ask(spec, picture, item) for picture in pictures]


def judge_for(spec: JudgeSpec) -> Judge:
    """The judge, loaded once; what was drawn with goes first."""
    if _artist.cache_info().currsize:
        _artist.cache_clear()
        gc.collect()
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available():
            torch.cuda.empty_cache()
    return _judge(spec)


@lru_cache(maxsize=1)
def _artist(base: Request) -> Artist:
    return Artist(base)


@lru_cache(maxsize=1)
def _judge(spec: JudgeSpec) -> Judge:
    return make_judge(spec)


@lru_cache(maxsize=1)
def _identity(spec: JudgeSpec) -> dict[str, Any]:
    return identity(spec)
