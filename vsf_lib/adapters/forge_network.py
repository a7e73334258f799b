"""What a network is to guidance in hosts of the Forge family: its blocks, and where attention is exchanged.

Owns the shape of such a module (`ForgeNetwork`), the exchange itself, and what makes a loaded model one that
cannot be guided. Imports nothing of a host, and knows no network: `forge_joint` and `forge_cross` have what
those of a kind share. When a model is called, and what proves that it was guided, is `forge`'s.
"""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple, Protocol

from torch import nn

from vsf_lib.adapters.call import GuidedCall
from vsf_lib.adapters.tiles import Tiled
from vsf_lib.errors import ModelError

log = logging.getLogger("vsf")

Function = Callable[..., Any]


@dataclass(frozen=True)
class Tap:
    """The one place through which all attention over text of a network passes: a name in its module."""

    module: ModuleType
    name: str

    @property
    def function(self) -> Function:
        function: Function = getattr(self.module, self.name)
        return function


class Size(NamedTuple):
    """What memory goes by: a network's attention heads, their width, and its patches' side in latents."""

    heads: int
    width: int
    patch: int


@dataclass
class BlockCall:
    """A block that runs now, or has run."""

    name: str
    guided: bool = True
    """Whether N acts here; otherwise it is there, but nobody sees it."""
    seen: bool = False
    """Whether its attention over text came to the guided call."""
    again: bool = False
    """Whether it is not the only time in the same call."""

    def see(self, tiled: Tiled) -> None:
        """Its attention comes to the call now."""
        self.seen, self.again = True, tiled.parted or self.name in tiled.call.layers
        if self.again:
            # Tiles, or a second look within one call: their shares have no common place in the picture.
            tiled.whole.record_share = tiled.call.record_share = False


class ForgeNetwork(Protocol):
    """How one network of these hosts is reached. Stateless. `forge_joint` and `forge_cross` have what those
    of a kind share."""

    title: str
    home: str
    """The module of the host's that has it, which tells whether a host has it at all."""
    extrapolates: bool
    """Whether `Settings.negative_scale` (eq. 10) means something for this network's embeddings."""
    one_text: bool
    """Whether what the host calls a batch is one video: a text per frame, of which the first counts."""

    def matches(self, model: nn.Module) -> bool:
        """Whether `model` is built like this network."""

    def blocks(self, model: nn.Module) -> Mapping[str, nn.Module]:
        """The modules in which the picture looks at text, by name: what guidance claims."""

    def tap(self, model: nn.Module) -> Tap:
        """Where attention is exchanged, after checking its signature; raises ModelError."""

    def size(self, model: nn.Module) -> Size:
        """How large its attention is; an AttributeError where a model does not say."""

    def conditioning(self, given: Mapping[str, Any], call: GuidedCall) -> dict[str, Any]:
        """What the model is called with in place of the host's own conditioning."""

    def reached(self, model: nn.Module, tiled: Tiled) -> AbstractContextManager[Mapping[str, BlockCall]]:
        """The network's attention leads to the call inside; on leaving, in any way, it is as before.

        Gives the blocks that have run so far.
        """


def check_model(network: ForgeNetwork, model: nn.Module) -> None:
    """Raises ModelError for a network that cannot be guided, naming the cause and the remedy."""
    if hasattr(model, "_orig_mod") or any(_compiled(module) for module in model.modules()):
        raise ModelError(
            "the model is compiled (torch.compile), and its frozen attention cannot be guided; switch "
            "compilation off"
        )
    network.tap(model)
    for name, block in network.blocks(model).items():
        patched = vars(block).get("forward")
        if patched is None:
            continue
        where = getattr(patched, "__module__", None) or type(patched).__module__
        whose = "NegPiP" if "negpip" in where.lower() else f"another extension ({where})"
        raise ModelError(
            f"{whose} has replaced {name}.forward, and two guidances in one attention would spoil the "
            "picture; switch off VSF, or that, and then make one picture without VSF, which makes it let go"
        )


def find_tap(model: nn.Module, name: str, *signatures: list[str]) -> Tap:
    """The function `name` of the module of `model`'s class; raises ModelError unless it begins as known."""
    module = sys.modules[type(model).__module__]
    function = getattr(module, name, None)
    names = list(inspect.signature(function).parameters)[:4] if callable(function) else []
    if names not in signatures:
        raise ModelError(
            f"{module.__name__} has no {name}({', '.join(signatures[0])}), which guidance needs: this "
            "version of the WebUI is not known; update the extension"
        )
    return Tap(module, name)


def _compiled(module: nn.Module) -> bool:
    return getattr(module, "_compiled_call_impl", None) is not None


@contextmanager
def exchanged(tap: Tap, function: Function) -> Iterator[None]:
    """`function` stands at the tap inside; on leaving, in any way, what stood there before."""
    original = tap.function
    setattr(tap.module, tap.name, function)
    try:
        yield
    finally:
        if tap.function is function:
            setattr(tap.module, tap.name, original)
        else:
            log.warning("%s.%s was replaced during a guided call", tap.module.__name__, tap.name)
