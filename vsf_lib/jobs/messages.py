"""What a child process and its owner say to each other: one JSON object per line, each way.

To a worker: `{"make": job, "path": file}` (for pictures a folder) and `{"cancel": true}`. To the process that
fetches: `{"plan": source, "into": folder}` or the same with `fetch`. To a page in a process of its own:
`{"serve": ...}`, and `{"granted": id, "folder": name}` and `{"stop": id}` for its turns. When the line ends,
so does the child. From it: one of the events below, by the name of its kind. Knows nothing of processes.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias, get_args


@dataclass(frozen=True)
class Ready:
    """The worker is there."""

    versions: dict[str, str]


@dataclass(frozen=True)
class Progress:
    """Where a job stands."""

    stage: str
    """"loading", "encoding", "sampling", "decoding" or "writing"."""
    step: int = 0
    steps: int = 0
    """Of the sampling, all videos of a comparison together; 0 outside of it."""
    seconds_left: float | None = None
    part: str = ""
    """Of a comparison, which video is being made."""


@dataclass(frozen=True)
class Preview:
    """How the video looks by now."""

    jpeg: str
    """A picture of its middle frame, base64."""


@dataclass(frozen=True)
class Note:
    """Something that the user should know."""

    text: str


@dataclass(frozen=True)
class Result:
    """The file is there."""

    path: str
    infotext: str
    seconds: float
    report: dict[str, Any] | None
    """What guidance did; None where there was none."""
    still: str = ""
    """The picture that goes with a comparison."""


@dataclass(frozen=True)
class Drawn:
    """The picture's file is there, and what goes with it."""

    path: str
    infotext: str
    seconds: float
    without: str = ""
    """The file of the picture without guidance, if it was drawn; likewise the others."""
    heatmap: str = ""
    film: str = ""


@dataclass(frozen=True)
class Failed:
    """The job is over without a file, and the worker takes the next."""

    message: str
    advice: str = ""
    """What could be tried instead."""
    defect: bool = False
    """Whether the user could not have caused it: then the log holds a traceback."""


@dataclass(frozen=True)
class Cancelled:
    """The user stopped the job."""


@dataclass(frozen=True)
class Plan:
    """What a download would fetch. Sizes in bytes."""

    path: str
    """The folder or file that it becomes."""
    files: list[str]
    total: int
    here: int
    """Of them, from an earlier attempt; all of them if nothing is left to do."""
    free: int
    """On the disk that it goes to."""

    @property
    def missing(self) -> int:
        """Still to fetch."""
        return self.total - self.here


@dataclass(frozen=True)
class Fetching:
    """Where a download stands."""

    done: int
    total: int
    """Bytes."""
    speed: float
    """Bytes per second, of late."""
    seconds_left: float | None


@dataclass(frozen=True)
class Fetched:
    """The download is there, whole."""

    path: str


@dataclass(frozen=True)
class Serving:
    """The page is there, for this machine alone."""

    port: int


@dataclass(frozen=True)
class Turn:
    """A job is to be made, and waits for its turn in the row of the owner's own work."""

    id: int
    prompt: str
    seed: int
    width: int
    height: int


@dataclass(frozen=True)
class Over:
    """That job has ended, however, or does not wait any more."""

    id: int


Event: TypeAlias = (
    Ready
    | Progress
    | Preview
    | Note
    | Result
    | Drawn
    | Failed
    | Cancelled
    | Plan
    | Fetching
    | Fetched
    | Serving
    | Turn
    | Over
)
_KINDS: dict[str, type[Any]] = {kind.__name__.lower(): kind for kind in get_args(Event)}


def write(event: Event) -> str:
    """One line, ASCII, without its end."""
    return json.dumps({type(event).__name__.lower(): asdict(event)})


def read(line: str) -> Event | None:
    """The event in a line, or None for one of a later version."""
    try:
        ((kind, values),) = json.loads(line).items()
        event: Event = _KINDS[kind](**values)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return event
