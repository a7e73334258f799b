"""Whether a call of the model ran its blocks, or had an earlier call's result from a cache (TeaCache).

Owns the rule that only a call of the same kind may have it: otherwise a step would be called guided although
its result was drawn without guidance, or the other way round. Knows no attention and no host.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from vsf_lib.errors import GuidanceError


class Reuse:
    """Of one sampling pass."""

    def __init__(self, blocks: Mapping[str, nn.Module]) -> None:
        self._blocks = blocks
        self._holds_guided: bool | None = None
        """Whether the last call that ran all blocks was guided: caches keep the last. None before one."""

    @contextmanager
    def watched(self) -> Iterator[set[str]]:
        """The names of the blocks that run inside."""
        ran: set[str] = set()
        with ExitStack() as undo:
            for name, block in self._blocks.items():

                def note(*_: Any, name: str = name) -> None:
                    ran.add(name)

                undo.callback(block.register_forward_hook(note).remove)
            yield ran

    def whole(self, step: int, ran: Collection[str], *, guided: bool) -> bool:
        """Whether a call that ran the blocks `ran` ran all; raises GuidanceError if a result of the other
        kind stands in for those that it left out."""
        if len(ran) == len(self._blocks):
            self._holds_guided = guided
            return True
        if guided and self._holds_guided is None:
            raise GuidanceError(
                f"step {step} is answered by a cache (TeaCache?) with what it kept of an earlier picture: "
                "give the cache this picture's number of steps; after a picture that was stopped, load "
                "another checkpoint and this one again; or switch the cache off"
            )
        if guided and not self._holds_guided:
            raise GuidanceError(
                f"step {step} is to be guided, but a cache (TeaCache?) answers it with what was drawn "
                "without guidance: guide from the first step on, or switch the cache off"
            )
        if self._holds_guided and not guided:
            raise GuidanceError(
                f"step {step} has a call that is not to be guided, but a cache (TeaCache?) answers it with "
                "what was drawn under guidance: guide up to the last step at CFG 1, or switch the cache off"
            )
        return False
