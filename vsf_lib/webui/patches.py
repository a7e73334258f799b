"""Wrappers on the host's patched model for the length of one sampling, and that all of them come off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vsf_lib.adapters.forge import SamplingPass, pass_on


class Patches:
    """Those of one guide; `take_off` leaves the host's model as it was."""

    def __init__(self) -> None:
        self._put: list[Callable[[], None]] = []
        """Of each patched model, what takes it off again."""

    def put(self, objects: Any, wrapper: Callable[..., Any], sampling: SamplingPass | None = None) -> Any:
        """A copy of the host's `objects.unet` that calls its model through `wrapper`, in the place of it."""
        before, patched = objects.unet, objects.unet.clone()
        previous = before.model_options.get("model_function_wrapper")
        held = [wrapper]

        def call_model(apply_model: Callable[..., Any], args: dict[str, Any]) -> Any:
            return held[0](apply_model, args) if held else pass_on(apply_model, args, previous)

        def take_off() -> None:
            held.clear()
            call_model.vsf_pass = None  # type: ignore[attr-defined]
            if objects.unet is patched:
                objects.unet = before

        call_model.vsf_pass = sampling  # type: ignore[attr-defined]
        patched.set_model_unet_function_wrapper(call_model)
        objects.unet = patched
        self._put.append(take_off)
        return patched

    def take_off(self) -> None:
        """The host's model is its own again, and ours empty where somebody has put theirs on top: the host
        would keep it, and with it all of this job, until the next one."""
        while self._put:
            self._put.pop()()
