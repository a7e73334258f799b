"""Stopping in the middle of a network's work, which may take minutes from step to step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


class Stopped(Exception):  # noqa: N818, it is no error
    """The user stopped the job."""


@contextmanager
def stoppable(blocks: Iterable[nn.Module], stopped: Callable[[], bool]) -> Iterator[None]:
    """Looks between any two blocks, as a step of a large video takes minutes; raises Stopped."""

    def check(*_: Any) -> None:
        if stopped():
            raise Stopped

    with ExitStack() as undo:
        for block in blocks:
            undo.callback(block.register_forward_pre_hook(check).remove)
        yield
