"""The flags of a sweep, and which files it can be written as."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from vsf_lib.errors import OutputError
from vsf_lib.images.plans import FILMS
from vsf_lib.sweep import USUAL_FPS, sweepable

FILES = (".png", *FILMS)


def add_sweep(group: Any) -> None:
    """The flags, without defaults, so that an explicit one can be told from none."""
    group.add_argument(
        "--sweep",
        metavar="FIELD=LOW:HIGH:STEP",
        help="the same seed with one setting running over a range, or over FIELD=VALUE,VALUE,...: a strip of "
        f"pictures, or with --out x.mp4 a film. FIELD is one of {', '.join(sweepable())}",
    )
    group.add_argument(
        "--fps", type=int, metavar="N", help=f"a film's values per second (default: {USUAL_FPS})"
    )
    group.add_argument("--loop", action="store_true", help="a film that runs there and back")


def files_for(args: Namespace) -> tuple[str, ...]:
    """What a sweep can be written as, first what it is without a name: a film is repeated as one."""
    older = "" if args.from_image is None else Path(args.from_image).suffix.lower()
    return tuple(sorted(FILES, key=lambda suffix: suffix != older))


def check_file(args: Namespace, suffix: str) -> None:
    """Raises OutputError where a file of that ending could not be made of the sweep."""
    if suffix in FILMS:
        from vsf_lib.video.files import check_ffmpeg

        try:
            check_ffmpeg()
        except OutputError as error:
            raise OutputError(f"{error}, or end --out in .png for a strip of pictures") from None
        return
    for name in ("fps", "loop"):
        if getattr(args, name):
            raise OutputError(f"--{name} is for a film: end --out in {', '.join(FILMS)}, or drop it")
