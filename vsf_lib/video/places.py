"""Where a program keeps what belongs to videos, and what it lets its visitors do. Plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Places:
    """Where a program keeps what belongs to videos."""

    data: Path
    """Queue, lock, packages."""
    outputs: Path
    models: Path | None = None
    """Whose folders are Wan models in diffusers' format, if there is such a place."""
    loras: Path | None = None
    files: tuple[Path, ...] = ()
    """Folders with transformers, VAEs and text encoders as single files."""
    downloads: Mapping[str, Path] = field(default_factory=dict)
    """Which of them a downloaded file goes to, by its kind (see `single_file.kinds`)."""

    def told(self) -> dict[str, Any]:
        """For another process, in what JSON has."""
        return {
            "data": str(self.data),
            "outputs": str(self.outputs),
            "models": None if self.models is None else str(self.models),
            "loras": None if self.loras is None else str(self.loras),
            "files": [str(folder) for folder in self.files],
            "downloads": {kind: str(folder) for kind, folder in self.downloads.items()},
        }

    @classmethod
    def heard(cls, told: Mapping[str, Any]) -> Places:
        """What `told` was made from."""
        return cls(
            data=Path(told["data"]),
            outputs=Path(told["outputs"]),
            models=None if told["models"] is None else Path(told["models"]),
            loras=None if told["loras"] is None else Path(told["loras"]),
            files=tuple(map(Path, told["files"])),
            downloads={kind: Path(folder) for kind, folder in told["downloads"].items()},
        )


@dataclass(frozen=True)
class Rights:
    """What this server lets its visitors do."""

    install: bool = True
    """Install packages."""
    paths: bool = True
    """Name any path on this machine, not only what the lists offer."""
    delete: bool = True
    open_folder: bool = True
    """Have this machine show a folder in its file manager."""
    free: bool = True
    """Have the program give memory back."""
    privately: str = field(default="open the page for this machine alone", compare=False)
    """What the owner does to have the rest."""


EVERYTHING = Rights()
"""A page for one person on one machine."""
