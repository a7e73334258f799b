"""What lies in a program's folders for videos, by the names that a page shows, and from names to paths.

Owns what a visitor may name: what the lists offer, and any path where that is allowed. Loads nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vsf_lib.errors import ModelError, SettingsError
from vsf_lib.video.download.catalogue import BASES, Source
from vsf_lib.video.download.landing import found as fetched
from vsf_lib.video.single_file.found import Found, search
from vsf_lib.video.single_file.headers import GGUF, SAFETENSORS

PARTS = ("vae", "text_encoder")


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
        """Folders and transformer files, and the usual models of the hub that are not there yet."""
        there = [*self._folders(), *self._named(self._found().transformers)]
        return [*there, *(id for id in _HUB if self._fetched(id) is None)]

    def lora_names(self) -> list[str]:
        """LoRA files, with the folders that they are in."""
        root = self.loras
        if root is None or not root.is_dir():
            return []
        names = (path.relative_to(root).as_posix() for path in root.rglob(f"*{SAFETENSORS}"))
        return sorted(name for name in names if not name.startswith("."))  # downloads on their way

    def part_names(self, part: str) -> list[str]:
        """Files that can be the "vae" or the "text_encoder"."""
        return list(self._named(self._part_files(part)))

    def model(self, name: str) -> str:
        """The path or hub id that is meant; raises SettingsError where it may not be named."""
        name = name.strip()
        if not name:
            raise SettingsError("no model is chosen: choose one, or give a folder or hub id")
        folders, files = self._folders(), self._named(self._found().transformers)
        if name in folders:
            return str(folders[name])
        if name in files:
            return str(files[name])
        if (folder := self._fetched(name)) is not None:
            return str(folder)
        if not self.paths and name not in _HUB:
            raise SettingsError(f"{name} is not among the models of this server")
        return name

    def lora(self, name: str) -> str:
        """The path of a LoRA; raises SettingsError where it may not be named."""
        if self.loras is not None and name in self.lora_names():
            return str(self.loras / name)
        if not self.paths:
            raise SettingsError(f"{name} is not among the LoRAs of this server")
        return name

    def part(self, part: str, name: str, model: str) -> str:
        """The path of a VAE or text encoder; with no name, the only one there is if the model needs it."""
        files = self._named(self._part_files(part))
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
        files = [*found.transformers, *found.vaes, *found.text_encoders]
        known = {str(one): name for name, one in {**self._folders(), **self._named(files)}.items()}
        if self.loras is not None and Path(path).is_relative_to(self.loras):
            return Path(path).relative_to(self.loras).as_posix()
        return known.get(path, path)

    def _found(self) -> Found:
        return search(self.files)

    def _part_files(self, part: str) -> Iterable[Path]:
        found = self._found()
        return {"vae": found.vaes, "text_encoder": found.text_encoders}[part]

    def _folders(self) -> dict[str, Path]:
        if self.models is None or not self.models.is_dir():
            return {}
        return {path.parent.name: path.parent for path in sorted(self.models.glob("*/model_index.json"))}

    def _fetched(self, id: str) -> Path | None:
        if self.models is None:
            return None
        try:
            return fetched(self.models, Source.parse(id).id)
        except (SettingsError, ModelError):
            return None

    def _named(self, paths: Iterable[Path]) -> dict[str, Path]:
        """By their names within the folders; where two have the same, by their paths."""
        names: dict[str, Path] = {}
        for path in paths:
            root = next(root for root in self.files if path.is_relative_to(root))
            name = path.relative_to(root).as_posix()
            names[str(path) if name in names else name] = path
        return names


_HUB = tuple(offer.source.id for offer in BASES)
