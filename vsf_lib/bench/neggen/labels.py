"""What people saw on the pictures, read from a file, to measure the judge by.

Owns the file's format: a JSON list of objects with `picture` (a file's name in the folder of pictures) or
with `prompt`, `method` and `seed`; and with any of `positive`, `negative`, `quality`, each true, false, a
number from 0 to 1, or null for "cannot tell".
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from vsf_lib.bench.neggen.asking import QUESTIONS
from vsf_lib.bench.neggen.scores import agreement
from vsf_lib.errors import SettingsError
from vsf_lib.files import reason

Label = Mapping[str, Any]


def read_labels(path: Path) -> list[Label]:
    """The labels of a file; raises SettingsError naming the one that is wrong."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"--labels: cannot read {path}: {reason(error)}") from error
    if not isinstance(content, list) or not content:
        raise SettingsError(f"--labels: {path} holds no list of labels")
    for place, label in enumerate(content, 1):
        _check(label, f"--labels: {path}, entry {place}")
    return content


def compare(labels: Sequence[Label], pictures: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The judge's agreement with the labels per question; `pictures` are the results' own list.

    A label may name a picture of another run: those are counted and left out. SettingsError if all do.
    """
    by_file = {picture["picture"]: picture for picture in pictures}
    by_place = {(p["prompt"], p["method"], p["seed"]): p for p in pictures}
    found = []
    for label in labels:
        if "picture" in label:
            picture = by_file.get(PurePath(str(label["picture"]).replace("\\", "/")).name)
        else:
            picture = by_place.get((label["prompt"], label["method"], label["seed"]))
        if picture is not None:
            found.append((label, picture))
    if not found:
        raise SettingsError(
            "--labels: none of them is of a picture of this run: look at the names of pictures, or at the "
            "prompt, method and seed, as the results have them"
        )
    return {
        "unknown": len(labels) - len(found),
        **{
            question: agreement(
                [picture[question] for _, picture in found],
                [_value(label.get(question)) for label, _ in found],
            )
            for question in QUESTIONS
        },
    }


def _check(label: object, where: str) -> None:
    if not isinstance(label, dict):
        raise SettingsError(f"{where} is {label!r:.80}, but must be an object")
    if "picture" not in label and not {"prompt", "method", "seed"} <= label.keys():
        raise SettingsError(f"{where} names no picture: it needs picture, or prompt, method and seed")
    if any(isinstance(label.get(name), list | dict) for name in ("picture", "prompt", "method", "seed")):
        raise SettingsError(f"{where} names its picture by a list or an object: use plain values")
    for question in QUESTIONS:
        value = label.get(question)
        if value is not None and not (isinstance(value, bool | int | float) and 0 <= value <= 1):
            raise SettingsError(
                f"{where} has {question} {value!r:.80}, but takes true, false, a number from 0 to 1 or null"
            )


def _value(value: bool | float | None) -> float | None:
    return None if value is None else float(value)
