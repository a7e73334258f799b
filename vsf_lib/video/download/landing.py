"""Where a download lies while it is incomplete, and how it lands: whole, under its own name, or not at all.

Owns the folder `.downloads` beside what is fetched, so that the last move stays on one disk, and the rule
that no file leaves it for a place that its server chose. Knows no network.

    .downloads/0123456789ab/source.json   what is fetched there, and which version of it: the next attempt
                                          goes on with that one
                            parts/        as huggingface_hub leaves them
                            whole/        those that are checked
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vsf_lib.errors import ModelError, OutputError
from vsf_lib.files import reason, replace, written_whole
from vsf_lib.video.download.catalogue import Source
from vsf_lib.video.single_file.headers import read_header
from vsf_lib.video.single_file.kinds import kinds

INDEX = "model_index.json"
PIPELINE = "WanPipeline"
"""What videos are made with."""
_ORIGIN = "download.json"
"""In a landed folder: what it was fetched from."""
_NAMELESS = re.compile(r"\.[0-9a-f]{8}\.incomplete\Z")
"""A part as newer versions of huggingface_hub write it, under another name at each attempt."""
_WORD = re.compile(r"[^\\/:*?\"<>|\x00-\x1f]+\Z")


@dataclass(frozen=True)
class Remote:
    """A file as the server announces it."""

    name: str
    """With its folders, by slashes."""
    size: int
    sha256: str | None
    """Of large files."""


class DamagedError(Exception):
    """What arrived is not what was announced."""


class Landing:
    """One download's places under `root`, where it becomes `final`.

    `places` are the folders of files by their kind; a file of any other kind stays under `root`.
    """

    def __init__(self, root: Path, source: Source, places: Mapping[str, Path] | None = None) -> None:
        self.source = source
        self.root = root
        self._places = dict(places or {}) if source.file else {}
        self.final = root / source.name
        work = root / ".downloads"
        self.lock = work / f"{source.name}.lock"
        self._own = work / hashlib.sha256(str(source).encode()).hexdigest()[:12]
        self.parts = self._own / "parts"
        self._whole = self._own / "whole"

    @property
    def begun(self) -> str | None:
        """The version that an earlier attempt fetched."""
        version = _read(self._own / "source.json").get("version")
        return version if isinstance(version, str) else None

    def begin(self, version: str) -> None:
        """Makes the places; parts of another version go."""
        if self.begun not in (None, version):
            self.forget()
        self._own.mkdir(parents=True, exist_ok=True)
        with written_whole(self._own / "source.json") as part:
            part.write_text(json.dumps({"source": str(self.source), "version": version}), encoding="utf-8")

    def sweep(self) -> None:
        """Drops what a process that was killed leaves and nobody goes on from."""
        for path in [*self.parts.rglob("*.lock"), *self.parts.rglob("*.incomplete")]:
            # Locks stay where the disk knows none, and this download has its own.
            if path.suffix == ".lock" or _NAMELESS.search(path.name):
                path.unlink()

    def forget(self) -> None:
        """Drops the parts."""
        shutil.rmtree(self._own, ignore_errors=True)

    def forget_unfinished(self) -> None:
        """Drops the parts of files that are not complete."""
        for part in self.parts.rglob("*.incomplete"):
            part.unlink()

    def there(self, files: Iterable[Remote]) -> bool:
        """Whether it has landed before, in any of the places; raises OutputError where something else has its
        name.
        """
        if self.source.file:
            (file,) = files
            for folder in dict.fromkeys((self.root, *self._places.values())):
                if _is(folder / self.source.name, file):
                    self.final = folder / self.source.name
                    return True
        if not self.final.exists():
            return False
        if not self.source.file and found(self.root, self.source.id) is not None:
            return True
        raise OutputError(f"{self.final} is there already, but is not {self.source}: rename or move it first")

    def here(self, files: Iterable[Remote]) -> int:
        """Bytes that need not be fetched any more."""
        total = done = 0
        for file in files:
            total += file.size
            done += max(_size(place / file.name) for place in (self._whole, self.parts))
        # Their names depend on the version of huggingface_hub.
        return min(total, done + sum(map(_size, self.parts.rglob("*.incomplete"))))

    def has(self, file: Remote) -> bool:
        """Whether it is here and checked."""
        return _size(self._whole / file.name) == file.size

    def keep(self, file: Remote) -> None:
        """Checks a file that has arrived in `parts`; raises DamagedError, and drops it, if it is wrong."""
        path = inside(self.parts, file.name)
        with path.open("r+b") as stream:
            os.fsync(stream.fileno())
        size = _size(path)
        wrong = ""
        if size != file.size:
            wrong = f"{file.name} has {size} bytes, but {file.size} were announced"
        elif file.sha256 is not None and _sha256(path) != file.sha256:
            wrong = f"{file.name} has another checksum than was announced"
        if wrong:
            path.unlink()
            raise DamagedError(wrong)
        kept = inside(self._whole, file.name)
        kept.parent.mkdir(parents=True, exist_ok=True)
        path.replace(kept)

    def check_kind(self) -> None:
        """Raises ModelError unless the pipeline is one that videos are made with."""
        kind = _read(self._whole / INDEX).get("_class_name")
        if kind != PIPELINE:
            self.forget()
            raise ModelError(f"{self.source} is a {kind}, but videos are made with a {PIPELINE}")

    def land(self, files: Sequence[Remote]) -> Path:
        """Moves what is whole to its place."""
        if self.source.file:
            path = self._whole / files[0].name
            self.final = self._place(path) / self.source.name
        else:
            path = self._whole
            origin = {"source": str(self.source), "version": self.begun}
            (path / _ORIGIN).write_text(json.dumps(origin), encoding="utf-8")
        if self.final.exists():  # since the beginning
            raise OutputError(f"{self.final} is there by now: rename or move it, then try again")
        self.final.parent.mkdir(parents=True, exist_ok=True)
        _move(path, self.final)
        self.forget()
        return self.final

    def _place(self, file: Path) -> Path:
        """The folder for a file, by what its header says it is."""
        if not self._places:
            return self.root
        try:
            told = kinds(read_header(file).tensors)
        except ModelError:  # it is what the server has, and an error in it is told where it is used
            return self.root
        return next((self._places[kind] for kind in told if kind in self._places), self.root)


def found(root: Path, id: str) -> Path | None:
    """The folder in `root` of a model that was fetched from the hub, or was put there under its name."""
    folder = root / id.rsplit("/", 1)[-1]
    if not (folder / INDEX).is_file():
        return None
    return folder if _read(folder / _ORIGIN).get("source", id) == id else None


def is_cached(id: str) -> bool:
    """Whether the hub's own cache on this machine has that model."""
    try:
        from huggingface_hub import try_to_load_from_cache

        return isinstance(try_to_load_from_cache(id, INDEX), str)
    except (ImportError, ValueError):  # no such package, or no name of the hub's
        return False


