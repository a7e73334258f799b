"""A lock that only one process on this machine holds, and that goes when it goes, however it ends."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


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
