"""From a picture's infotext back to the panel: what "Send to" and the paste button put into each widget.

Owns that mapping only; the names and values are those of `Settings`. Imports no host module.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from vsf_lib.errors import SettingsError
from vsf_lib.settings import Settings
from vsf_lib.webui.request import ARGUMENTS, CUSTOM, HEATMAP

log = logging.getLogger("vsf")

Reader = Callable[[Mapping[str, Any]], Any]


def _reader(name: str) -> Reader:
    def read(pairs: Mapping[str, Any]) -> Any:
        try:
            settings = Settings.from_infotext(pairs)
        except SettingsError as error:
            settings = None
            if name == "enabled":  # said once, although every field asks
                log.warning("this picture's VSF values are not restored: %s", error)
        if name == "enabled":
            return settings is not None  # a picture made without VSF switches it off
        if settings is None:
            return None
        return CUSTOM if name == "preset" else getattr(settings, name)

    return read


READERS: Mapping[str, Reader] = MappingProxyType(
    {name: _reader(name) for name in ARGUMENTS if name != HEATMAP}
)
"""Per argument of the panel, what it is set to by the pairs of an infotext; None leaves it as it is. What is
shown beside a picture is the user's choice, and not the picture's.

The same functions for both tabs: by them the host knows which widget of one is which of the other.
"""
