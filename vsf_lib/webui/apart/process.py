"""The process that serves the page, as the WebUI has it: starting it, giving its jobs their turns, ending it.

Knows the WebUI by `Host` only, and nothing of its server.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

from vsf_lib.errors import SettingsError
from vsf_lib.jobs import messages
from vsf_lib.jobs.child import Child, WorkerError
from vsf_lib.jobs.locks import Withdrawn
from vsf_lib.video.places import Places, Rights
from vsf_lib.webui.apart.host import Host

log = logging.getLogger("vsf")

_LOOK = 0.3
"""Seconds between looks at whether a running job was stopped."""


class PageProcess(Child):
    """One per program."""

    def __init__(self, python: Path, places: Places, rights: Rights, path: str, host: Host) -> None:
        """`path` is where the WebUI shows the page."""
        super().__init__("vsf_lib.studio.apart", "the video page's process", python=python)
        self._host = host
        self._overs: dict[int, threading.Event] = {}
        self._speaks = threading.Lock()
        self.port: int | None = None
        """Of this machine, once the page is there."""
        self.failed = ""
        """Why there is no page, or nothing."""
        self._say({"serve": {"places": places.told(), "rights": vars(rights), "path": path}})
        threading.Thread(target=self._hear, name="vsf-page", daemon=True).start()

    def _hear(self) -> None:
        """Until the process ends."""
        while (event := self._events.get()) is not None:
            if isinstance(event, messages.Serving):
                self.port = event.port
            elif isinstance(event, messages.Turn):
                over = self._overs[event.id] = threading.Event()
                threading.Thread(target=self._turn, args=(event, over), name="vsf-turn", daemon=True).start()
            elif isinstance(event, messages.Over) and event.id in self._overs:
                self._overs.pop(event.id).set()
            elif isinstance(event, messages.Progress):
                self._host.progress(event)
            elif isinstance(event, messages.Failed):
                self.failed = event.message
        self.port = None
        if not self.failed:
            self.failed = str(self._death())
        for over in self._overs.values():
            over.set()

    def _turn(self, asked: messages.Turn, over: threading.Event) -> None:
        """Holds the WebUI's row for the job, from when it is free until the job is over."""
        try:
            with self._host.turn(over.is_set), self._host.job(asked) as folder:
                self._tell({"granted": asked.id, "folder": folder})
                told = False
                while not over.wait(_LOOK):
                    if not told and self._host.stopped():
                        told = True
                        self._tell({"stop": asked.id})
        except (Withdrawn, WorkerError):  # the second: there is nobody left to tell
            pass
        except Exception:
            log.exception("video job %d has no turn", asked.id)
            self.close()  # a page whose jobs wait for ever is worse than none

    def _tell(self, order: dict[str, Any]) -> None:
        with self._speaks:
            self._say(order)


def serving(page: PageProcess | None) -> int:
    """The port of a page that is there; raises SettingsError where it is not."""
    if page is None or page.port is None:
        raise SettingsError((page.failed if page else "") or "the video page is not open: reload this tab")
    return page.port
