"""What lies in a program's folders for videos, by the names that a page shows, and from names to paths.

Owns what a visitor may name: what the lists offer, and any path where that is allowed. Loads nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vsf_lib.errors import ModelError, SettingsError
from vsf_lib.scenes.model import WAN
from vsf_lib.video import builtin
from vsf_lib.video.download.catalogue import BASES, Source
from vsf_lib.video.download.landing import found as fetched
from vsf_lib.video.download.landing import is_cached
from vsf_lib.video.single_file.found import Found, search, walk
from vsf_lib.video.single_file.headers import GGUF, SAFETENSORS

PARTS = ("vae", "text_encoder")
_DEEPEST = 8
"""Folders in folders of LoRAs, which are many and sorted."""


@dataclass(frozen=True)
class Shelf:
    """Looks anew at each call: files come and go."""

    models: Path | None
    """Whose folders are Wan models in diffusers' format."""
    loras: Path | None
    files: tuple[Path, ...] = ()
    """Folders with transformers, VAEs and text encoders as single files."""
    paths: bool = True
    """Whether any path and hub id may be named."""

    def model_names(self) -> list[str]:
        """Folders and transformer files, the built-in model, and the usual ones of the hub that are not there
        yet. The first can be used at once."""
        found = self._found()
        there = [*self._folders(), *self._named(found, found.transformers)]
        own = [WAN] if builtin.is_there() else []
        return [*there, *own, *(id for id in _HUB if self._fetched(id) is None)]

    def has_models(self) -> bool:
        """Whether a real Wan is there, so that none has to be downloaded."""
        return bool(self._folders() or self._found().transformers)

    def lora_names(self) -> list[str]:
        """LoRA files, with the folders that they are in."""
        root = self.loras
        if root is None or not root.is_dir():
            return []
        return sorted(path.relative_to(root).as_posix() for path in walk(root, (SAFETENSORS,), _DEEPEST))

    def part_names(self, part: str) -> list[str]:
        """Files that can be the "vae" or the "text_encoder"."""
        return list(self._part_files(part))

    def model(self, name: str) -> str:
        """The path or hub id that is meant; raises SettingsError where it may not be named."""
        name = name.strip()
        if not name:
            raise SettingsError("no model is chosen: choose one, or give a folder or hub id")
        if name == WAN and builtin.is_there():
            return name
        found = self._found()
        folders, files = self._folders(), self._named(found, found.transformers)
        if name in folders:
            return str(folders[name])
        if name in files:
            return str(files[name])
        if (folder := self._fetched(name)) is not None:
            return str(folder)
        if not self.paths and name not in _HUB:
            raise SettingsError(f"{name} is not among the models of this server")
        last = re.split(r"[\\/]", name.rstrip("\\/"))[-1]
        if not (Path(name).expanduser().exists() or is_cached(name)):
            if last in folders:  # made elsewhere, or moved since
                return str(folders[last])
            if last in files:
                return str(files[last])
            raise SettingsError(f"the model {name} is not on this machine: choose another, or download one")
        return name

    def lora(self, name: str) -> str:
        """The path of a LoRA; raises SettingsError where it may not be named."""
        if name == builtin.FEW_STEPS:
            return name
        if self.loras is not None and name in self.lora_names():
            return str(self.loras / name)
        if not self.paths:
            raise SettingsError(f"{name} is not among the LoRAs of this server")
        return name

    def part(self, part: str, name: str, model: str) -> str:
        """The path of a VAE or text encoder; with no name, the only one there is if the model needs it."""
        files = self._part_files(part)
        name = name.strip()
        if not name:
            alone = Path(model).suffix.lower() in (SAFETENSORS, GGUF) and len(files) == 1
            return str(next(iter(files.values()))) if alone else ""
        if name in files:
            return str(files[name])
        if not self.paths:
            raise SettingsError(f"{name} is not among the files of this server")
        return name

    def name(self, path: str) -> str:
        """What the lists call a path, or the path itself: the way back."""
        found = self._found()
        known = {str(one): name for name, one in {**self._folders(), **self._named(found)}.items()}
        if self.loras is not None and Path(path).is_relative_to(self.loras):
            return Path(path).relative_to(self.loras).as_posix()
        return known.get(path, path)

    def _found(self) -> Found:
        return search(self.files)

    def _part_files(self, part: str) -> dict[str, Path]:
        found = self._found()
        return self._named(found, {"vae": found.vaes, "text_encoder": found.text_encoders}[part])

    def _folders(self) -> dict[str, Path]:
        if self.models is None or not self.models.is_dir():
            return {}
        folders = [path.parent for path in sorted(self.models.glob("*/model_index.json"))]
        return {str(path) if path.name == WAN else path.name: path for path in folders}

    def _fetched(self, id: str) -> Path | None:
        if self.models is None:
            return None
        try:
            source = Source.parse(id)
            return None if source.file else fetched(self.models, source.id)
        except (SettingsError, ModelError):
            return None

    def _named(self, found: Found, some: Iterable[Path] | None = None) -> dict[str, Path]:
        """`some` of what is found, or all, by names that nothing else that is found could have.

        A name within the folders; where several have the same, none of them, so that a page which was opened
        before the second came cannot mean that one: all have their folder's name before it, or the path.
        """
        paths = sorted({*found.transformers, *found.vaes, *found.text_encoders})
        possible = {path: self._possible(path) for path in paths}
        count = Counter(name for names in possible.values() for name in set(names))
        names = {path: next((n for n in possible[path] if count[n] == 1), str(path)) for path in paths}
        return {names[path]: path for path in (paths if some is None else some)}

    def _possible(self, path: Path) -> tuple[str, ...]:
        root = next(root for root in self.files if path.is_relative_to(root))
        within = path.relative_to(root).as_posix()
        return within, f"{root.name}/{within}", str(path)


_HUB = tuple(offer.source.id for offer in BASES)
