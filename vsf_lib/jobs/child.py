"""A child process from the outside: starting it, following what it says, ending it, and noticing its death.

Owns the child and everything below it. Knows nothing of what it does.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from vsf_lib.errors import VSFError
from vsf_lib.jobs import messages

_PACKAGE_PARENT = Path(__file__).parents[2]
NO_WINDOW: int = getattr(subprocess, "CREATE_NO_WINDOW", 0)
"""What keeps Windows from showing a console for a program; nothing elsewhere."""
_LOG_LINES = 60


class WorkerError(VSFError):
    """A child process could not be started or died."""


class Child:
    """A Python process of ours that takes orders and tells events, for use in a `with`."""

    def __init__(
        self,
        module: str,
        called: str,
        *,
        overlay: Path | None = None,
        environment: dict[str, str] | None = None,
        grace: float = 10.0,
        python: Path | None = None,
    ) -> None:
        """`overlay` is a folder of packages for the child alone; a cancel may take `grace` seconds.

        `python` is that of another environment, into which nothing of this one's packages may leak.
        """
        self._called = called
        self._grace = grace
        self._log: collections.deque[str] = collections.deque(maxlen=_LOG_LINES)
        self._events: queue.Queue[messages.Event | None] = queue.Queue()
        command = [str(python or sys.executable), "-X", "utf8", "-m", module]
        if overlay is not None:
            command += ["--overlay", str(overlay)]
        ours = dict(os.environ)
        if python is not None:
            for name in ("PYTHONPATH", "PYTHONHOME"):
                ours.pop(name, None)
        paths = [str(_PACKAGE_PARENT), *filter(None, [ours.get("PYTHONPATH")])]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                env={**ours, "PYTHONPATH": os.pathsep.join(paths), **(environment or {})},
                **_apart(),
            )
        except OSError as error:
            raise WorkerError(f"{called} cannot be started: {error}") from error
        for read in (self._read_events, self._read_log):
            threading.Thread(target=read, daemon=True).start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Of the child."""
        return self._process.pid

    def log(self) -> list[str]:
        """The last lines that the child wrote to its other output."""
        return list(self._log)

    @property
    def alive(self) -> bool:
        """Whether it can take an order."""
        return self._process.poll() is None

    def close(self) -> None:
        """Ends the process: at once if it is idle, after its own grace time if it is not."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        try:
            self._process.wait(self._grace)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()

    def kill(self) -> None:
        """Ends the process and all of its children now."""
        if sys.platform == "win32":
            subprocess.run(
                ["taskkill", "/T", "/F", "/PID", str(self._process.pid)], capture_output=True, check=False
            )
        else:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)

    def _follow(
        self,
        ends: tuple[type[messages.Event], ...],
        look: Callable[[messages.Event], None],
        stopped: Callable[[], bool],
        stop: Callable[[], None],
    ) -> Any:
        """The event that ends an order, one of `ends` or Cancelled; raises WorkerError if the process dies.

        `look` sees every event. Once `stopped()` is true, `stop` is called; if that does not end the order,
        the process tree is ended.
        """
        asked: float | None = None
        while True:
            try:
                event = self._events.get(timeout=0.1)
            except queue.Empty:
                event = _NOTHING
            if event is None:
                if asked is not None:
                    return messages.Cancelled()
                raise self._death()
            if event is not _NOTHING:
                look(event)
                if isinstance(event, ends):
                    return event
            if asked is None and stopped():
                asked = time.monotonic()
                stop()
            if asked is not None and time.monotonic() > asked + self._grace:
                self.kill()

    def _say(self, order: dict[str, Any]) -> None:
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
        except (OSError, ValueError) as error:
            raise self._death() from error

    def _death(self) -> WorkerError:
        code = self._process.wait()
        time.sleep(0.1)  # for the last lines of its log
        how = f"by signal {-code}" if code < 0 else f"with code {code}"
        last = "\n".join(list(self._log)[-12:])
        return WorkerError(f"{self._called} ended {how}" + (f"; its last lines:\n{last}" if last else ""))

    def _read_events(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            event = messages.read(line)
            if event is not None:
                self._events.put(event)
        self._events.put(None)

    def _read_log(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._log.append(line.rstrip())


_NOTHING: Any = object()


def _apart() -> dict[str, Any]:
    """A process group of its own: a Ctrl-C is ours to handle, and the whole group can be ended."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | NO_WINDOW}
    return {"start_new_session": True}
