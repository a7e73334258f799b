"""What networks whose picture looks at text across share in hosts of the Forge family: N stays apart from P.

Owns the way from a layer's attention to the guided call. The host's text goes to the model as it is; N goes
through the model's text embedder and each layer's maps once per generation. Which of a layer's calls of the
attention function is over text is told by its keys, which are the very ones that the layer has just made
of the text: attention over an image, or of the picture over itself, stays the host's. Knows no network.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from vsf_lib.adapters.call import GuidedCall
from vsf_lib.adapters.cross import Pair
from vsf_lib.adapters.cross import attend as attend_across
from vsf_lib.adapters.forge_network import BlockCall, Function, Tap, exchanged
from vsf_lib.adapters.tiles import Tiled


@dataclass
class _CrossCall(BlockCall):
    layer: Any = None
    keys: Tensor | None = None
    """P's, once they are made and until they are used."""


class CrossNetwork(ABC):
    """The part of `forge_network.ForgeNetwork` that is the same for all of them. Their blocks are the layers
    of attention over text themselves."""

    one_text = False

    @abstractmethod
    def blocks(self, model: nn.Module) -> Mapping[str, nn.Module]:
        """See `forge_network.ForgeNetwork`."""

    @abstractmethod
    def tap(self, model: nn.Module) -> Tap:
        """See `forge_network.ForgeNetwork`."""

    @abstractmethod
    def keys(self, layer: nn.Module) -> nn.Module:
        """The last module through which a layer's keys of text pass before its attention."""

    @abstractmethod
    def embed(self, model: nn.Module, text: Tensor) -> Tensor:
        """What the model makes of text before its layers have it."""

    @abstractmethod
    def keys_and_values(self, layer: nn.Module, text: Tensor, heads: int) -> Pair:
        """A layer's, of embedded text, `[B, H, n, D]` each."""

    @abstractmethod
    def attention(self, original: Function, attend: Callable[..., Tensor | None]) -> Function:
        """What stands at the tap during a guided call.

        Hands q `[B, H, n_i, D]`, k and v `[B, H, n, D]`, the keys as they came and the number of heads to
        `attend`, which returns `[B, H, n_i, D]` or None for a call that must stay as it is.
        """

    def conditioning(self, given: Mapping[str, Any], call: GuidedCall) -> dict[str, Any]:
        return dict(given)

    @contextmanager
    def reached(self, model: nn.Module, tiled: Tiled) -> Iterator[Mapping[str, BlockCall]]:
        ran: dict[str, BlockCall] = {}
        running: list[_CrossCall] = []
        tap = self.tap(model)

        def negative(block: _CrossCall, q: Tensor, heads: int) -> Pair:
            # Inside of the layer's own call, because an offloaded model has its weights at hand only then.
            call = tiled.call

            def make() -> Pair:
                embedded = call.keep("embedded", lambda: self.embed(model, call.batch.negative.to(q)))
                return self.keys_and_values(block.layer, embedded, heads)

            return call.keep(block.name, make)

        def attend(q: Tensor, k: Tensor, v: Tensor, keys: Tensor, heads: int) -> Tensor | None:
            if not running or running[-1].keys is not keys:
                return None
            block = running[-1]
            block.see(tiled)
            block.keys = None
            return attend_across(tiled.call, block.name, q, k, v, negative(block, q, heads))

        def enter(name: str) -> Function:
            def hook(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                running.append(_CrossCall(name, layer=layer))

            return hook

        def made(_: nn.Module, args: tuple[Any, ...], keys: Tensor) -> None:
            if running and not running[-1].seen:  # N's go through the same module
                running[-1].keys = keys

        def leave(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if running:
                block = running.pop()
                ran[block.name] = block

        with ExitStack() as undo:
            for name, layer in self.blocks(model).items():
                undo.callback(layer.register_forward_pre_hook(enter(name), with_kwargs=True).remove)
                undo.callback(self.keys(layer).register_forward_hook(made).remove)
                undo.callback(layer.register_forward_hook(leave, always_call=True).remove)
            undo.enter_context(exchanged(tap, self.attention(tap.function, attend)))
            yield ran
