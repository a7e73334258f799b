"""The line from a child process to its owner, as the child has it.

Owns the output: what libraries print goes to the other one.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable

from vsf_lib.jobs import messages


def own_line() -> Callable[[messages.Event], None]:
    """The output as it is now, for us alone: from here on whatever prints does so to stderr."""
    line = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="ascii", newline="\n")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    lock = threading.Lock()

    def emit(event: messages.Event) -> None:
        with lock:
            line.write(messages.write(event) + "\n")
            line.flush()

    return emit
