"""Downloads as a page or a command has them: what one would fetch, fetching it, and how far that is.

Owns which downloads of this program are under way. Imports nothing of the hub's: the process does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from vsf_lib.errors import ModelError, SettingsError, VSFError
from vsf_lib.jobs import messages
from vsf_lib.jobs.child import Child
from vsf_lib.jobs.messages import Plan
from vsf_lib.video.download.catalogue import Source
from vsf_lib.video.download.landing import found, shortage, spoken_size
from vsf_lib.video.single_file.kinds import LORA

__all__ = ["ASK", "Downloads", "Plan", "State", "button", "fetch", "found", "label", "plan", "refusal"]

Stage = Literal["asking", "ready", "fetching", "done", "failed", "cancelled"]
_BUSY = ("asking", "fetching")
ASK = "How large is it?"


class _Fetcher(Child):
    """The process that fetches, for one order."""

    def __init__(self, overlay: Path | None, environment: dict[str, str] | None) -> None:
        super().__init__(
            "vsf_lib.video.download.fetching",
            "the download process",
            overlay=overlay,
            environment=environment,
            grace=1.0,
        )

    def __enter__(self) -> _Fetcher:
        return self

    def take(
        self,
        order: dict[str, object],
        look: Callable[[messages.Event], None],
        stopped: Callable[[], bool],
    ) -> Plan | messages.Fetched | None:
        """What the order led to, None if it was stopped; raises ModelError with what went wrong."""
        self._say(order)
        last = messages.Plan if "plan" in order else messages.Fetched
        end = self._follow((last, messages.Failed), look, stopped, self.kill)
        if isinstance(end, messages.Failed):
            raise ModelError(end.message)
        return end if isinstance(end, (Plan, messages.Fetched)) else None


def plan(
    source: Source,
    root: Path,
    *,
    overlay: Path | None = None,
    environment: dict[str, str] | None = None,
    stopped: Callable[[], bool] = lambda: False,
    places: Mapping[str, Path] | None = None,
) -> Plan | None:
    """What fetching `source` into the folder `root` takes, `places` as in `fetch`; None if it was stopped.

    Raises ModelError where it cannot be fetched, with the remedy.
    """
    order = {"plan": str(source), "into": str(root), **_told(places)}
    with _Fetcher(overlay, environment) as process:
        end = process.take(order, lambda event: None, stopped)
    return end if isinstance(end, Plan) else None


def fetch(
    source: Source,
    root: Path,
    look: Callable[[messages.Event], None] = lambda event: None,
    stopped: Callable[[], bool] = lambda: False,
    *,
    overlay: Path | None = None,
    environment: dict[str, str] | None = None,
    pauses: tuple[float, ...] | None = None,
    places: Mapping[str, Path] | None = None,
) -> Path | None:
    """Fetches it, or the rest of it; where it lies then, or None if it was stopped.

    `look` sees Plan, Fetching and Note. `places` are folders by kind (see `single_file.kinds`): a single file
    that turns out to be of such a kind lands there, any other in `root`. Raises ModelError where it cannot be
    fetched, with the remedy.
    """
    order: dict[str, object] = {"fetch": str(source), "into": str(root), **_told(places)}
    if pauses is not None:
        order["pauses"] = pauses
    with _Fetcher(overlay, environment) as process:
        end = process.take(order, look, stopped)
    return Path(end.path) if isinstance(end, messages.Fetched) else None


def _told(places: Mapping[str, Path] | None) -> dict[str, object]:
    return {"places": {kind: str(folder) for kind, folder in places.items()}} if places else {}


def refusal(plan: Plan) -> str:
    """Why a plan cannot be carried out, in one line; nothing if it can."""
    return shortage(plan.missing, plan.free, Path(plan.path).parent)


def button(plan: Plan) -> str:
    """What a button for it says."""
    if not plan.missing:
        return "Already here" if Path(plan.path).exists() else "Finish the download"
    free = f"{spoken_size(plan.free)} free"
    if plan.here:
        return f"Resume the download: {spoken_size(plan.missing)} of {spoken_size(plan.total)} ({free})"
    return f"Download {spoken_size(plan.total)} ({free})"


@dataclass(frozen=True)
class State:
    """Where one download stands."""

    source: Source
    stage: Stage
    plan: Plan | None = None
    progress: messages.Fetching | None = None
    note: str = ""
    """What happened on the way, such as an interruption."""
    message: str = ""
    """What went wrong."""
    path: Path | None = None
    """Where it lies, when it is done."""

    @property
    def busy(self) -> bool:
        """Whether a process works on it."""
        return self.stage in _BUSY

    @property
    def ready(self) -> bool:
        """Whether a button to start it makes sense."""
        return not self.busy and self.plan is not None and self.stage != "done" and not refusal(self.plan)

    @property
    def share(self) -> float:
        """Of its bytes, from 0 to 1."""
        if self.stage == "done":
            return 1.0
        return self.progress.done / self.progress.total if self.progress and self.progress.total else 0.0

    @property
    def text(self) -> str:
        """All of it in one line."""
        if self.stage == "asking":
            return f"{self.source}: asking for its size"
        if self.stage == "failed":
            return self.message
        if self.stage == "done":
            return f"{self.source} is there: {self.path}"
        if self.stage == "ready":
            assert self.plan is not None
            return refusal(self.plan) or f"{self.source}: {len(self.plan.files)} files, into {self.plan.path}"
        if self.stage == "cancelled":
            return f"{self.source}: stopped; what was fetched is kept"
        return spoken(self.progress) + (f"; {self.note}" if self.note else "")


def label(state: State | None) -> str:
    """What the button for a download says: `press` does just that."""
    return ASK if state is None or state.plan is None else button(state.plan)


def spoken(progress: messages.Fetching | None) -> str:
    """`4.2 GB of 17.2 GB, 35.0 MB/s, 6 min left`."""
    if progress is None:
        return "beginning"
    text = f"{spoken_size(progress.done)} of {spoken_size(progress.total)}"
    if progress.done == progress.total:
        return f"{text}, checking"
    if progress.seconds_left is None:
        return text
    minutes, seconds = divmod(round(progress.seconds_left), 60)
    left = f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min" if minutes else ""
    return f"{text}, {spoken_size(progress.speed)}/s, {left or f'{seconds} s'} left"


class Downloads:
    """All downloads of one program: models into one folder, LoRAs into another.

    `files` has the folders for other single files by their kind (see `single_file.kinds`); without it all of
    them go to the LoRAs.
    """

    def __init__(
        self,
        models: Path | None,
        loras: Path | None,
        overlay: Callable[[], Path | None] = lambda: None,
        environment: dict[str, str] | None = None,
        files: Mapping[str, Path] | None = None,
    ) -> None:
        self._models = models
        self._loras = loras
        self._places = dict(files or {})
        if self._places and loras is not None:
            self._places[LORA] = loras
        self._overlay = overlay
        self._environment = environment
        self._guard = threading.Lock()
        self._states: dict[Source, State] = {}
        self._stops: dict[Source, threading.Event] = {}
        self._threads: list[threading.Thread] = []

    def ask(self, source: Source) -> None:
        """Has its plan made: its state is "asking", then "ready" or "failed". Nothing if it is busy."""
        self._begin(source, "asking")

    def start(self, source: Source) -> None:
        """Starts or resumes it; raises SettingsError if it runs already or has no place to go."""
        if not self._begin(source, "fetching"):
            raise SettingsError(f"{source} is being fetched already: wait for it, or cancel it")

    def press(self, source: Source, shown: str) -> None:
        """Does what a button `shown` with that label says: starts a download of that size, or asks for it.

        Another page may have asked since, so what is known does not tell what its user has seen. Raises
        SettingsError as `start` does.
        """
        state = self.state(source)
        if state is not None and state.ready and shown == label(state):
            self.start(source)
        else:
            self.ask(source)

    def cancel(self, source: Source) -> None:
        """Stops it within a second; what was fetched is kept."""
        with self._guard:
            stop = self._stops.get(source)
        if stop is not None:
            stop.set()

    def state(self, source: Source) -> State | None:
        """Of one that was asked for."""
        return self._states.get(source)

    def states(self) -> list[State]:
        """Of all that were asked for, the oldest first."""
        with self._guard:
            return list(self._states.values())

    def close(self) -> None:
        """Stops all of them."""
        with self._guard:
            stops, threads = list(self._stops.values()), list(self._threads)
        for stop in stops:
            stop.set()
        for thread in threads:
            thread.join()

    def root(self, source: Source) -> Path:
        """Where it goes, for a file by its name; raises SettingsError if this program has no such folder."""
        root = self._places.get(source.likely, self._loras) if source.file else self._models
        if root is None:
            raise SettingsError(f"there is no folder here that {source} could go to")
        return root

    def _begin(self, source: Source, stage: Stage) -> bool:
        root = self.root(source)
        with self._guard:
            before = self._states.get(source)
            if before is not None and before.busy:
                return False
            stop = self._stops[source] = threading.Event()
            self._states[source] = State(source, stage, plan=before.plan if before else None)
            thread = threading.Thread(target=self._run, args=(source, root, stage, stop), daemon=True)
            self._threads = [*(one for one in self._threads if one.is_alive()), thread]
            thread.start()
        return True

    def _run(self, source: Source, root: Path, stage: Stage, stop: threading.Event) -> None:
        def look(event: messages.Event) -> None:
            if isinstance(event, Plan):
                self._change(source, plan=event)
            elif isinstance(event, messages.Fetching):
                self._change(source, progress=event)
            elif isinstance(event, messages.Note):
                self._change(source, note=event.text)

        try:
            if stage == "asking":
                made = plan(
                    source,
                    root,
                    overlay=self._overlay(),
                    environment=self._environment,
                    stopped=stop.is_set,
                    places=self._places,
                )
                if made is not None and not made.missing and Path(made.path).exists():
                    self._change(source, stage="done", plan=made, path=Path(made.path))
                else:
                    self._change(source, stage="ready" if made else "cancelled", plan=made)
            else:
                path = fetch(
                    source,
                    root,
                    look,
                    stop.is_set,
                    overlay=self._overlay(),
                    environment=self._environment,
                    places=self._places,
                )
                self._change(
                    source, stage="done" if path else "cancelled", path=path, plan=self._after(source, path)
                )
        except VSFError as error:
            self._change(
                source,
                stage="failed",
                message=" ".join(str(error).split()),
                plan=self._after(source, None),
            )
        except BaseException:
            self._change(source, stage="failed", message="the download failed: see the log of this program")
            raise

    def _after(self, source: Source, path: Path | None) -> Plan | None:
        """The plan of a download that has ended: what is here by now is not to be fetched again."""
        state = self._states[source]
        if state.plan is None:
            return None
        if path is not None:
            return replace(state.plan, path=str(path), here=state.plan.total)
        fetched = (state.progress.done if state.progress else 0) - state.plan.here
        if fetched <= 0:
            return state.plan
        return replace(state.plan, here=state.plan.here + fetched, free=max(0, state.plan.free - fetched))

    def _change(self, source: Source, **values: object) -> None:
        with self._guard:
            self._states[source] = replace(self._states[source], **values)  # type: ignore[arg-type]
