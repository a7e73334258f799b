"""One setting that runs over values: how that is written, the settings that it means, and what is made of it.

`alpha=0:8:0.5` is a range, both ends included where the step meets them; `alpha=0,1,2` a list; parts may be
mixed. Pure: knows no command line, no host, no picture, and imports no torch.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from vsf_lib.errors import SettingsError
from vsf_lib.settings import Settings, field, fields

INFOTEXT = "VSF sweep"
"""The name of a sweep among a picture's parameters."""
FPS, LOOP = "VSF fps", "VSF loop"
"""Names of a film's own values there."""
LOOP_VALUE = "there and back"
USUAL_FPS, MOST_FPS = 4, 60
WITHOUT = "without"
"""The label of the unguided picture. It is not that of alpha 0, which still gives the negative attention."""
MOST = 200
"""Values in a sweep."""
_NUMBER = re.compile(r"[+-]?(\d{1,9}(\.\d{0,30})?|\.\d{1,30})", re.ASCII)
_EXAMPLE = "alpha=0:8:0.5 or alpha=0,1,2"


@dataclass(frozen=True)
class Sweep:
    """A numeric field of Settings and its values, in their order."""

    name: str
    values: tuple[float, ...]
    text: str
    """As `parse` reads it, in its shortest form."""

    @classmethod
    def parse(cls, text: str) -> Sweep:
        """The sweep behind `FIELD=LOW:HIGH:STEP` or `FIELD=VALUE,VALUE,...`; raises SettingsError.

        Counted in decimals, so that the third of steps of 0.1 is 0.3 and not the sum of three floats. A range
        whose step does not meet its end stops before it; one from high to low goes down.
        """
        left, _, right = text.partition("=")
        if not left.strip() or not right.strip():
            raise SettingsError(f"the sweep is {text.strip()!r}, but must be like {_EXAMPLE}")
        swept = field(_known(swept_name(text)))
        if swept.kind is not float:
            raise SettingsError(f"{swept.name} is no number, so it cannot be swept: {_choice()}")
        values: list[Decimal] = []
        parts = []
        for part in right.split(","):
            ends = [_number(word, text) for word in part.split(":")]
            values += _part(ends, text, MOST - len(values))
            parts.append(":".join(map(_plain, ends)))
        return cls(swept.name, tuple(map(float, values)), f"{swept.name}={','.join(parts)}")

    def settings(self, base: Settings) -> list[Settings]:
        """`base` with each of the values in turn; raises SettingsError if the method of `base` reads no such
        field, or any of them is no valid guidance."""
        if base.method not in field(self.name).methods:
            raise SettingsError(
                f"the sweep is of {self.name}, which method {base.method} does not read: "
                f"{_choice(base.method)}"
            )
        made = []
        for value in self.values:
            try:
                made.append(base.changed(**{self.name: value}))
            except SettingsError as error:
                raise SettingsError(f"the sweep {self.text} at {number(value)}: {error}") from None
        return made

    def check_steps(self, frames: Sequence[Settings], steps: int) -> None:
        """Raises SettingsError if one of `frames`, which `settings` has made, guides none of the steps."""
        for frame, value in zip(frames, self.values, strict=True):
            if not frame.guided_steps(steps):
                raise SettingsError(
                    f"the sweep {self.text} at {number(value)}: none of {steps} steps lies between start "
                    f"{frame.start:g} and end {frame.end:g}; take more steps, or another range"
                )

    def label(self, value: float) -> str:
        """What to write under the picture of `value`."""
        return f"{self.name.replace('_', ' ')} {number(value)}"

    def only(self, values: Sequence[float]) -> Sweep:
        """The sweep of those of its values that were drawn; itself, as it was written, where all were."""
        if tuple(values) == self.values:
            return self
        return Sweep.parse(f"{self.name}={','.join(map(number, values))}")


@dataclass(frozen=True)
class Plan:
    """A sweep that is to be drawn. `fps` and `loop` act on a film only; raises SettingsError."""

    sweep: Sweep
    fps: int = USUAL_FPS
    loop: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.fps <= MOST_FPS:
            raise SettingsError(f"fps is {self.fps}, but must be a whole number from 1 to {MOST_FPS}")

    def extra(self, *, film: bool) -> dict[str, str]:
        """What the infotext of a strip or of a film says of it."""
        told = {INFOTEXT: self.sweep.text}
        if film:
            told[FPS] = str(self.fps)
            if self.loop:
                told[LOOP] = LOOP_VALUE
        return told


def sweepable(method: str | None = None) -> tuple[str, ...]:
    """The names of the fields that can be swept; with `method`, those that it reads."""
    return tuple(
        item.name for item in fields() if item.kind is float and (method is None or method in item.methods)
    )


def number(value: float) -> str:
    """`value` as a person writes it: 0.3, 8, and never 1e-05."""
    return _plain(Decimal(repr(value)))


def swept_name(text: str) -> str:
    """What a sweep's text calls its field, whether or not there is such a one."""
    return text.partition("=")[0].strip().removeprefix("--").replace("-", "_")


def _known(name: str) -> str:
    """The name; raises SettingsError where there is no such setting, with those that can be swept."""
    if all(item.name != name for item in fields()):
        near = difflib.get_close_matches(name, sweepable(), n=1)
        remedy = f"did you mean {near[0]}?" if near else _choice()
        raise SettingsError(f"there is no setting {name!r:.60}: {remedy}")
    return name


def _choice(method: str | None = None) -> str:
    names = sweepable(method)
    return f"choose one of {', '.join(names)}" if names else "choose another method"


def _number(word: str, text: str) -> Decimal:
    if not _NUMBER.fullmatch(word.strip()):
        raise SettingsError(
            f"the sweep {text.strip()!r} has {word.strip()!r}, which is no plain number: write {_EXAMPLE}"
        )
    return Decimal(word.strip())


def _part(ends: list[Decimal], text: str, room: int) -> Iterator[Decimal]:
    """The values of one part: a number, or low, high and step."""
    if len(ends) == 1:
        count, low, step = 1, ends[0], Decimal(0)
    elif len(ends) == 3:
        low, high, step = ends
        if step <= 0:
            raise SettingsError(
                f"the sweep {text.strip()!r} has a step of {_plain(step)}, but it must be above 0; a range "
                "from high to low goes down"
            )
        count = int(abs(high - low) // step) + 1
        step = step if low <= high else -step
    else:
        raise SettingsError(
            f"the sweep {text.strip()!r} has a range that is not LOW:HIGH:STEP, such as {_EXAMPLE}"
        )
    if count > room:
        raise SettingsError(
            f"the sweep {text.strip()!r} has {MOST - room + count} values, but at most {MOST} are drawn: "
            "take a larger step"
        )
    return (low + i * step for i in range(count))


def _plain(value: Decimal) -> str:
    text = f"{value:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text
