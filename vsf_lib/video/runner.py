"""Takes jobs from the queue, one after the other, and has them made by the worker process.

Owns who runs the queue (one process on the machine, by a lock), where files go, and that one job's end,
however bad, is not the queue's. Knows no page and no host: what a host needs around a job comes in.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from vsf_lib.errors import SettingsError, VSFError
from vsf_lib.files import check_writable, free_name, reason
from vsf_lib.jobs import messages
from vsf_lib.jobs.locks import Withdrawn, only_one
from vsf_lib.scenes.model import WAN
from vsf_lib.video import progress
from vsf_lib.video.process import Worker
from vsf_lib.video.queue import WAITING, Entry, Queue

log = logging.getLogger("vsf")

_End: TypeAlias = "messages.Result | messages.Failed | messages.Cancelled"
_LOOK = 1.0
"""Seconds between looks at the queue, which other processes may change."""
_IDLE_LARGE = 15.0
"""Seconds that a worker is kept which may hold a large model: pictures want its memory."""


@dataclass(frozen=True)
class State:
    """Where the runner stands, for those who show it."""

    id: int | None = None
    """The job that runs."""
    stage: str = ""
    step: int = 0
    steps: int = 0
    seconds_left: float | None = None
    preview: str = ""
    """A JPEG, base64."""
    notes: tuple[str, ...] = ()
    finished: float = 0.0
    """Cost (see `progress`) of the jobs that have ended since the queue was last empty."""
    elsewhere: bool = False
    """Whether another process runs the queue."""
    problem: str = ""
    """Why no job is taken, while that is so."""
    part: str = ""
    """Of a comparison, which video is being made."""


class Surroundings:
    """What a program does around jobs; this one does nothing."""

    frees = ""
    """The label of a button that gives memory back to the system, for `free`; no button without one."""

    def free(self) -> None:
        """Gives back what memory the program can do without."""

    def folder(self, entry: Entry) -> Path:
        """Where the job's file goes, below the folder for all videos."""
        return Path()

    def notes(self, entry: Entry) -> tuple[str, ...]:
        """What the user should know while the job runs."""
        return ()

    def job(self, entry: Entry, stopped: Callable[[], bool]) -> AbstractContextManager[object]:
        """Entered for the length of the job; what it raises fails that job.

        While it waits for its turn it raises Withdrawn once `stopped()`.
        """
        return nullcontext()

    def stopped(self) -> bool:
        """Whether the program's own button says that the running job is to stop."""
        return False

    def progress(self, state: State) -> None:
        """The running job has got further."""


