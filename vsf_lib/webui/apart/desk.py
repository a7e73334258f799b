"""What the tab does in an old WebUI: says how far the environment is, makes it, opens the page.

Owns the one environment and the one process. Knows no server.
"""

from __future__ import annotations

import threading
from typing import Any

from vsf_lib.errors import SettingsError
from vsf_lib.video.places import Places, Rights
from vsf_lib.webui.apart.environment import Environment
from vsf_lib.webui.apart.host import Host
from vsf_lib.webui.apart.process import PageProcess, serving


class ApartDesk:
    """One per program."""

    def __init__(
        self, places: Places, rights: Rights, path: str, *, environment: Environment, host: Host
    ) -> None:
        """`path` is where the WebUI shows the page."""
        self._places, self._rights, self._path = places, rights, path
        self._environment, self._host = environment, host
        self._guard = threading.Lock()
        self._page: PageProcess | None = None

    def state(self) -> dict[str, Any]:
        """`stage` is absent, installing, ready, opening or open; `text` what there is to say of it."""
        environment, page = self._environment, self._page
        if environment.installing:
            return {"stage": "installing", "text": environment.installing}
        if not environment.ready:
            return {
                "stage": "absent",
                "text": environment.failed,
                "torches": list(environment.torches().items()),
                "may_install": self._rights.install,
            }
        if page is None or page.failed:  # which is said a little after its end
            return {"stage": "ready", "text": page.failed if page else ""}
        return {"stage": "opening" if page.port is None else "open", "text": ""}

    def install(self, torch: str) -> None:
        """Begins to; raises SettingsError, also where this server forbids it."""
        if not self._rights.install:
            raise SettingsError("packages are not installed through a public page")
        self._environment.install(torch)

    def open(self) -> None:
        """Starts the page where it does not run; raises VSFError."""
        if self._environment.installing or not self._environment.ready:
            raise SettingsError("the packages for videos are not installed yet: press Install first")
        with self._guard:
            if self._page is not None and self._page.alive:
                return
            self._page = PageProcess(
                self._environment.python, self._places, self._rights, self._path, self._host
            )

    @property
    def port(self) -> int:
        """Where the page is served to this machine; raises SettingsError where it is not."""
        return serving(self._page)

    def close(self) -> None:
        """Ends the page and what it runs; the next visitor opens it again."""
        with self._guard:
            page, self._page = self._page, None
        if page is not None:
            page.close()
