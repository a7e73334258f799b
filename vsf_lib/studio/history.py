"""What was drawn, as it lies in the outputs folder: the history survives whatever happens to the page.

Owns which files belong together, and how they are shown. A picture's parameters are those that it carries.
Knows no page.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from PIL import Image

from vsf_lib.errors import SettingsError, VSFError
from vsf_lib.heatmap_sheet import overlays_of
from vsf_lib.images.besides import HEATMAP as HEATMAP_FILE
from vsf_lib.images.besides import WITHOUT, beside, is_beside
from vsf_lib.images.request import HEATMAP, PROGRAM
from vsf_lib.metadata import COMPARISON, Parameters, parse_parameters, read_png
from vsf_lib.settings import SHARING
from vsf_lib.strip import fit
from vsf_lib.sweep import INFOTEXT, Sweep

EXAMPLE = Path(__file__).parent / "example.png"
"""What the first visitor sees: a picture of `generate --compare`."""
_SIDES = (512, 1024)
"""The longer side of a picture on the page: at least, at most."""
_THUMBNAIL = (128, 192)
_EXAMINED = 4
"""Files that are looked at for each entry of a list at most: others may lie in the folder, too."""


@dataclass(frozen=True)
class Entry:
    """A picture that this program has drawn, with what goes with it."""

    path: Path
    infotext: str
    parameters: Parameters

    @property
    def sweep(self) -> Sweep | None:
        """What runs over a range in it, if it is a strip."""
        text = self.parameters.extra.get(INFOTEXT)
        return None if text is None else Sweep.parse(text)

    @property
    def film(self) -> Path | None:
        """The film of a strip."""
        film = self.path.with_suffix(".mp4")
        return film if self.sweep is not None and film.is_file() else None

    @property
    def sheet(self) -> Path | None:
        """The heat map's file."""
        return self._beside(HEATMAP_FILE, self.parameters)

    @property
    def without(self) -> Path | None:
        """The unguided picture's file, if it is one of its own."""
        return self._beside(WITHOUT, replace(self.parameters, settings=None))

    def _beside(self, what: str, expected: Parameters) -> Path | None:
        """A file that goes with it by its name and by what it says: names outlive their pictures."""
        file = beside(self.path, what)
        other = read_entry(file) if file.is_file() else None
        return file if other is not None and _alone(other.parameters) == _alone(expected) else None

    @property
    def caption(self) -> str:
        """What tells it from others, in a line."""
        settings, told = self.parameters.settings, [f"seed {self.parameters.seed}"]
        if (sweep := self.sweep) is not None:
            told.append(f"sweep {sweep.text}")
        elif settings is not None:
            told.append(settings.method)
            if settings.method in SHARING:
                told.append(f"alpha {settings.alpha:g}")
        not_this = "" if settings is None else f" (not: {settings.negative_prompt})"
        return f"{self.parameters.prompt}{not_this} · {', '.join(told)}"

    def pictures(self) -> tuple[Image.Image, ...]:
        """The unguided picture, where there is one, and the picture; of a sweep the strip."""
        picture = _opened(self.path)
        if COMPARISON in self.parameters.extra:
            return halves(picture)
        without = None if self.sweep is not None else self.without
        return (picture,) if without is None else (_opened(without), picture)

    def overlays(self) -> tuple[Image.Image, ...]:
        """The same pictures under the heat map; nothing where there is none."""
        sheet = self.sheet
        if sheet is None:
            return ()
        told = parse_parameters(read_png(sheet)).extra
        count = 2 if COMPARISON in told else 1
        size = (self.parameters.width, self.parameters.height)
        return tuple(overlays_of(_opened(sheet), size, count)) if HEATMAP in told else ()


class History:
    """Looks anew at each call: files come and go."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[Path, tuple[int, Entry | None]] = {}
        """What the files were when they were last written to."""

    def latest(self, count: int) -> list[Entry]:
        """The latest entries, the last one first."""
        found: list[Entry] = []
        for path in self._files()[: count * _EXAMINED]:
            entry = None if is_beside(path) else self._read(path)
            if entry is not None:
                found.append(entry)
            if len(found) == count:
                break
        return found

    def entry(self, path: Path) -> Entry:
        """The entry of a file; raises SettingsError if it is not there any more, or is none of ours."""
        if not path.resolve().is_relative_to(self._folder.resolve()):
            raise SettingsError(f"{path.name} does not lie in the folder of what is drawn")
        entry = self._read(path) if path.is_file() else None
        if entry is None:
            raise SettingsError(
                f"{path.name} is not there any more: it was deleted or moved, so it leaves the history"
            )
        return entry

    def _files(self) -> list[Path]:
        def modified(path: Path) -> int:
            try:
                return path.stat().st_mtime_ns
            except OSError:  # deleted since
                return 0

        there = sorted(self._folder.glob("*.png"), key=modified, reverse=True)
        for path in self._known.copy().keys() - set(there):  # several visitors may look at once
            self._known.pop(path, None)
        return there

    def _read(self, path: Path) -> Entry | None:
        """The entry, or nothing for a picture of another program."""
        try:
            modified = path.stat().st_mtime_ns
        except OSError:
            return None
        known = self._known.get(path)
        if known is None or known[0] != modified:
            known = self._known[path] = (modified, read_entry(path))
        return known[1]


def read_entry(path: Path) -> Entry | None:
    """What a file is, or nothing for a picture of another program."""
    try:
        infotext = read_png(path)
        parameters = parse_parameters(infotext)
        entry = Entry(path, infotext, parameters)
        _ = entry.sweep
    except VSFError:
        return None
    return entry if parameters.version.startswith(PROGRAM) else None


def _alone(parameters: Parameters) -> Parameters:
    """What a picture and those beside it have in common."""
    extra = {name: text for name, text in parameters.extra.items() if name not in (COMPARISON, HEATMAP)}
    return replace(parameters, extra=extra)


def halves(picture: Image.Image) -> tuple[Image.Image, Image.Image]:
    """Left and right of a picture that compares two."""
    middle = picture.width // 2
    return (
        picture.crop((0, 0, middle, picture.height)),
        picture.crop((middle, 0, picture.width, picture.height)),
    )


def large(picture: Image.Image) -> Image.Image:
    """As it is shown: small ones with every pixel a square, large ones made smaller."""
    return fit(picture, _SIDES)


def thumbnail(entry: Entry) -> Image.Image:
    """Of its last picture; raises SettingsError if that is gone."""
    try:
        modified = entry.path.stat().st_mtime_ns
    except OSError as error:
        raise SettingsError(f"{entry.path.name} is not there any more") from error
    return _thumbnail(entry.path, modified, COMPARISON in entry.parameters.extra)


@lru_cache(maxsize=128)
def _thumbnail(path: Path, modified: int, compares: bool) -> Image.Image:
    picture = _opened(path)
    return fit(halves(picture)[-1] if compares else picture, _THUMBNAIL)


def _opened(path: Path) -> Image.Image:
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            return picture.convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise SettingsError(f"cannot read {path.name}: {error}") from error
