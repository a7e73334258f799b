"""Which denoising step is running, and which of them are guided.

Owns the step count of a generation: read from the scheduler, because callbacks, repeated calls and own sigmas
make any count of denoiser calls wrong. Knows no model. `Settings.guided_steps` says what `start` and `end`
mean.
"""

from __future__ import annotations

from typing import Any

from vsf_lib.errors import GuidanceError, SettingsError
from vsf_lib.settings import Settings


def claimed_steps(settings: Settings, total: int) -> range:
    """The steps to guide out of `total`; none at all is an error, since nothing would be applied."""
    steps = settings.guided_steps(total)
    if not steps:
        raise SettingsError(
            f"none of {total} steps lies between start {settings.start:g} and end {settings.end:g}: widen "
            "that window or take more steps"
        )
    return steps


def current_step(pipe: Any) -> int:
    """The running step of a diffusers pipeline, from its scheduler's own count: no tensor is read.

    The count is None until the first step has been taken, and names the next one from then on. Where a
    picture is given, the pipeline leaves out the first steps, and the count begins behind them.
    """
    try:
        index = pipe.scheduler.step_index
    except AttributeError as error:
        raise GuidanceError(
            f"the scheduler {type(pipe.scheduler).__name__} does not count its steps, so it is unknown which "
            "of them to guide; use a flow matching scheduler such as FlowMatchEulerDiscreteScheduler"
        ) from error
    return 0 if index is None else int(index) - (getattr(pipe.scheduler, "begin_index", None) or 0)
