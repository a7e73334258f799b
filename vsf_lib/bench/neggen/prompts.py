"""What is asked for: prompts, each with what must be missing and two questions about the picture.

Owns the list's format, which is that of the paper's authors, our own list and the one for the small models.
Knows no model and no judge.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

from vsf_lib.bench.pairs import Pair, make_pairs
from vsf_lib.errors import SettingsError
from vsf_lib.files import reason
from vsf_lib.scenes.world import PUNCTUATION

OWN, SCENES = "own", "scenes"
"""The lists that have a name instead of a file."""
_FILE = Path(__file__).parent / "prompts.json"
_SCENES_COUNT = 30
_BARE = ("wheels", "windows", "glasses", "apples", "leaves", "legs", "ears", "arms")
"""Parts of the little world that take no article, and "are"."""

_SILENT = str.maketrans(dict.fromkeys(PUNCTUATION, " "))


@dataclass(frozen=True)
class Item:
    """One line of a list; the names are those of its file."""

    prompt: str
    missing_element: str
    """The negative prompt."""
    question_1: str
    """Whether the prompt's main thing is shown, with or without the element."""
    question_2: str
    """Whether the element is missing: yes is what the negative prompt asked for."""


def load_items(asked: str) -> list[Item]:
    """The list of that name or file; raises SettingsError for what is no such list."""
    if asked == SCENES:
        return [_of_pair(pair) for pair in make_pairs(_SCENES_COUNT)]
    path = _FILE if asked == OWN else Path(asked).expanduser()
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"cannot read the list of prompts {asked}: {reason(error)}; name a JSON file, {OWN} or {SCENES}"
        ) from error
    if isinstance(content, dict):  # one of the authors' files wraps the list
        content = content.get("prompts")
    if not isinstance(content, list) or not content:
        raise SettingsError(f"{asked} holds no list of prompts: it must be a JSON list of objects")
    return [_item(line, f"{asked}, entry {number}") for number, line in enumerate(content, 1)]


def pair_of(item: Item) -> Pair | None:
    """The pair of the little world that an item asks for, or None."""
    return _pairs().get((_as_read(item.prompt), _as_read(item.missing_element)))


def _as_read(text: str) -> str:
    """The words as the small models read them, to whom capitals and the signs of a sentence say nothing."""
    return " ".join(text.lower().translate(_SILENT).split())


def _item(line: object, where: str) -> Item:
    if not isinstance(line, dict):
        raise SettingsError(f"{where} is {line!r:.80}, but must be an object")
    values = {}
    for name in (field.name for field in fields(Item)):
        value = line.get(name)
        if not isinstance(value, str) or not value.strip():
            raise SettingsError(
                f"{where} has no {name}: each entry needs prompt, missing_element, question_1, question_2"
            )
        values[name] = value.strip()
    return Item(**values)


def _of_pair(pair: Pair) -> Item:
    part = pair.negative_prompt
    article = "" if part in _BARE else "an " if part[0] in "aeiou" else "a "
    return Item(
        pair.prompt,
        part,
        f"Does the picture show {pair.prompt}, whether or not {article}{part} can be seen?",
        f"{'Are' if part in _BARE else 'Is'} the {part} missing?",
    )


@cache
def _pairs() -> dict[tuple[str, str], Pair]:
    everything = 10**6
    return {
        (pair.prompt, pair.negative_prompt): pair
        for held_out in (True, False)
        for pair in make_pairs(everything, held_out=held_out)
    }
