"""The environment that the page runs in: `.venv` beside `install.py`, which makes it.

Owns whether it is there, the one installation that runs, and which torch it gets. Knows no WebUI.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from vsf_lib.errors import SettingsError
from vsf_lib.jobs.child import NO_WINDOW

_ROOT = Path(__file__).parents[3]
_COMMAND = "studio"
_INDEX = "https://download.pytorch.org/whl/"

_KEPT = "kept"
_OPTIONS: Mapping[str, tuple[str, ...]] = {
    _KEPT: (),
    "own": ("--torch", "own"),
    "cu126": ("--torch-index", _INDEX + "cu126"),
    "cpu": ("--torch-index", _INDEX + "cpu"),
}
"""Of `install.py`, by the torch that is chosen. The WebUI's own torch is no choice: with it would come
packages of the WebUI that do not work with the new ones."""
_CUDA, _CPU = "a torch for NVIDIA cards", "a torch for the CPU alone"
_OFFERED: Mapping[str, Mapping[str, str]] = {
    "linux": {"own": _CUDA, "cpu": _CPU},
    "win32": {"cu126": f"{_CUDA} (CUDA 12.6)", "own": _CPU},
}
"""What the page says of them, by system: PyPI's own is not for the same machines everywhere."""


class Environment:
    """One per program."""

    def __init__(self, root: Path = _ROOT) -> None:
        self._root = root
        self._guard = threading.Lock()
        self._ready = False
        self.installing = ""
        """The last line of an installation that runs, or nothing."""
        self.failed = ""
        """Why the last one came to nothing, or nothing."""

    @cached_property
    def _installer(self) -> Any:
        """`install.py` as a module: it knows when its environment is whole."""
        spec = importlib.util.spec_from_file_location("vsf_install", self._root / "install.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    @property
    def python(self) -> Path:
        """Of the environment."""
        return Path(self._installer.PYTHON)

    @property
    def ready(self) -> bool:
        """Whether all is there, in the versions that this code needs."""
        if not self._ready and not self.installing:
            self._ready = bool(self._installer.has(_COMMAND))
        return self._ready

    def torches(self) -> dict[str, str]:
        """What can be chosen here, with what the page says of it, the best guess first."""
        offered = list(_OFFERED.get(sys.platform, {"own": "the torch for this system"}).items())
        try:
            alone = "+cpu" in version("torch")
        except PackageNotFoundError:
            alone = False
        if alone:
            offered.reverse()
        if self._installer.read_stamp().get("torch"):
            offered.insert(0, (_KEPT, "the torch of the last time"))
        return dict(offered)

    def install(self, torch: str) -> None:
        """Begins to make it, in a thread; raises SettingsError where one is at it already."""
        if torch not in self.torches():
            raise SettingsError(f"there is no torch {torch[:20]!r} to choose: {', '.join(self.torches())}")
        with self._guard:
            if self.installing:
                raise SettingsError("the packages are being installed: wait for that")
            self.installing, self.failed = "beginning", ""
        threading.Thread(target=self._install, args=(torch,), name="vsf-install", daemon=True).start()

    def _install(self, torch: str) -> None:
        installer = str(self._root / "install.py")
        options = [*_OPTIONS[torch], "--yes", "--install-only"]
        last = ""
        try:
            process = subprocess.Popen(
                [sys.executable, "-X", "utf8", "-u", installer, *options, _COMMAND],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                encoding="utf-8",
                errors="replace",
                env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
                creationflags=NO_WINDOW,
            )
            assert process.stdout is not None
            for line in process.stdout:
                last = line.strip()[:300] or last
                self.installing = last
            if process.wait():
                self.failed = last or f"install.py ended with code {process.returncode}"
        except OSError as error:
            self.failed = f"{installer} cannot be started: {error}"
        finally:
            self.installing = ""
