"""Files that appear whole or not at all, whatever happens while they are written, and free names for them."""

from __future__ import annotations

import itertools
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vsf_lib.errors import OutputError

_LONGEST = 40
"""Signs of a prompt in a file's name."""


@contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """Yields a name to write to; on leaving without an error that file becomes `target`.

    An older `target` stays until then, and after an error. Raises OSError as writing does.
    """
    # In the same folder, so that the last move stays on one disk; not by tempfile, whose files are private.
    part = target.with_name(f".vsf-{secrets.token_hex(8)}.part")
    try:
        part.open("xb").close()
        yield part
        with part.open("r+b") as file:
            os.fsync(file.fileno())
        replace(part, target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def check_writable(folder: Path) -> None:
    """Makes `folder` if need be and writes to it; raises OSError where that cannot be done."""
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f".vsf-{secrets.token_hex(8)}.part"
    try:
        probe.write_bytes(b"\0")
    finally:
        probe.unlink(missing_ok=True)


def check_keeps(folder: Path, what: str, shown: str = "") -> None:
    """Raises OutputError where `what` could not be kept in `folder`, which is called `shown` if given.

    Asked before the work, after which it would be lost.
    """
    try:
        check_writable(folder)
    except OSError as error:
        raise OutputError(
            f"nothing is made, because {what} could not be kept in {shown or folder}: {reason(error)}; make "
            "room or give this program leave to write there"
        ) from error


def free_name(folder: Path, prompt: str, rest: str, suffix: str) -> Path:
    """A path in `folder`: the prompt in plain ASCII, `rest`, a number if need be.

    Nothing has its stem yet, whatever the ending: a `.txt` or a folder of pictures may lie beside a file.
    """
    words = "-".join(re.findall(r"[a-z0-9]+", prompt.lower()))[:_LONGEST].strip("-")
    stem = f"{words or 'untitled'}-{rest}"
    names = itertools.chain([stem], (f"{stem}-{again}" for again in itertools.count(2)))
    taken = {name for path in folder.glob("*") for name in (path.name, path.stem)}
    return folder / f"{next(name for name in names if name not in taken)}{suffix}"


def show_folder(folder: Path) -> None:
    """Has the system's file manager show `folder`; raises OutputError where there is none."""
    if not folder.is_dir():
        raise OutputError(f"there is no folder {folder} yet: it appears with the first file")
    if sys.platform == "win32":
        os.startfile(folder)
        return
    program = shutil.which("open" if sys.platform == "darwin" else "xdg-open")
    if program is None:
        raise OutputError(f"this system has no file manager to open {folder} with")
    subprocess.Popen([program, str(folder)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def reason(error: OSError | ValueError) -> str:
    """What the system says of it, in a few words."""
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)


def replace(part: Path, target: Path) -> None:
    """Moves `part` to `target` on the same disk, over an older one; raises OSError."""
    for pause in (0.05, 0.1, 0.2, 0.4, 0.8):
        try:
            part.replace(target)
        except PermissionError:
            # On Windows a viewer or a virus scanner may hold either of them for a moment.
            if os.name != "nt":
                raise
            time.sleep(pause)
        else:
            return
    part.replace(target)
