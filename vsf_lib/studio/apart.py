"""The page in a process and an environment of its own: `python -m vsf_lib.studio.apart`.

For a WebUI whose gradio or pydantic is too old to show the page itself: it starts this process, passes the
page on to its visitors, and lets a job in between its pictures. Owns the line to it (see `messages`). Ends
when its input closes, so that nothing is left when the WebUI dies.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from vsf_lib.errors import VSFError
from vsf_lib.jobs import messages
from vsf_lib.jobs.line import own_line
from vsf_lib.jobs.locks import Withdrawn
from vsf_lib.video.desk import Desk
from vsf_lib.video.places import Places, Rights
from vsf_lib.video.queue import Entry
from vsf_lib.video.runner import State, Surroundings

_LOOK = 0.2
"""Seconds between looks at whether a waiting job was stopped."""


class Owner(Surroundings):
    """The WebUI at the other end of the line, in whose row jobs take their turn."""

    def __init__(self, emit: Callable[[messages.Event], None]) -> None:
        self._emit = emit
        self._answered = threading.Condition()
        self._granted: int | None = None
        self._stopped: int | None = None
        self._folder = Path()
        self._running: int | None = None

    def hear(self, order: dict[str, Any]) -> None:
        """What the owner says of a turn."""
        with self._answered:
            if "granted" in order:
                self._granted, self._folder = order["granted"], Path(order.get("folder", ""))
            elif "stop" in order:
                self._stopped = order["stop"]
            self._answered.notify_all()

    def folder(self, entry: Entry) -> Path:
        return self._folder

    def notes(self, entry: Entry) -> tuple[str, ...]:
        return ("pictures wait until this video is done",)

    @contextmanager
    def job(self, entry: Entry, stopped: Callable[[], bool]) -> Iterator[None]:
        job = entry.job
        self._running, self._granted = entry.id, None
        self._emit(messages.Turn(entry.id, job.prompt, job.seed, job.width, job.height))
        try:
            with self._answered:
                while self._granted != entry.id:
                    if stopped():
                        raise Withdrawn
                    self._answered.wait(_LOOK)
            yield
        finally:
            self._running = self._stopped = None
            self._emit(messages.Over(entry.id))

    def stopped(self) -> bool:
        return self._running is not None and self._stopped == self._running

    def progress(self, state: State) -> None:
        self._emit(messages.Progress(state.stage, state.step, state.steps))


def main() -> int:
    """Serves until the input closes."""
    from vsf_lib.studio import open_page

    emit = own_line()
    order = json.loads(sys.stdin.readline())["serve"]
    owner = Owner(emit)
    desk = Desk(Places.heard(order["places"]), Rights(**order["rights"]), around=owner)
    try:
        with open_page(desk, port=0, path=order["path"]) as address:
            emit(messages.Serving(int(urlsplit(address).port or 0)))
            _ = desk.runner  # jobs that were left wait for no visitor
            for line in sys.stdin:
                owner.hear(json.loads(line))
    except VSFError as error:
        emit(messages.Failed(str(error)))
        return 1
    finally:
        desk.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
