"""What a judge that reads and writes text is asked about a picture, and how its reply is read.

Owns the wording, the reading and the second try. A reply that cannot be read is no answer: never a yes, never
a no. Knows no endpoint and no model.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image

from vsf_lib.bench.neggen.prompts import Item

TRIES = 3
SIDE = 448
"""Pixels of the longer side of the picture that a judge gets, as in the paper."""
QUESTIONS = ("positive", "negative", "quality")
"""In the order of the benchmarks' columns."""
REMINDER = (
    "That could not be read. Reply again with the JSON object alone: "
    '{"answer_1": true or false, "answer_2": true or false, "quality": a number from 0 to 1}'
)
_NAMES = ("answer_1", "answer_2", "quality")
_WORDS = {"true": True, "yes": True, "false": False, "no": False}
_LINE = r"[\"'*]*{name}[\"'*]*\s*[:=]\s*[\"'*]*({value})(?!\s*(?:or\b|/|\|))"
"""Not where a choice follows, as when the question is repeated."""


@dataclass(frozen=True)
class Answer:
    """What a judge said of a picture; None is what could not be read."""

    positive: bool | None
    """The prompt's main thing is shown."""
    negative: bool | None
    """The element that the negative prompt names is missing."""
    quality: float | None
    replies: Sequence[str] = ()
    """In its own words, of all tries."""

    @property
    def values(self) -> tuple[float | None, ...]:
        """The three as numbers, in the order of QUESTIONS."""
        return tuple(None if x is None else float(x) for x in (self.positive, self.negative, self.quality))

    def as_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {
            "positive": self.positive,
            "negative": self.negative,
            "quality": self.quality,
            "replies": list(self.replies),
        }


class NoReplyError(Exception):
    """What came back is not what a model said: its text tells what it is. It is never read for an answer."""


class Talker(Protocol):
    """A judge that reads and writes text."""

    def reply(self, picture: bytes, turns: Sequence[str]) -> str:
        """What it says to a PNG and a conversation, in which every second turn is its own.

        Raises NoReplyError.
        """


def question(item: Item) -> str:
    """Everything that a judge is told about the picture."""
    return (
        "Look at the picture and answer about what you see in it.\n"
        f"answer_1: {item.question_1} Say true if the thing itself is there, even where the part that the "
        "next question is about is missing from it; say false if it is not there or is something else.\n"
        f"answer_2: {item.question_2} Say true if it is missing or cannot be seen, false if it is there.\n"
        "quality: how well made the picture is, from 0 (spoilt) to 1 (flawless) in steps of 0.1. A part that "
        "is missing is meant to be, so it takes nothing off.\n"
        "Reply with one JSON object and nothing else: "
        '{"answer_1": true or false, "answer_2": true or false, "quality": number}'
    )


def ask(talker: Talker, picture: bytes, item: Item) -> Answer:
    """Asks, and asks again where the reply could not be read; what stays unread is None."""
    shown, turns = scaled(picture), [question(item)]
    found: list[Any] = [None] * len(_NAMES)
    replies: list[str] = []
    for _ in range(TRIES):
        try:
            replies.append(talker.reply(shown, turns))
        except NoReplyError as error:
            replies.append(str(error))
            turns += ["", REMINDER]
            continue
        found = [new if old is None else old for old, new in zip(found, read_reply(replies[-1]), strict=True)]
        if None not in found:
            break
        turns += [replies[-1], REMINDER]
    positive, negative, quality = found
    return Answer(positive, negative, quality, replies)


def read_reply(text: str) -> tuple[bool | None, bool | None, float | None]:
    """The three values of a reply; None for each that is not there, or there in more than one way."""
    content = _last_object(text)
    if content is None:
        content = {name: _from_lines(text, name) for name in _NAMES}
    return _truth(content.get("answer_1")), _truth(content.get("answer_2")), _share(content.get("quality"))


def scaled(picture: bytes) -> bytes:
    """The PNG with its longer side at SIDE pixels."""
    with Image.open(io.BytesIO(picture), formats=["PNG"]) as opened:
        image = opened.convert("RGB")
    ratio = SIDE / max(image.size)
    width, height = (max(1, round(side * ratio)) for side in image.size)
    buffer = io.BytesIO()
    image.resize((width, height), Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()


def _last_object(text: str) -> Mapping[str, Any] | None:
    """The last JSON object with one of our names in it: what stands before it is thinking aloud."""
    decoder, found, end = json.JSONDecoder(), None, 0
    for match in re.finditer(r"\{", text):
        if match.start() < end:
            continue  # inside of one that was read
        try:
            content, end = decoder.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            continue
        if isinstance(content, dict) and any(name in content for name in _NAMES):
            found = content
    return found


def _from_lines(text: str, name: str) -> str | None:
    """The value after a name in plain text, such as `answer_1: yes`; None where there are several."""
    value = r"\d*\.?\d+(?![\d.]*\d)" if name == "quality" else r"(?:true|false|yes|no)\b"
    values = {
        match.lower() for match in re.findall(_LINE.format(name=name, value=value), text, re.IGNORECASE)
    }
    return values.pop() if len(values) == 1 else None


def _truth(value: object) -> bool | None:
    if isinstance(value, bool):
        return value
    return _WORDS.get(value.strip().lower()) if isinstance(value, str) else None


def _share(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if 0 <= number <= 1 else None