class Runner:
    """Lives as long as its program; `stop` ends it and what it runs."""

    def __init__(
        self,
        queue: Queue,
        folder: Path,
        *,
        lock: Path,
        worker: Callable[[], Worker] = Worker,
        around: Surroundings | None = None,
        idle: float = 60.0,
    ) -> None:
        """Files go to `folder`, or below it where `around` says so.

        After `idle` seconds without a job the worker is ended, so that its memory is free; sooner where it
        made more than the small built-in model's videos.
        """
        self._queue = queue
        self._folder = folder
        self._lock = lock
        self._new_worker = worker
        self._around = around or Surroundings()
        self._idle = idle
        self._worker: Worker | None = None
        self._large = False
        """Whether the worker may hold a model that is not the built-in one."""
        self._cancelled: int | None = None
        self._finished = 0.0
        self._ended: tuple[Entry, _End] | None = None
        self._over = threading.Event()
        self._changed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="vsf-videos", daemon=True)
        self.state = State()

    def start(self) -> None:
        """Begins to take jobs."""
        self._thread.start()

    def stop(self) -> None:
        """Ends; a job that runs is the first again when the queue is next run."""
        self._over.set()
        self._changed.set()
        self._thread.join()

    def wake(self) -> None:
        """The queue has changed: look now."""
        self._changed.set()

    def cancel(self, id: int) -> None:
        """Stops the job if it runs; one that waits is not touched."""
        if self.state.id == id:
            self._cancelled = id

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                with only_one(self._lock) as mine:
                    if mine:
                        self._queue.recover()
                        self._take()
                        return
                self.state = State(elsewhere=True)
            except (VSFError, OSError) as error:  # a full disk, say, that may be emptied
                self._complain(error)
            self._over.wait(_LOOK)

    def _take(self) -> None:
        self.state = State()
        last = time.monotonic()
        try:
            while not self._over.is_set():
                entry = self._next() if self._recorded() else None
                if entry is not None:
                    self._make(entry)
                    last = time.monotonic()
                    continue
                if self._worker is not None and time.monotonic() > last + self._patience:
                    self._end_worker()
                self._changed.wait(_LOOK)
                self._changed.clear()
        finally:
            self._end_worker()

    @property
    def _patience(self) -> float:
        return min(self._idle, _IDLE_LARGE) if self._large else self._idle

    def _next(self) -> Entry | None:
        try:
            entry = self._queue.take()
            if entry is None and not self._queue.entries(WAITING):
                self._finished = 0.0
            if self.state.problem:
                self.state = State()
        except VSFError as error:
            self._complain(error)
            return None
        return entry

    def _complain(self, error: Exception) -> None:
        if str(error) != self.state.problem:
            log.warning("%s", error)
        self.state = State(problem=str(error))

    def _make(self, entry: Entry) -> None:
        self._cancelled = None
        self.state = State(id=entry.id, stage="waiting", finished=self._finished)
        end: _End
        try:
            with self._around.job(entry, lambda: self._stopped(entry)):
                self.state = replace(self.state, notes=self._around.notes(entry))
                end = self._in_worker(entry)
        except Withdrawn:
            end = messages.Cancelled()
        except Exception as error:
            if not isinstance(error, VSFError):
                log.exception("video job %d", entry.id)
            end = messages.Failed(str(error) or type(error).__name__)
        finally:
            self.state = State()
            self._finished += progress.cost(entry.job)
        if self._over.is_set() and not isinstance(end, messages.Result):
            return  # it runs as far as the queue knows, and `recover` makes it the first again
        self._ended = (entry, end)
        self._recorded()

    def _stopped(self, entry: Entry) -> bool:
        return self._over.is_set() or self._cancelled == entry.id

    def _recorded(self) -> bool:
        """Whether the last job's end is in the queue by now; what cannot be written is tried again."""
        if self._ended is None:
            return True
        entry, end = self._ended
        try:
            self._record(entry, end)
        except SettingsError as error:  # removed meanwhile
            log.warning("%s", error)
        except VSFError as error:
            self._complain(error)
            return False
        self._ended = None
        return True

    def _in_worker(self, entry: Entry) -> _End:
        folder = self._folder / self._around.folder(entry)
        try:
            check_writable(folder)  # now, as after all the work there is nothing to do about it
        except OSError as error:
            return messages.Failed(
                f"cannot write to {folder}: {reason(error)}",
                "make room on its disk, or give this program leave to write there",
            )
        if self._worker is None or not self._worker.alive:
            self._end_worker()
            self._worker = self._new_worker()
        job = entry.job
        self._large = self._large or job.model != WAN
        kind = "-compare" if job.compare else ""
        path = free_name(folder, job.prompt, f"{job.seed}{kind}", f".{job.format}")
        return self._worker.make(
            job,
            path,
            self._look,
            lambda: self._stopped(entry) or self._around.stopped(),
        )

    def _look(self, event: messages.Event) -> None:
        if isinstance(event, messages.Progress):
            self.state = replace(
                self.state,
                stage=event.stage,
                step=event.step,
                steps=event.steps,
                seconds_left=event.seconds_left,
                part=event.part,
            )
            self._around.progress(self.state)
        elif isinstance(event, messages.Preview):
            self.state = replace(self.state, preview=event.jpeg)
        elif isinstance(event, messages.Note):
            self.state = replace(self.state, notes=(*self.state.notes, event.text))

    def _record(self, entry: Entry, end: _End) -> None:
        if isinstance(end, messages.Result):
            self._queue.done(entry.id, end.path, end.infotext, seconds=end.seconds)
        elif isinstance(end, messages.Cancelled):
            self._queue.cancelled(entry.id)
        else:
            self._queue.failed(entry.id, f"{end.message}; {end.advice}" if end.advice else end.message)

    def _end_worker(self) -> None:
        if self._worker is not None:
            self._worker.close()
            self._worker = None
        self._large = False
