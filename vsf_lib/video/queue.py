"""The queue of jobs in one file on disk, which several pages and processes may use at once.

Owns order and states, and that nothing is lost: every change is one transaction with SQLite's rollback
journal, and a job that ran when its process died is the first again. Knows no worker and no page.

    waiting -> running -> done | failed | cancelled; any of these can be made waiting again
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vsf_lib.errors import OutputError, SettingsError, VSFError
from vsf_lib.video.job import VideoJob

WAITING, RUNNING, DONE, FAILED, CANCELLED = "waiting", "running", "done", "failed", "cancelled"
_VERSION = 2
_PATIENCE = 30.0
"""Seconds for which one process waits for another one's transaction."""
_SCHEMA = """
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    place INTEGER NOT NULL,
    state TEXT NOT NULL,
    job TEXT NOT NULL,
    message TEXT NOT NULL DEFAULT '',
    path TEXT NOT NULL DEFAULT '',
    infotext TEXT NOT NULL DEFAULT '',
    added REAL NOT NULL,
    ended REAL,
    seconds REAL
);
CREATE TABLE flags (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
_SINCE_1 = "ALTER TABLE jobs ADD COLUMN seconds REAL"
_COLUMNS = "id, state, job, message, path, infotext, added, ended, seconds"


@dataclass(frozen=True)
class Entry:
    """A job in the queue."""

    id: int
    state: str
    job: VideoJob
    message: str
    """Why it failed, or where it stands."""
    path: str
    """The finished file."""
    infotext: str
    added: float
    ended: float | None
    """Seconds since the epoch."""
    seconds: float | None
    """How long the finished job took."""


class Queue:
    """Opens its file for each call, so that it can be used from any thread."""

    def __init__(self, file: Path) -> None:
        """Makes the file if there is none; raises OutputError for one that is damaged or from later."""
        self._file = file
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make the folder {file.parent}: {error.strerror}") from error
        with self._change() as db:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version > _VERSION:
                raise OutputError(f"{file} was made by a later version of VSF: update this one")
            if version == 0:
                for statement in _SCHEMA.split(";"):
                    db.execute(statement)
            if version == 1:
                db.execute(_SINCE_1)
            if version < _VERSION:
                db.execute(f"PRAGMA user_version = {_VERSION}")

    def entries(self, *states: str) -> list[Entry]:
        """All, or those in `states`: what runs, what waits in order, then what has ended, latest first."""
        chosen = f"WHERE state IN ({', '.join('?' * len(states))}) " if states else ""
        return self._select(f"{chosen}ORDER BY ended IS NOT NULL, ended DESC, {_waits}, place", states)

    def history(self, limit: int) -> list[Entry]:
        """The latest `limit` that have ended, the last one first."""
        return self._select("WHERE ended IS NOT NULL ORDER BY ended DESC LIMIT ?", (limit,))

    def entry(self, id: int) -> Entry:
        """The entry of that number; raises SettingsError if it was removed."""
        found = self._select("WHERE id = ?", (id,))
        if not found:
            raise SettingsError(f"job {id} is not in the queue any more: someone has removed it")
        return found[0]

    def add(self, job: VideoJob) -> int:
        """Puts `job` at the end and returns its number."""
        with self._change() as db:
            return self._insert(db, job, self._last(db) + 1)

    def edit(self, id: int, job: VideoJob) -> None:
        """Another job in the place of one that waits."""
        with self._change() as db:
            self._must_be(db, id, WAITING)
            db.execute("UPDATE jobs SET job = ? WHERE id = ?", (_text(job), id))

    def duplicate(self, id: int) -> int:
        """The same job once more, at the end."""
        return self.add(self.entry(id).job)

    def move(self, id: int, to: int) -> None:
        """Makes a waiting job the one at `to` (0 is the head) among those that wait."""
        with self._change() as db:
            self._must_be(db, id, WAITING)
            order = [row[0] for row in db.execute(f"SELECT id FROM jobs WHERE {_waits} ORDER BY place")]
            order.remove(id)
            order.insert(max(0, to), id)
            self._number(db, order)

    def withdraw(self, id: int) -> None:
        """A job that waits is cancelled: it stays in the history, and can be made again."""
        with self._change() as db:
            self._must_be(db, id, WAITING)
            self._set(db, id, state=CANCELLED, ended=time.time())

    def remove(self, id: int, *states: str) -> None:
        """Forgets a job that does not run, or is in one of `states`; its file stays."""
        with self._change() as db:
            self._must_be(db, id, *(states or (WAITING, DONE, FAILED, CANCELLED)))
            db.execute("DELETE FROM jobs WHERE id = ?", (id,))

    def again(self, id: int) -> int:
        """A job that failed or was cancelled waits once more, at the end; a finished one is doubled.

        Returns the number of the one that waits: what was made stays in the history.
        """
        with self._change() as db:
            self._must_be(db, id, DONE, FAILED, CANCELLED)
            if db.execute("SELECT state FROM jobs WHERE id = ?", (id,)).fetchone()[0] != DONE:
                self._wait(db, id, self._last(db) + 1)
                return id
        return self.duplicate(id)

    @property
    def paused(self) -> bool:
        """Whether no job is begun."""
        with self._open() as db:
            return db.execute("SELECT 1 FROM flags WHERE name = 'paused'").fetchone() is not None

    @paused.setter
    def paused(self, paused: bool) -> None:
        with self._change() as db:
            if paused:
                db.execute("INSERT OR REPLACE INTO flags VALUES ('paused', '1')")
            else:
                db.execute("DELETE FROM flags WHERE name = 'paused'")

    def take(self) -> Entry | None:
        """The job at the head, which runs from now on; None while the queue is empty or paused."""
        with self._change() as db:
            if db.execute("SELECT 1 FROM flags WHERE name = 'paused'").fetchone():
                return None
            heads = db.execute(f"SELECT {_COLUMNS} FROM jobs WHERE {_waits} ORDER BY place").fetchall()
            for row in heads:
                entry = _entry(row)
                if entry.state != WAITING:  # what cannot be read
                    self._set(db, entry.id, state=FAILED, message=entry.message, ended=time.time())
                    continue
                self._set(db, entry.id, state=RUNNING, message="")
                return replace(entry, state=RUNNING, message="")
        return None

    def done(self, id: int, path: str, infotext: str, *, seconds: float | None = None) -> None:
        """The job has become the file `path`."""
        self._end(id, DONE, path=path, infotext=infotext, seconds=seconds)

    def failed(self, id: int, message: str) -> None:
        """The job has ended without a file."""
        self._end(id, FAILED, message=message)

    def cancelled(self, id: int) -> None:
        """The user has stopped the job."""
        self._end(id, CANCELLED)

    def recover(self) -> int:
        """What ran when its process died waits at the head again; for the one process that runs jobs."""
        with self._change() as db:
            lost = [
                row[0] for row in db.execute("SELECT id FROM jobs WHERE state = ? ORDER BY place", (RUNNING,))
            ]
            waiting = [row[0] for row in db.execute(f"SELECT id FROM jobs WHERE {_waits} ORDER BY place")]
            for id in lost:
                self._wait(db, id, 0)
            self._number(db, lost + waiting)
        return len(lost)

    def _select(self, which: str, values: tuple[object, ...]) -> list[Entry]:
        with self._open() as db:
            rows = db.execute(f"SELECT {_COLUMNS} FROM jobs {which}", values).fetchall()
        return [_entry(row) for row in rows]

    def _end(self, id: int, state: str, **values: object) -> None:
        with self._change() as db:
            self._must_be(db, id, RUNNING)
            self._set(db, id, state=state, ended=time.time(), **values)

    @staticmethod
    def _set(db: sqlite3.Connection, id: int, **values: object) -> None:
        columns = ", ".join(f"{name} = ?" for name in values)
        db.execute(f"UPDATE jobs SET {columns} WHERE id = ?", (*values.values(), id))

    @staticmethod
    def _insert(db: sqlite3.Connection, job: VideoJob, place: int) -> int:
        row = db.execute(
            "INSERT INTO jobs (place, state, job, added) VALUES (?, ?, ?, ?)",
            (place, WAITING, _text(job), time.time()),
        )
        return int(row.lastrowid or 0)

    @staticmethod
    def _wait(db: sqlite3.Connection, id: int, place: int) -> None:
        db.execute(
            "UPDATE jobs SET state = ?, place = ?, message = '', path = '', infotext = '', ended = NULL, "
            "seconds = NULL WHERE id = ?",
            (WAITING, place, id),
        )

    @staticmethod
    def _last(db: sqlite3.Connection) -> int:
        return int(db.execute("SELECT COALESCE(MAX(place), 0) FROM jobs").fetchone()[0])

    @staticmethod
    def _number(db: sqlite3.Connection, order: list[int]) -> None:
        first = int(db.execute("SELECT COALESCE(MIN(place), 0) FROM jobs").fetchone()[0]) - len(order)
        db.executemany(
            "UPDATE jobs SET place = ? WHERE id = ?", [(first + at, id) for at, id in enumerate(order)]
        )

    @staticmethod
    def _must_be(db: sqlite3.Connection, id: int, *states: str) -> None:
        row = db.execute("SELECT state FROM jobs WHERE id = ?", (id,)).fetchone()
        if row is None:
            raise SettingsError(f"job {id} is not in the queue any more: someone has removed it")
        if row[0] not in states:
            raise SettingsError(f"job {id} is {row[0]}, but this needs one that is {' or '.join(states)}")

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self._file, timeout=_PATIENCE, isolation_level=None)) as db:
                yield db
        except sqlite3.OperationalError as error:
            raise OutputError(
                f"cannot use the queue {self._file}: {error}; check that its disk has room and is writable"
            ) from error
        except sqlite3.DatabaseError as error:
            raise OutputError(
                f"the queue {self._file} is damaged ({error}): move that file away to begin a new one"
            ) from error

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it happens, or nothing."""
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")


_waits = f"state = '{WAITING}'"


def _entry(row: tuple[Any, ...]) -> Entry:
    """One that cannot be read, as another version may have written it, is shown as failed."""
    id, state, job, message, *rest = row
    try:
        return Entry(id, state, VideoJob.create(**json.loads(job)), message, *rest)
    except (VSFError, ValueError, TypeError) as error:
        lost = VideoJob(prompt="(a job of another version)")
        return Entry(id, FAILED, lost, f"it cannot be read here: {error}", *rest)


def _text(job: VideoJob) -> str:
    values: dict[str, Any] = job.model_dump(mode="json")
    return json.dumps(values, ensure_ascii=False)
