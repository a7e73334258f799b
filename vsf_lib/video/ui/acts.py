"""What the buttons under the queue and the history do with the job that is chosen.

Owns their labels, and which list's jobs each of them is for. Knows no element and no event.
"""

from __future__ import annotations

from pathlib import Path

from vsf_lib.errors import SettingsError
from vsf_lib.video.comparison import still_of
from vsf_lib.video.desk import Desk
from vsf_lib.video.places import Rights
from vsf_lib.video.queue import CANCELLED, DONE, FAILED, RUNNING, WAITING, Entry
from vsf_lib.video.ui import told

QUEUE = {
    "cancel": "Cancel",
    "up": "Up",
    "down": "Down",
    "duplicate": "Duplicate",
    "edit": "Edit",
    "remove": "Remove",
}
_HISTORY = {"again": "Again", "folder": "Open folder", "forget": "Remove", "delete": "Delete file"}
DOUBLING = ("duplicate", "again")
"""Those that make another job, see `once_more`."""
_NONE_CHOSEN = "no job is chosen: click one in the queue or the history"


def of_history(rights: Rights) -> dict[str, str]:
    """The history's buttons that a page with these rights has."""
    granted = {"folder": rights.open_folder, "delete": rights.delete}
    return {name: label for name, label in _HISTORY.items() if granted.get(name, True)}


def queued(desk: Desk, id: int) -> Entry:
    """The job that is chosen; raises SettingsError for none, and for one of the history."""
    if not id:
        raise SettingsError(_NONE_CHOSEN)
    # By the list it is in: what another version has put there is told as failed, and must be got rid of.
    found = next((entry for entry in desk.queue.entries(RUNNING, WAITING) if entry.id == id), None)
    if found is None:
        state = desk.queue.entry(id).state
        raise SettingsError(f"job {id} is {state}: choose one in the queue, or a button of the history")
    return found


def act(desk: Desk, name: str, id: int, cache: Path) -> str:
    """Does what the button `name` says, and says what has happened; raises VSFError.

    In `cache` gradio keeps copies of what it shows.
    """
    queue, said = desk.queue, ""
    if not id and name != "folder":
        raise SettingsError(_NONE_CHOSEN)
    if name in QUEUE:
        queued(desk, id)
    if name == "cancel":
        said = desk.cancel(id)
    elif name in ("up", "down"):
        waiting = [entry.id for entry in queue.entries(WAITING)]
        place = waiting.index(id) if id in waiting else 0
        queue.move(id, place + (1 if name == "down" else -1))
    elif name == "remove":
        queue.remove(id, WAITING)
    elif name == "forget":
        queue.remove(id, DONE, FAILED, CANCELLED)
    elif name == "folder":
        desk.open_folder(id)
    elif name == "delete":
        _delete(desk, id, cache)
        said = f"job {id} and its file are deleted"
    desk.runner.wake()
    return said


def once_more(desk: Desk, name: str, id: int) -> int:
    """The number of a job that is like the chosen one, or is that one, and waits; raises VSFError."""
    if not id:
        raise SettingsError(_NONE_CHOSEN)
    if name == "duplicate":
        queued(desk, id)
        made = desk.queue.duplicate(id)
    else:
        made = desk.queue.again(id)
    desk.runner.wake()
    return made


def _delete(desk: Desk, id: int, cache: Path) -> None:
    path = Path(desk.queue.entry(id).path)
    files = (path, still_of(path)) if path.name else ()  # a job that failed has none
    copies = [copy for file in files for copy in told.copies(file, cache)]
    desk.delete(id)
    for copy in copies:
        copy.unlink(missing_ok=True)
