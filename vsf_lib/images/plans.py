"""What a sweep comes to together with an older picture's: no model, no torch.

Owns what else that was asked for a sweep does not go with, and which files are films.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vsf_lib.errors import SettingsError
from vsf_lib.images.asked import Asked
from vsf_lib.program import program
from vsf_lib.settings import field as setting
from vsf_lib.sweep import FPS, INFOTEXT, LOOP, USUAL_FPS, Plan, Sweep

FILMS = (".mp4", ".webm", ".gif")


def plan_of(asked: Asked, extra: Mapping[str, str]) -> Plan | None:
    """What is to be swept: as asked for, or as the older picture's `extra` says.

    Of an older sweep one value of the swept field, where it was given, draws that one picture.
    Raises SettingsError for flags that contradict it.
    """
    given = asked.given
    old = Sweep.parse(extra[INFOTEXT]) if INFOTEXT in extra else None
    if asked.sweep is not None:
        sweep = Sweep.parse(asked.sweep)
        if sweep.name in given:
            raise SettingsError(
                f"--sweep runs over {sweep.name}, and {setting(sweep.name).flag} gives it one value: drop one"
            )
    elif old is not None and old.name not in given and not asked.compare:
        sweep = old
    else:
        for name, given_too in (("fps", asked.fps is not None), ("loop", asked.loop)):
            if given_too:
                raise SettingsError(
                    f"--{name} goes with --sweep: add --sweep FIELD=LOW:HIGH:STEP, or drop it"
                )
        return None
    if asked.compare:
        raise SettingsError("a sweep shows the picture without guidance beside the others: drop --compare")
    fps = asked.fps if asked.fps is not None else _told_fps(extra)
    return Plan(sweep, fps, asked.loop or LOOP in extra)


def read_film(path: Path) -> str:
    """The infotext of a film that a sweep was drawn as; raises SettingsError."""
    from vsf_lib.video.files import read_infotext

    infotext = read_infotext(path)
    if f"{INFOTEXT}:" not in infotext:
        raise SettingsError(f"{path} is no film of a sweep: repeat a video by {program('video --from-file')}")
    return infotext


def _told_fps(extra: Mapping[str, str]) -> int:
    told = extra.get(FPS, str(USUAL_FPS))
    try:
        return int(told)
    except ValueError:
        raise SettingsError(f"{FPS} is {told!r} in the infotext, but must be a whole number") from None
