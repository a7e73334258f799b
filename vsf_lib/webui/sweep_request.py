"""What the script "VSF sweep" is asked for: its arguments, and whether a job can be drawn so.

Owns the order of the arguments (only ever appended to) and their one-dictionary form. What a sweep is, is
`vsf_lib.sweep`'s; what VSF's own panel holds is `request`'s. Imports no host module.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from vsf_lib.errors import PromptError, SettingsError
from vsf_lib.settings import Settings
from vsf_lib.sweep import USUAL_FPS, WITHOUT, Plan, Sweep, number, sweepable
from vsf_lib.webui import axes
from vsf_lib.webui.options import Options
from vsf_lib.webui.request import ARGUMENTS as PANEL
from vsf_lib.webui.request import Checkpoint
from vsf_lib.webui.request import read as read_panel
from vsf_lib.webui.support import asked_for

TITLE = "VSF sweep"
"""The script's, by which the host and its API know it."""
DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {
        "setting": "alpha",
        "values": "0:4:0.5",
        "unguided": True,
        "film": True,
        "fps": USUAL_FPS,
        "loop": False,
    }
)
ARGUMENTS: tuple[str, ...] = tuple(DEFAULTS)
"""The script's values in their order, which is that of positional API arguments."""


@dataclass(frozen=True)
class SweepRequest:
    """A sweep, and what is made of it beside the strip."""

    plan: Plan
    unguided: bool = True
    """Whether the picture without guidance comes first."""
    film: bool = True

    @property
    def sweep(self) -> Sweep:
        return self.plan.sweep

    @property
    def cells(self) -> tuple[float | None, ...]:
        """The values in the order in which they are drawn, each once; None is the unguided picture."""
        return (*([None] if self.unguided else []), *dict.fromkeys(self.sweep.values))

    def label(self, value: float | None) -> str:
        """What stands under the picture of `value`."""
        return WITHOUT if value is None else self.sweep.label(value)

    def check(self, p: Any, checkpoint: Checkpoint, options: Options) -> None:
        """Raises SettingsError or PromptError for what the job `p` could not draw, as far as can be told
        before its model is loaded."""
        arguments = axes.arguments_of(p)
        if not asked_for(arguments):
            # As for an axis of the plot: a closed panel may hold a negative prompt that nobody sees.
            raise SettingsError(
                f"the sweep is of {self.sweep.name}, but VSF is off: switch it on in its panel, which says "
                "everything else, or choose another script"
            )
        asked = read_panel(arguments, checkpoint, options, axes.values_of(p))
        settings = Settings(method="off") if asked is None else asked.settings
        frames = self.sweep.settings(settings)
        if checkpoint.network == "SD3.5" and any(frame.negative_scale for frame in frames):
            raise SettingsError(
                "VSF negative scale does nothing on SD3.5: sweep another setting, or set it to 0"
            )
        if getattr(p, "init_images", None) or getattr(p, "enable_hr", False):
            return  # how many steps they take, and by which prompts, is the host's to say
        self.sweep.check_steps(frames, p.steps)
        texts = p.negative_prompt if isinstance(p.negative_prompt, list) else [p.negative_prompt]
        if asked is not None and not getattr(p, "styles", None) and asked.negatives(texts) is None:
            raise PromptError("VSF sweeps nothing: both negative prompts are empty, so write one")


def settings_to_sweep() -> tuple[str, ...]:
    """Those of the panel that are numbers."""
    return tuple(name for name in sweepable() if name in PANEL)


def read(arguments: Sequence[Any]) -> SweepRequest:
    """The request in the script's arguments; raises SettingsError.

    In the order of ARGUMENTS, of which any number may be missing at the end, or one dictionary of any of
    them, behind which the host may have put something else. `values` may be a list of numbers, too.
    """
    given = {**DEFAULTS, **_given(arguments)}
    if given["setting"] not in settings_to_sweep():
        raise SettingsError(
            f"the setting to sweep is {str(given['setting'])[:40]!r}, but must be one of "
            f"{', '.join(settings_to_sweep())}"
        )
    for name in ("unguided", "film", "loop"):
        if not isinstance(given[name], bool):
            raise SettingsError(f"{TITLE}: {name} is {str(given[name])[:40]!r}, but must be true or false")
    fps = given["fps"]
    if isinstance(fps, bool) or not isinstance(fps, (int, float)) or fps != int(fps):
        raise SettingsError(f"{TITLE}: fps is {str(fps)[:40]!r}, but must be a whole number")
    sweep = Sweep.parse(f"{given['setting']}={_text(given['values'])}")
    return SweepRequest(Plan(sweep, int(fps), given["loop"]), given["unguided"], given["film"])


def _given(arguments: Sequence[Any]) -> Mapping[str, Any]:
    if not arguments or not isinstance(arguments[0], Mapping):
        return dict(zip(ARGUMENTS, arguments, strict=False))
    for name in arguments[0]:
        if name not in ARGUMENTS:
            raise SettingsError(
                f"{TITLE} has no argument {str(name)[:40]!r}: choose from {', '.join(ARGUMENTS)}"
            )
    given: Mapping[str, Any] = arguments[0]
    return given


def _text(values: Any) -> str:
    if isinstance(values, str):
        return values
    listed = values if isinstance(values, (list, tuple)) else [values]
    if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in listed):
        raise SettingsError(
            f"{TITLE}: values are {str(values)[:40]!r}, but must be text such as {DEFAULTS['values']}, or a "
            "list of numbers"
        )
    return ",".join(number(value) for value in listed)
