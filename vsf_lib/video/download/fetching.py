"""The process in which downloads are made: `python -m vsf_lib.video.download.fetching [--overlay FOLDER]`.

Owns one order (see `messages`): what a source would fetch, or the fetching. It ends when its input closes, at
once and in the middle of a file: what is there is kept, and the next attempt goes on from it.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import json
import os
import sys
import threading
import time
import traceback
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from vsf_lib.errors import OutputError, VSFError
from vsf_lib.jobs import messages
from vsf_lib.jobs.line import own_line
from vsf_lib.jobs.locks import only_one
from vsf_lib.video.download import hub
from vsf_lib.video.download.catalogue import Source
from vsf_lib.video.download.landing import INDEX, Landing, Remote, free_space, shortage

PAUSES = (1.0, 3.0, 10.0, 30.0)
"""Seconds before each new attempt, when one after the other brought nothing."""
_PERIOD = 0.5
_WINDOW = 10.0
"""Seconds over which speed is measured."""

Emit = Callable[[messages.Event], None]
_T = TypeVar("_T")


def main(argv: list[str] | None = None) -> int:
    """Takes one order."""
    parser = ArgumentParser()
    parser.add_argument("--overlay", help="a folder of packages that come before all others")
    args = parser.parse_args(argv)
    if args.overlay:
        sys.path.insert(0, args.overlay)
    emit = own_line()
    line = sys.stdin.readline()
    if not line:
        return 0
    threading.Thread(target=_end_with_input, daemon=True).start()
    emit(run(json.loads(line), emit))
    return 0


def run(order: dict[str, Any], emit: Emit) -> messages.Event:
    """The event that ends the order, whatever happens."""
    root = Path(order["into"])
    try:
        source = Source.parse(order.get("plan") or order["fetch"])
        hub.prepare()
    except VSFError as error:
        return messages.Failed(str(error))
    try:
        places = {kind: Path(folder) for kind, folder in order.get("places", {}).items()}
        landing = Landing(root, source, places)
        if "plan" in order:
            return _plan(landing, hub.listing(source, landing.begun))
        return _fetch(landing, emit, tuple(order.get("pauses", PAUSES)))
    except Exception as error:
        known = hub.told(error, source, root)
        if known is not None:
            return messages.Failed(str(known))
        traceback.print_exc()
        return messages.Failed(f"{type(error).__name__}: {error}"[:500], defect=True)


def _end_with_input() -> None:
    # Not through sys.stdin, whose lock must be free when the process ends by itself.
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os._exit(1)


def _plan(landing: Landing, listing: hub.Listing) -> messages.Plan:
    here = listing.total if landing.there(listing.files) else landing.here(listing.files)
    return messages.Plan(
        path=str(landing.final),
        files=[file.name for file in listing.files],
        total=listing.total,
        here=here,
        free=free_space(landing.root),
    )


def _fetch(landing: Landing, emit: Emit, pauses: tuple[float, ...]) -> messages.Event:
    listing = hub.listing(landing.source, landing.begun)
    with only_one(landing.lock) as mine:
        if not mine:
            raise OutputError(
                f"{landing.source} is being fetched already, by this page or another program: wait for that"
            )
        landing.sweep()
        plan = _plan(landing, listing)
        emit(plan)
        if not plan.missing and landing.final.exists():
            return messages.Fetched(plan.path)
        lacking = shortage(plan.missing, plan.free, landing.root)
        if lacking:
            raise OutputError(lacking)
        landing.begin(listing.version)
        here = functools.partial(landing.here, listing.files)
        with _metered(here, listing.total, emit):
            for file in listing.files:
                if not landing.has(file):
                    get = functools.partial(_get, landing, listing.version, file)
                    _persist(get, here, emit, pauses)
                if file.name == INDEX:
                    landing.check_kind()
        return messages.Fetched(str(landing.land(listing.files)))


def _get(landing: Landing, version: str, file: Remote) -> None:
    try:
        hub.get(landing.source, version, file, landing.parts)
        landing.keep(file)
    except Exception as error:
        if hub.overrun(error):
            landing.forget_unfinished()
        raise


def _persist(act: Callable[[], _T], here: Callable[[], int], emit: Emit, pauses: tuple[float, ...]) -> _T:
    """Does it again after an interruption, as long as bytes arrive or a pause is left."""
    before = here()
    failed = 0
    while True:
        try:
            return act()
        except Exception as error:
            now = here()
            if now > before:
                failed = 0
            if not hub.transient(error) or failed == len(pauses):
                raise
            before = now
            pause = pauses[failed]
            failed += 1
            emit(messages.Note(f"the download was interrupted, trying again in {pause:g} s"))
            time.sleep(pause)


@contextlib.contextmanager
def _metered(here: Callable[[], int], total: int, emit: Emit) -> Iterator[None]:
    """Tells every half second how far it is, by what lies on the disk."""
    ended = threading.Event()

    def watch() -> None:
        seen = collections.deque([(time.monotonic(), here())])
        while not ended.wait(_PERIOD):
            now, done = time.monotonic(), here()
            seen.append((now, done))
            while now - seen[0][0] > _WINDOW:
                seen.popleft()
            speed = max(0.0, (done - seen[0][1]) / (now - seen[0][0])) if now > seen[0][0] else 0.0
            emit(messages.Fetching(done, total, speed, (total - done) / speed if speed else None))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


if __name__ == "__main__":
    sys.exit(main())
