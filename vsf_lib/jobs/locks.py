"""Turns: a lock that only one process on this machine holds, which goes when it goes, however it ends, and
waiting in the row of a lock within this process.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

_LOOK = 0.2
"""Seconds between looks at whether the one who waits was stopped."""


class Withdrawn(Exception):  # noqa: N818, it is no error
    """A job was stopped before it had begun."""


@contextmanager
def only_one(file: Path) -> Iterator[bool]:
    """Yields whether this process got the lock; another one may hold it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+b") as handle:
        got = _try(handle)
        try:
            yield got
        finally:
            if got:
                _release(handle)


@contextmanager
def turn(lock: Any, stopped: Callable[[], bool]) -> Iterator[None]:
    """Holds `lock` once it is our turn; raises Withdrawn if we were `stopped()` before.

    A thread waits in the lock's own row, so that pictures that come later do not come first.
    """
    guard, granted, left = threading.Lock(), threading.Event(), threading.Event()

    def wait() -> None:
        lock.acquire()
        with guard:
            if left.is_set():
                lock.release()
            else:
                granted.set()

    threading.Thread(target=wait, name="vsf-turn", daemon=True).start()
    while not granted.wait(_LOOK):
        if stopped():
            with guard:
                if not granted.is_set():
                    left.set()
                    raise Withdrawn
    try:
        yield
    finally:
        lock.release()


if sys.platform == "win32":
    import msvcrt

    def _try(handle: IO[bytes]) -> bool:
        handle.seek(0)
        try:
            msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _release(handle: IO[bytes]) -> None:
        handle.seek(0)
        msvcrt.locking(handle.fileno(), msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _try(handle: IO[bytes]) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def _release(handle: IO[bytes]) -> None:
        fcntl.flock(handle, fcntl.LOCK_UN)
