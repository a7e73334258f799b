"""Denoisers of the benchmarked kinds with a few channels, their steps by each method, and operators counted.

`small_families` of conftest.py makes the networks small.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from vsf_lib.bench.model.networks import Blocks, build
from vsf_lib.bench.model.steps import Steps
from vsf_lib.bench.speed.course import Call, Cell
from vsf_lib.bench.speed.shapes import Shape, shape_named

CPU = torch.device("cpu")
NAMES = ("sd35-large-64", "sd35-medium-64", "flux-64", "wan-1.3b-64-5f")
WHOLE = {
    "sd35-large": Blocks(0, 3, ends=True),
    "sd35-medium": Blocks(2, 1, ends=True),
    "flux": Blocks(1, 2),
    "wan-1.3b": Blocks(0, 2),
}


def network_of(shape: Shape, blocks: Blocks | None = None) -> nn.Module:
    """Weights so large that everything which guidance does is seen in the output."""
    network = build(shape, blocks or WHOLE[shape.family.name], CPU, torch.float32)
    for name, x in network.named_parameters():
        if x.ndim >= 2:
            x.normal_(0, x[0].numel() ** -0.5)
        elif "norm" not in name:
            x.normal_(0, 0.2)
    return network


@contextmanager
def steps(name: str, n_n: int, *, batch: int = 1, network: nn.Module | None = None) -> Iterator[Steps]:
    cell = Cell(shape_named(name), batch, n_n, CPU, torch.float32)
    with torch.inference_mode(), ExitStack() as undo:
        yield Steps.of(cell, network or network_of(cell.shape), undo)


def output(call: Call) -> Tensor:
    if call.begin is not None:
        call.begin()
    return call.run()


class Shapes(TorchDispatchMode):
    """What operators give, new or seen anew, by its shape, and which operators ran; the rows of each linear
    layer; the queries of each attention, and the elements that their memory holds."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[tuple[int, ...]] = []
        self.ran: list[str] = []
        self.rows: list[int] = []
        self.asked: list[tuple[int, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        self.ran.append(name)
        for x in out if isinstance(out, tuple | list) else (out,):
            if isinstance(x, Tensor):
                self.made.append(tuple(x.shape))
        if name == "linear":  # in inference mode it is no addmm yet
            self.rows.append(args[0].shape[:-1].numel())
        if "scaled_dot_product" in name:
            q = args[0]
            self.asked.append((q.shape[2], q.untyped_storage().nbytes() // q.element_size()))
        return out
