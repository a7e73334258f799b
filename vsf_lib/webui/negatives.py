"""The encoded negatives of a job, kept for the jobs that follow.

Owns what they depend on beside their text: the loaded model (with its text encoders; another choice under
"VAE / Text Encoder" makes another object), the form, T5, the pass, and what the host itself compares
(steps, LoRA). One of each is kept. Keeps no model alive.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor

from vsf_lib.adapters.forge_network import ForgeNetwork
from vsf_lib.errors import SettingsError
from vsf_lib.settings import Settings
from vsf_lib.webui.encoding import Encoder, Schedule


class EncodingHost(Protocol):
    """What encoding asks of the WebUI."""

    def t5_enabled(self) -> bool:
        """Whether SD3.5's text has its T5 part."""

    def load_text_encoders(self, model: Any) -> None:
        """Brings them to their device."""

    def conditions(
        self, p: Any, texts: Sequence[str], encoder: Encoder, cache: list[Any], *, hires: bool
    ) -> Sequence[Sequence[Any]]:
        """The host's schedule of embeddings per text, for the pass that comes next. `cache` holds what the
        same call gave last time."""


class Negatives:
    """Outlives generations, one per script object."""

    def __init__(self) -> None:
        self._kept: weakref.WeakKeyDictionary[Any, dict[Any, Any]] = weakref.WeakKeyDictionary()

    def schedule(
        self,
        p: Any,
        texts: Sequence[str],
        settings: Settings,
        host: EncodingHost,
        *,
        hires: bool,
        network: ForgeNetwork,
    ) -> Schedule:
        """Which embedding each of `texts` has at which step; raises SettingsError, ModelError."""
        if settings.negative_scale and not network.extrapolates:
            raise SettingsError(
                f"VSF negative scale is {settings.negative_scale:g}, but it does nothing on "
                f"{network.title}: set it to 0, or choose a preset for this model"
            )
        model = p.sd_model
        kept = self._kept.setdefault(model, {})
        form, t5 = settings.negative_form, host.t5_enabled()
        encoder = Encoder(model, form=form, t5=t5, load=lambda: host.load_text_encoders(model))
        cache = kept.setdefault((form, t5, hires), [None, None])
        rows = host.conditions(p, list(texts), encoder, cache, hires=hires)
        networks = getattr(p, "hr_extra_network_data" if hires else "extra_network_data", None)
        return Schedule(rows, settings.negative_scale, self._padding(settings, kept, encoder, networks))

    @staticmethod
    def _padding(settings: Settings, kept: dict[Any, Any], encoder: Encoder, networks: Any) -> Tensor | None:
        """`networks` are the host's LoRA of this pass, which may be in the text encoders, too."""
        if not settings.negative_scale:
            return None
        # Kept because encoding loads T5, which may push the transformer out of memory.
        if "padding" not in kept or kept["padding"][0] != networks:
            kept["padding"] = networks, encoder.of_padding()
        padding: Tensor = kept["padding"][1]
        return padding
