"""The row of pictures that are to be drawn, one after the other, by a worker process that stays.

Owns whose turn it is, and how each job stands. In memory alone: what was drawn is in its folder, and a job
that had not begun is quickly asked for again. Knows no page; several may use it at once.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vsf_lib.errors import SettingsError, VSFError
from vsf_lib.images.asked import Asked
from vsf_lib.images.process import End, Worker
from vsf_lib.jobs import messages
from vsf_lib.jobs.locks import Withdrawn
from vsf_lib.scenes.model import MODELS

log = logging.getLogger("vsf")

WAITING, RUNNING, DONE, FAILED, CANCELLED = "waiting", "running", "done", "failed", "cancelled"
_KEPT = 200
"""Ended jobs that are still known."""


@dataclass(frozen=True)
class Job:
    """How a job stands; another object once that changes."""

    id: int
    asked: Asked
    state: str = WAITING
    stage: str = ""
    step: int = 0
    steps: int = 0
    """Of all its pictures; 0 while none is drawn."""
    seconds_left: float | None = None
    notes: tuple[str, ...] = ()
    message: str = ""
    """Why it failed."""
    drawn: messages.Drawn | None = None
    key: str = field(default_factory=lambda: secrets.token_hex(8))
    """What only the one who asked for it knows: numbers begin anew with the program."""

    @property
    def ended(self) -> bool:
        """Whether it will not change any more."""
        return self.state not in (WAITING, RUNNING)


class Row:
    """One per program, from any thread; `start` begins, `close` ends."""

    def __init__(
        self,
        folder: Path,
        *,
        worker: Callable[[], Worker] = Worker,
        turn: Callable[[Callable[[], bool]], AbstractContextManager[object]] | None = None,
    ) -> None:
        """Pictures go to `folder`. `turn` is entered around each job with a function that says whether it was
        stopped meanwhile, and raises Withdrawn then."""
        self._folder = folder
        self._new_worker = worker
        self._turn = turn or (lambda stopped: nullcontext())
        self._worker: Worker | None = None
        self._jobs: dict[int, Job] = {}
        self._cancelled: set[int] = set()
        self._last = 0
        self._heavy = False
        """Whether the worker may hold a model that is not one of the small ones."""
        self._over = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="vsf-pictures", daemon=True)

    def start(self) -> None:
        """Begins to take jobs, and starts the worker, which takes a while."""
        self._thread.start()

    def close(self) -> None:
        """Ends the worker and what it draws."""
        with self._changed:
            self._over = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def add(self, asked: Asked) -> int:
        """Puts a job at the end and returns its number."""
        with self._changed:
            self._last += 1
            self._jobs[self._last] = Job(self._last, asked)
            ended = [id for id, job in self._jobs.items() if job.ended]
            for id in ended[:-_KEPT]:
                del self._jobs[id]
            self._changed.notify_all()
            return self._last

    def job(self, id: int) -> Job:
        """How that job stands; raises SettingsError if it is not known any more."""
        with self._changed:
            return self._known(id)

    def keyed(self, key: str) -> Job | None:
        """The job with that key, if it is still known."""
        with self._changed:
            return next((job for job in self._jobs.values() if job.key == key), None)

    def before(self, id: int) -> int:
        """How many jobs come before that one."""
        with self._changed:
            return sum(not job.ended and job.id < id for job in self._jobs.values())

    def wait(self, job: Job, seconds: float) -> Job:
        """How the job stands once that has changed, or after so long."""
        with self._changed:
            self._changed.wait_for(lambda: self._known(job.id) is not job, seconds)
            return self._known(job.id)

    def cancel(self, id: int) -> None:
        """Takes a job out of the row, or stops it; nothing if it has ended."""
        with self._changed:
            job = self._known(id)
            if job.state == WAITING:
                self._jobs[id] = replace(job, state=CANCELLED)
            elif job.state == RUNNING:
                self._cancelled.add(id)
            self._changed.notify_all()

    def make_room(self) -> None:
        """Ends the worker if it holds a large model; for who holds the `turn`."""
        if self._heavy:
            self._end_worker()

    def _known(self, id: int) -> Job:
        if id not in self._jobs:
            raise SettingsError(f"picture {id} is not known any more: ask for it again")
        return self._jobs[id]

    def _run(self) -> None:
        try:
            self._start_worker()
        except VSFError as error:  # tried again with the first job, which says so
            log.warning("%s", error)
        while (job := self._next()) is not None:
            self._draw(job)
        self._end_worker()

    def _next(self) -> Job | None:
        with self._changed:
            while not self._over:
                waiting = [job for job in self._jobs.values() if job.state == WAITING]
                if waiting:
                    return self._set(waiting[0].id, state=RUNNING, stage="waiting for its turn")
                self._changed.wait()
        return None

    def _draw(self, job: Job) -> None:
        end: End
        try:
            with self._turn(lambda: self._stopped(job.id)):
                heavy = job.asked.model not in (None, *MODELS)
                worker = self._start_worker()
                self._heavy = self._heavy or heavy
                end = worker.draw(
                    job.asked,
                    self._folder,
                    lambda event: self._look(job.id, event),
                    lambda: self._stopped(job.id),
                )
                if isinstance(end, messages.Drawn):  # else it may hold the one of the job before
                    self._heavy = heavy
        except Withdrawn:
            end = messages.Cancelled()
        except Exception as error:
            if not isinstance(error, VSFError):
                log.exception("picture %d", job.id)
            end = messages.Failed(str(error) or type(error).__name__)
        if isinstance(end, messages.Drawn):
            self._set(job.id, state=DONE, drawn=end)
        elif isinstance(end, messages.Cancelled):
            self._set(job.id, state=CANCELLED)
        else:
            said = f"{end.message}; {end.advice}" if end.advice else end.message
            self._set(job.id, state=FAILED, message=said)

    def _stopped(self, id: int) -> bool:
        return self._over or id in self._cancelled

    def _look(self, id: int, event: messages.Event) -> None:
        if isinstance(event, messages.Progress):
            self._set(
                id, stage=event.stage, step=event.step, steps=event.steps, seconds_left=event.seconds_left
            )
        elif isinstance(event, messages.Note):
            self._set(id, notes=(*self.job(id).notes, event.text))

    def _set(self, id: int, **values: Any) -> Job:
        with self._changed:
            self._jobs[id] = replace(self._jobs[id], **values)
            if self._jobs[id].ended:
                self._cancelled.discard(id)
            self._changed.notify_all()
            return self._jobs[id]

    def _start_worker(self) -> Worker:
        if self._worker is None or not self._worker.alive:
            self._end_worker()
            self._worker = self._new_worker()
        return self._worker

    def _end_worker(self) -> None:
        worker, self._worker, self._heavy = self._worker, None, False
        if worker is not None:
            worker.close()