def free_space(folder: Path) -> int:
    """Bytes on the disk of a folder that may not be there yet."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        return shutil.disk_usage(folder).free
    except OSError as error:
        raise OutputError(f"cannot look at the disk of {folder}: {reason(error)}") from error


def spoken_size(count: float) -> str:
    """`17230000000` -> `17.2 GB`, as disks are sold and the hub counts."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.0f} {unit}" if unit == "bytes" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def shortage(missing: int, free: int, root: Path) -> str:
    """Why the disk is too small, in one line; nothing if it is not."""
    if missing <= free:
        return ""
    return (
        f"the disk of {root} is too small: {spoken_size(missing)} are to be fetched, and "
        f"{spoken_size(free)} are free; free {spoken_size(missing - free)}, or choose another disk"
    )


def inside(folder: Path, name: str) -> Path:
    """The path of a file that a server named; raises ModelError for a name that could leave `folder`."""
    words = name.split("/")
    if not all(_WORD.match(word) and word.strip(". ") for word in words):
        raise ModelError(f"the server names a file {name!r}, which is no name for one: nothing was fetched")
    return folder.joinpath(*words)


def _move(path: Path, final: Path) -> None:
    try:
        replace(path, final)
    except OSError as error:
        if error.errno != errno.EXDEV or not path.is_file():
            raise
        with written_whole(final) as part:  # its folder is on another disk
            shutil.copyfile(path, part)


def _is(path: Path, file: Remote) -> bool:
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    return file.sha256 in (None, _sha256(path))


def _size(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return 0


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _read(file: Path) -> dict[str, object]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
