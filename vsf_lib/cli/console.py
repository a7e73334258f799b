"""What goes to standard output and standard error, and keeping libraries from talking in between.

Owns the streams while a command runs: results on standard output, everything else on standard error. Knows no
command.
"""

from __future__ import annotations

import logging
import os
import sys
import time
import warnings
from types import TracebackType
from typing import TextIO

from vsf_lib.errors import OutputError

# Read by the libraries when they are imported, which happens later.
_QUIET = {
    "DIFFUSERS_VERBOSITY": "error",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "KINETO_LOG_LEVEL": "99",  # its profiler tells of each start and stop, which is above its errors
}

_PATIENCE = 10.0
"""Seconds between two lines on how far it is."""


class Console:
    """The streams, made safe for any text, and the libraries' warnings kept off, while a command runs."""

    def __init__(self, *, debug: bool) -> None:
        self._debug = debug
        self._warnings = warnings.catch_warnings()
        self._log = logging.getLogger("vsf")
        self._handler = logging.StreamHandler(sys.stderr) if debug else None
        self._level = self._log.level
        self._set: list[str] = []

    def __enter__(self) -> Console:
        for stream in (sys.stdout, sys.stderr):
            # A Windows console in an old code page must not end a run because of one sign.
            reconfigure = getattr(stream, "reconfigure", None)
            if reconfigure is not None:
                reconfigure(errors="replace")
        self._warnings.__enter__()
        if self._handler is not None:
            self._log.addHandler(self._handler)
            self._log.setLevel(logging.DEBUG)
        else:
            warnings.simplefilter("ignore")
            for name in _QUIET.keys() - os.environ.keys():
                os.environ[name] = _QUIET[name]
                self._set.append(name)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._warnings.__exit__(kind, error, trace)
        for name in self._set:
            os.environ.pop(name, None)
        if self._handler is not None:
            self._log.removeHandler(self._handler)
            self._log.setLevel(self._level)

    def line(self, text: str) -> None:
        """One line to standard error, whatever the text holds."""
        note(text, prefix="")

    def error(self, error: object) -> None:
        """The one line that a failed command ends with."""
        note(str(error), prefix="error: ")

    def flush(self) -> None:
        """Makes sure that standard output has arrived, as long as that can still be an error."""
        if sys.stdout is not None:
            _written(sys.stdout, "")


def note(text: str, prefix: str = "note: ") -> None:
    """Something worth knowing, on one line of standard error."""
    if sys.stderr is not None:
        print(prefix + " ".join(text.split()), file=sys.stderr, flush=True)


def result(line: str) -> None:
    """A line of the result, on standard output; raises OutputError if it cannot be written."""
    if sys.stdout is not None:
        _written(sys.stdout, line + "\n")


class Progress:
    """How far it is: in the label of each picture's bar, and now and then as a line where there is no bar."""

    def __init__(self, total: int, what: str, *, bars: bool = True) -> None:
        self._total = total
        self._what = what
        self._bars = bars
        self._done = 0
        self._began = self._told = time.monotonic()

    def label(self, name: str) -> str:
        """The next one's number, and its name."""
        return f"{self._done + 1}/{self._total} {name}"

    def done(self, count: int = 1) -> None:
        """Counts, and tells if it is time to."""
        self._done += count
        now = time.monotonic()
        if (
            sys.stderr is None
            or (self._bars and sys.stderr.isatty())
            or now - self._told < _PATIENCE
            or self._done >= self._total
        ):
            return
        left = (now - self._began) / self._done * (self._total - self._done)
        note(f"{self._done} of {self._total} {self._what}, about {left:.0f} s left", prefix="")
        self._told = now


def close_broken_output() -> None:
    """Drops what could not be written, so that Python does not try and fail again at its end."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 (pathlib has no descriptor to offer)
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
    except AttributeError:
        pass  # there is no standard output at all


def _written(stream: TextIO, text: str) -> None:
    try:
        stream.write(text)
        stream.flush()
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"cannot write to standard output: {reason}; look at where it goes") from error
