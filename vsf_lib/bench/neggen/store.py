"""The folder in which pictures and answers are kept, so that nothing is drawn or asked twice.

Owns its layout: `pictures/KEY.png`, `answers/KEY.json`. Files appear whole or not at all, and one that is
damaged counts as not there. Knows neither models nor judges.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vsf_lib.bench.neggen.asking import Answer
from vsf_lib.bench.results import write_whole
from vsf_lib.errors import OutputError
from vsf_lib.files import reason
from vsf_lib.metadata import is_whole_png

RESULTS = "results.json"


class Store:
    """Pictures and answers by their keys."""

    def __init__(self, folder: Path) -> None:
        """Makes the folder; raises OutputError if nothing could be kept there."""
        self.folder = folder
        try:
            for part in ("pictures", "answers"):
                (folder / part).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"--out: the folder {folder} cannot be made ({reason(error)})") from error
        if not all(os.access(folder / part, os.W_OK) for part in (".", "pictures", "answers")):
            raise OutputError(f"--out: {folder} cannot be written; choose another folder")

    def picture_path(self, key: str) -> Path:
        """Where that picture is, or would be."""
        return self.folder / "pictures" / f"{key}.png"

    def has_picture(self, key: str) -> bool:
        """Whether it is there and whole."""
        return self._picture(key) is not None

    def picture(self, key: str) -> bytes:
        """The file's content; raises OutputError if it is gone."""
        content = self._picture(key)
        if content is None:
            raise OutputError(
                f"{self.picture_path(key)} is gone or damaged: run the same command again, which draws it"
            )
        return content

    def keep_picture(self, key: str, content: bytes) -> None:
        """Writes it; raises OutputError."""
        write_whole(self.picture_path(key), lambda part: part.write_bytes(content), "the picture", "--out")

    def answer(self, key: str) -> Answer | None:
        """What the judge said, if it is there."""
        try:
            content = json.loads(self._answer_path(key).read_text("utf-8"))
            return Answer(**{name: content[name] for name in ("positive", "negative", "quality", "replies")})
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep_answer(self, key: str, answer: Answer, asked: Mapping[str, Any]) -> None:
        """Writes it with what was asked; raises OutputError."""
        content = {**answer.as_json(), "asked": dict(asked)}
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        # A judge may answer with half a character.
        data = text.encode("utf-8", "backslashreplace")
        write_whole(self._answer_path(key), lambda part: part.write_bytes(data), "the answer", "--out")

    def _answer_path(self, key: str) -> Path:
        return self.folder / "answers" / f"{key}.json"

    def _picture(self, key: str) -> bytes | None:
        try:
            content = self.picture_path(key).read_bytes()
        except OSError:
            return None
        return content if is_whole_png(content) else None
