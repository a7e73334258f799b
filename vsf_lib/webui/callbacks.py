"""What the host's callbacks do, without the host's classes: `scripts/vsf.py` only hands over.

Owns the order in which a guide is driven, and what outlives a generation: the encoded negatives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vsf_lib.errors import SettingsError
from vsf_lib.webui import axes
from vsf_lib.webui.forge_host import ForgeHost
from vsf_lib.webui.guide import Guide, Host, checkpoint_of, detach, forget_keys
from vsf_lib.webui.negatives import Negatives
from vsf_lib.webui.request import Request, read


class Callbacks:
    """One per script object, that is one for txt2img and one for img2img."""

    def __init__(self, host: Host | None = None) -> None:
        self._host = host or ForgeHost()
        self._negatives = Negatives()

    def process(self, p: Any, arguments: Sequence[Any]) -> None:
        """Once per generation, before anything is loaded or encoded."""
        detach(p)
        if not arguments or arguments[0] is False:
            return  # off touches nothing
        guide = Guide(p, self._host, self._negatives)

        def begin() -> None:
            request = read(arguments, checkpoint_of(p), self._host.options, axes.values_of(p))
            if request is not None:
                guide.accept(self._for_both_passes(p, arguments, request))

        guide.attach()
        guide.protect(begin)
        if not guide.wanted:
            detach(p)
            forget_keys(p)  # a plot's cell shares them with the cells before it

    def _for_both_passes(self, p: Any, arguments: Sequence[Any], request: Request) -> Request:
        """The request for a job whose second pass of hires fix may use another checkpoint."""
        hires = self._host.hires_checkpoint(p) if getattr(p, "enable_hr", False) else None
        first = checkpoint_of(p)
        if hires is None or hires.kind == first.kind or request.settings.hires_pass == "first":
            return request
        if request.settings.hires_pass == "second":
            return read(arguments, hires, self._host.options, axes.values_of(p)) or request
        raise SettingsError(
            f"hires fix changes from {first.name} to {hires.name}, another kind of model, for which the same "
            "values are not meant: guide the first or the second pass only"
        )

    def process_batch(self, p: Any) -> None:
        """Before the host encodes a batch's prompts; LoRA are active."""
        guide = Guide.of(p)
        if guide is not None:
            guide.protect(guide.prepare_batch)

    def process_before_every_sampling(self, p: Any, x: Any = None, c: Any = None, uc: Any = None) -> None:
        """The host's patched model is fresh, and sampling from `x` by the conditioning comes next."""
        guide = Guide.of(p)
        if guide is not None:
            guide.protect(lambda: guide.prepare_pass(x, c, uc))
            guide.refuse_pass()

    def postprocess_image_after_composite(self, p: Any, shown: Any) -> None:
        """One result is done: `shown` has its picture and number."""
        guide = Guide.of(p)
        if guide is not None:
            guide.drawn(shown.index, shown.image)

    def postprocess(self, p: Any, processed: Any) -> None:
        """All is drawn."""
        guide = Guide.of(p)
        try:
            if guide is not None:
                guide.end(processed)
        finally:
            detach(p)


def note_step(params: Any) -> None:
    """The host's callback before each call of the denoiser, which knows the step."""
    denoiser: Any = getattr(params, "denoiser", None)
    if denoiser is None or denoiser.p is None:
        return
    guide = Guide.of(denoiser.p)
    if guide is not None:
        guide.note_step(denoiser.step, denoiser.total_steps or denoiser.step + 1)
