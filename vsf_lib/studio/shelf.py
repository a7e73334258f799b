"""The image models that a page offers by name, and from names to what the drawing takes.

Owns what a visitor may name: what the list offers, and any path or hub id where that is allowed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vsf_lib.errors import ModelError, SettingsError
from vsf_lib.images.model import INDEX, read_index
from vsf_lib.scenes.model import MODELS, NAME


@dataclass(frozen=True)
class ImageShelf:
    """Looks anew at each call: models come and go."""

    models: Path | None
    """Whose folders may be models in diffusers' format."""
    paths: bool = True
    """Whether any path and hub id may be named."""

    def names(self) -> list[str]:
        """The small models, the default first, and those in the folder."""
        small = [name for name, model in MODELS.items() if model.folder.is_dir() or name == NAME]
        return [*small, *self._folders()]

    def model(self, name: str) -> str:
        """The model of that name, or the name itself; raises SettingsError where it may not be named."""
        name = name.strip()
        if not name:
            raise SettingsError(f"no model is chosen: choose one, such as {NAME}")
        return name if name in MODELS else self._allowed(name)

    def part(self, name: str) -> str | None:
        """Where the other parts of a single file are; raises SettingsError where it may not be named."""
        return self._allowed(name.strip()) if name.strip() else None

    def _allowed(self, name: str) -> str:
        folders = self._folders()
        if name not in folders and not self.paths:
            raise SettingsError(f"{name} is not among the models of this page: choose one of the list")
        return str(folders.get(name, name))

    def name(self, model: str) -> str:
        """What the list calls a model, or the model itself: the way back."""
        for name, path in self._folders().items():
            if Path(model).expanduser() == path:
                return name
        return model

    def _folders(self) -> dict[str, Path]:
        if self.models is None or not self.models.is_dir():
            return {}
        found = {}
        for index in sorted(self.models.glob(f"*/{INDEX}")):
            try:
                read_index(index)
            except ModelError:  # a model of videos, say
                continue
            found[index.parent.name] = index.parent
        return found
