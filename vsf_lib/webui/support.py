"""Whether the extension can work in this process, asked before anything of it is loaded.

Owns the reasons why it cannot (another kind of WebUI, packages of another age, an update without a restart)
and how it then refuses: in its panel, and in a generation that asks for it. Imports nothing but the standard
library, so that it loads in every host.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).parents[1]
_NEEDED = {"pydantic": 2, "gradio": 4}
"""Major versions, the oldest that the panel was written for; Forge has them."""


def fingerprint(package: Path = _PACKAGE) -> str:
    """Of the code of `package` as it lies on the disk now."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(str(path.relative_to(package)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


_LOADED = fingerprint()
"""Taken when the process first imports this: a reload of the UI runs `scripts/` again, but keeps modules."""


def stale() -> str | None:
    """What to do where the code on the disk is not the code that runs; None where it is."""
    if fingerprint() != _LOADED:
        return "VSF was updated while the WebUI was running: close the WebUI and start it again."
    return None


def problem() -> str | None:
    """Why the extension cannot work on pictures here, with the remedy; None where it can."""
    if (update := stale()) is not None:
        return update
    if importlib.util.find_spec("backend") is None:
        return (
            "VSF guides SD3.5 and Flux in WebUI Forge, and Flux and Wan in Forge Neo. This WebUI runs its "
            "models in another way: install VSF in one of those to use it on pictures. Videos work here, in "
            "the tab VSF Video."
        )
    for name, least in _NEEDED.items():
        found = _version(name)
        if found is None or int(found.split(".")[0]) < least:
            return (
                f"VSF needs {name} {least} or newer, and this WebUI has {found or 'none'}: update the WebUI."
            )
    return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def asked_for(arguments: Sequence[Any]) -> bool:
    """Whether a script's arguments switch VSF on, by the panel or by an API request."""
    first = arguments[0] if arguments else False
    return bool(first.get("enabled", True)) if isinstance(first, Mapping) else bool(first)


def refuse(p: Any, reason: str) -> None:
    """Ends the generation of `p` where its sampling would begin. Hosts swallow what a callback raises."""

    def sample(*_: Any, **__: Any) -> Any:
        raise RuntimeError(reason)

    p.sample = sample
