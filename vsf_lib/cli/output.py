"""Where results go: names that clash with nothing, and whether they can be written, before any work is done.

Owns the folders that are made for a run: they go away again if it fails and leaves nothing in them. Writes no
picture itself.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path

from vsf_lib.errors import OutputError
from vsf_lib.files import check_writable, free_name

DEFAULT = "outputs"
PICTURES = (".png",)


class Output:
    """Names the results of one run."""

    def __init__(self, folder: Path, file: Path | None, count: int, suffix: str) -> None:
        self._folder = folder
        self._file = file
        self._count = count
        self._suffix = suffix
        self._named = 0

    @property
    def suffix(self) -> str:
        """The ending that results will have, in small letters."""
        return (self._file.suffix if self._file is not None else self._suffix).lower()

    def path(self, prompt: str, seed: int, *, kind: str = "") -> Path:
        """The next result's file: as asked for, numbered if there are several, else a name that is free.

        `kind` is what such a name ends in, to tell it from an ordinary picture.
        """
        self._named += 1
        if self._file is not None:
            number = f"-{self._named}" if self._count > 1 else ""
            return self._file.with_name(f"{self._file.stem}{number}{self._file.suffix}")
        return free_name(self._folder, prompt, f"{seed}{f'-{kind}' if kind else ''}", self._suffix)

    def beside(self, path: Path, what: str) -> Path:
        """The file for something that goes with the result `path`: its name and `what`.

        As with the results themselves, only what was asked for by name is replaced.
        """
        names = itertools.chain([what], (f"{what}-{again}" for again in itertools.count(2)))
        files = (path.with_name(f"{path.stem}-{name}{path.suffix}") for name in names)
        return next(file for file in files if self._file is not None or not file.exists())


@contextlib.contextmanager
def open_output(
    asked: str | None, count: int, suffixes: tuple[str, ...] = PICTURES, folder: str = DEFAULT
) -> Iterator[Output]:
    """Makes the folder and tries it; raises OutputError if results could not be written there.

    Without a file's name in `asked` they are called after the prompt, with the first of `suffixes`.

    Folders that were made here are removed again, if they are still empty when the run fails.
    """
    made: list[Path] = []
    named = folder if asked is None else asked
    try:
        try:
            place, file = _target(named, suffixes, folder)
            _make(place, made)
            check_writable(place)
        except (OSError, RuntimeError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise OutputError(f"cannot write to {named!r}: {reason}; choose another --out") from error
        yield Output(place, file, count, suffixes[0])
    except BaseException:
        with contextlib.suppress(OSError):  # not empty: someone wrote there, perhaps this run
            for empty in reversed(made):
                empty.rmdir()
        raise


def _target(asked: str, suffixes: tuple[str, ...], default: str) -> tuple[Path, Path | None]:
    """The folder, and the file if one was named; `default` is always a folder."""
    if not asked.strip():
        raise OutputError("--out is empty: name a file or a folder")
    path = Path(asked).expanduser().absolute()
    folder_meant = asked == default or asked.endswith(("/", "\\"))
    in_place = next((part for part in (path, *path.parents) if part.is_file()), None)
    if in_place is not None and (folder_meant or in_place != path):
        raise OutputError(
            f"cannot write to {asked!r}: the folder {path if folder_meant else path.parent} cannot be made, "
            f"because the file {in_place} is in its place; choose another folder with --out, or move that "
            "file"
        )
    if path.is_dir() or folder_meant:
        return path, None
    if path.exists() and not path.is_file():
        raise OutputError(f"cannot write {path}: it is neither a file nor a folder; choose another --out")
    if path.suffix.lower() in suffixes:
        return path.parent, path
    if path.suffix or path.exists():
        raise OutputError(f"cannot write {path}: end the name in {' or '.join(suffixes)}")
    return path, None


def _make(folder: Path, made: list[Path]) -> None:
    missing = []
    while not folder.exists() and folder != folder.parent:  # a drive that is not there is its own parent
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        new.mkdir(exist_ok=True)
        made.append(new)
