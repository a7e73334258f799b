"""The flags of a sweep, and what they come to together with an older picture's: no model, no torch.

Owns which files a sweep can be, and which other flags it does not go with.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vsf_lib.errors import OutputError, SettingsError
from vsf_lib.settings import field as setting
from vsf_lib.sweep import FPS, INFOTEXT, LOOP, USUAL_FPS, Plan, Sweep, sweepable

FILMS = (".mp4", ".webm", ".gif")
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


def plan_of(args: Namespace, extra: Mapping[str, str], given: Mapping[str, Any]) -> Plan | None:
    """What is to be swept: as asked for, or as the older picture's `extra` says.

    `given` are the settings that were given: one of the swept field draws that one value of an older sweep.
    Raises SettingsError for flags that contradict it.
    """
    old = Sweep.parse(extra[INFOTEXT]) if INFOTEXT in extra else None
    if args.sweep is not None:
        sweep = Sweep.parse(args.sweep)
        if sweep.name in given:
            raise SettingsError(
                f"--sweep runs over {sweep.name}, and {setting(sweep.name).flag} gives it one value: drop one"
            )
    elif old is not None and old.name not in given and not args.compare:
        sweep = old
    else:
        for name in ("fps", "loop"):
            if getattr(args, name):
                raise SettingsError(
                    f"--{name} goes with --sweep: add --sweep FIELD=LOW:HIGH:STEP, or drop it"
                )
        return None
    if args.compare:
        raise SettingsError("a sweep shows the picture without guidance beside the others: drop --compare")
    fps = args.fps if args.fps is not None else _told_fps(extra)
    return Plan(sweep, fps, args.loop or LOOP in extra)


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


def read_film(path: Path) -> str:
    """The infotext of a film that a sweep was drawn as; raises SettingsError."""
    from vsf_lib.video.files import read_infotext

    infotext = read_infotext(path)
    if f"{INFOTEXT}:" not in infotext:
        raise SettingsError(
            f"{path} is no film of a sweep: repeat a video by python -m vsf_lib video --from-file"
        )
    return infotext


def _told_fps(extra: Mapping[str, str]) -> int:
    told = extra.get(FPS, str(USUAL_FPS))
    try:
        return int(told)
    except ValueError:
        raise SettingsError(f"{FPS} is {told!r} in the infotext, but must be a whole number") from None
