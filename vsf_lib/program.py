"""What this program is called in messages that name a command. Knows no command."""

from __future__ import annotations

import os

STARTED_AS = "VSF_STARTED_AS"
"""The environment variable by which a starter, such as install.py, says how people call it."""
_MODULE = "python -m vsf_lib"


def program(command: str = "") -> str:
    """What to type for `command`, by how this process was started."""
    return f"{os.environ.get(STARTED_AS) or _MODULE} {command}".rstrip()
