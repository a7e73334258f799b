"""What networks of joint attention share in hosts of the Forge family: N joins the text at its outer end.

Owns the way from a block's attention to the guided call: hooks on the blocks, which tell where text and image
are, and the exchange at the tap. Knows no network; a module of one fills in where its parts are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vsf_lib.adapters.call import GuidedCall
from vsf_lib.adapters.forge_network import BlockCall, Function, Tap, exchanged
from vsf_lib.adapters.joint import attend as attend_jointly
from vsf_lib.adapters.tiles import TEXT, Tiled
from vsf_lib.errors import GuidanceError


@dataclass
class _JointCall(BlockCall):
    text: int = 0
    image: int = 0


class JointNetwork(ABC):
    """The part of `forge_network.ForgeNetwork` that is the same for all of them."""

    one_text = False

    @abstractmethod
    def blocks(self, model: nn.Module) -> Mapping[str, nn.Module]:
        """See `forge_network.ForgeNetwork`."""

    @abstractmethod
    def tap(self, model: nn.Module) -> Tap:
        """See `forge_network.ForgeNetwork`."""

    @abstractmethod
    def lengths(
        self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], text: int
    ) -> tuple[int, int]:
        """How many text and image tokens a block is called with; `text` is how many the call began with."""

    @abstractmethod
    def attention(self, original: Function, attend: Callable[..., Tensor | None]) -> Function:
        """What stands at the tap during a guided call.

        Hands q, k, v `[B, H, L, D]` to `attend`, which returns `[B, H, L, D]` or None for a call that must
        stay as it is.
        """

    def conditioning(self, given: Mapping[str, Any], call: GuidedCall) -> dict[str, Any]:
        return {**given, TEXT: torch.cat([call.batch.negative, given[TEXT]], dim=1)}

    @contextmanager
    def reached(self, model: nn.Module, tiled: Tiled) -> Iterator[Mapping[str, BlockCall]]:
        text = tiled.text.shape[1]
        ran: dict[str, BlockCall] = {}
        running: list[_JointCall] = []
        tap = self.tap(model)

        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor | None:
            if not running or q.shape[2] != running[-1].text + running[-1].image:
                return None  # image alone (the second attention of dual blocks)
            block = running[-1]
            block.see(tiled)
            call = tiled.call
            n, p = call.n_n, block.text
            regions = {"negative": slice(0, n), "positive": slice(n, p), "image": slice(p, p + block.image)}
            return attend_jointly(call, block.name, q, k, v, **regions, silent=not block.guided)

        def enter(name: str) -> Function:
            def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                tokens, image = self.lengths(name, args, kwargs, text)
                if tokens != text:
                    raise GuidanceError(
                        f"{name} has {tokens} text tokens where {text} were expected: something else changes "
                        "the text on its way; switch it off"
                    )
                guided = tiled.whole.settings.blocks == "both" or not name.startswith("single_blocks")
                running.append(_JointCall(name, guided, text=tokens, image=image))

            return hook

        def leave(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if running:
                block = running.pop()
                ran[block.name] = block

        with ExitStack() as undo:
            for name, block in self.blocks(model).items():
                undo.callback(block.register_forward_pre_hook(enter(name), with_kwargs=True).remove)
                undo.callback(block.register_forward_hook(leave, always_call=True).remove)
            undo.enter_context(exchanged(tap, self.attention(tap.function, attend)))
            yield ran
