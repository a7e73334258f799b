"""Which of the known networks the WebUI at hand has, asked of its modules without importing more than the
packages that these lie in."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from vsf_lib.adapters.registry import forge_networks


def titles() -> tuple[str, ...]:
    """What the extension guides here, in words for people."""
    networks = forge_networks()
    return tuple(network.title for network in networks if _there(network.home)) or tuple(
        network.title for network in networks
    )


def listed(names: Sequence[str]) -> str:
    """ "A, B and C"."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ModuleNotFoundError, ValueError):  # nothing of the kind, as outside of such a WebUI
        return False
