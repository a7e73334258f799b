"""What a child process is told by its owner (see `messages`), as the child has it.

Owns that a cancel arrives during a job, and that nothing goes on for long when the owner is gone.
"""

from __future__ import annotations

import json
import os
import queue
import threading
import time
from typing import IO, Any

GRACE = 5.0
"""Seconds to stop in after the input has closed."""


class Orders:
    """What comes in, read by a thread of its own, so that a cancel arrives during a job."""

    def __init__(self, lines: IO[str]) -> None:
        self._jobs: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._cancelled = threading.Event()
        threading.Thread(target=self._read, args=(lines,), daemon=True).start()

    def next(self) -> dict[str, Any] | None:
        """The next job, or None when there will be none. One is given at a time."""
        return self._jobs.get()

    def stopped(self) -> bool:
        """Whether the job that runs is to stop."""
        return self._cancelled.is_set()

    def _read(self, lines: IO[str]) -> None:
        for line in lines:
            order = json.loads(line)
            if "make" in order:
                self._cancelled.clear()  # here, so that none is lost which comes before the job is taken
                self._jobs.put(order)
            elif "cancel" in order:
                self._cancelled.set()
        self._cancelled.set()
        self._jobs.put(None)
        time.sleep(GRACE)
        os._exit(1)  # the job does not stop, and nobody waits for it
