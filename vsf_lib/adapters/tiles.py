"""A guided call in hosts that draw a picture in tiles: which row of a call of the model is whose.

Owns the order that is assumed of the rows, and the check of it by the text that they carry. Knows neither
attention nor steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vsf_lib.adapters.call import GuidedCall
from vsf_lib.errors import GuidanceError

TEXT = "c_crossattn"
"""What Forge names the text of a call."""


@dataclass
class Tiled:
    """A guided call in a host that may divide its pictures into tiles (MultiDiffusion) and call the model
    with the rows of several of them at once, those of the first tile first.
    """

    whole: GuidedCall
    text: Tensor
    """What the call's rows are told apart by, `[B, n, C]`."""
    laid_out: Tensor | None = None
    """Whether that was the order; read later, as a wait per step costs more than guidance does."""

    def __post_init__(self) -> None:
        self.call = self.whole

    @property
    def parted(self) -> bool:
        """Whether the model is called with several tiles now."""
        return self.call is not self.whole

    def applied(self, apply_model: Callable[..., Any]) -> Callable[..., Any]:
        """`apply_model`, through which the tiles' rows become known."""

        def apply(x: Tensor, t: Tensor, **conditioning: Any) -> Any:
            times, over = divmod(len(conditioning[TEXT]), len(self.text))
            if over or not times:
                raise GuidanceError(
                    f"the model is called with {len(conditioning[TEXT])} rows in place of {len(self.text)}, "
                    "so it is unknown which row is whose: something else divides the batch; switch it off"
                )
            self.call = self.whole.tiled(times)
            if times > 1:
                same = (conditioning[TEXT] == self.text.repeat(times, 1, 1)).all()
                self.laid_out = both(self.laid_out, same)
            return apply_model(x, t, **conditioning)

        return apply


def both(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    """Whether two findings hold, of those that there are; nothing waits for the device."""
    return other if one is None else one if other is None else one & other
