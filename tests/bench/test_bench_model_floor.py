"""The floor of a whole step against PyTorch's own count of operations, and by hand."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from small_networks import CPU, NAMES, WHOLE, network_of, output, steps
from torch.utils.flop_counter import FlopCounterMode

from vsf_lib.bench.model.networks import TEXT_WIDTH, Blocks, blocks_of, inputs
from vsf_lib.bench.model.work import floor, more_of, step
from vsf_lib.bench.speed.shapes import FAMILIES, shape_named

pytestmark = pytest.mark.usefixtures("small_families")


def counted(run: Callable[[], object]) -> int:
    """What PyTorch's own counter finds."""

    def pairs(q: Any, k: Any, v: Any, *args: Any, out_shape: Any = None, **others: Any) -> int:
        batch, heads, asks, width = q
        return int(4 * batch * heads * asks * k[2] * width)

    mapping = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: pairs}
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        run()
    return counter.get_total_flops()


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_the_unguided_steps_flops_are_those_that_pytorch_counts(name: str, batch: int) -> None:
    shape = shape_named(name)
    blocks = WHOLE[shape.family.name]
    network, arguments = network_of(shape, blocks), inputs(shape, batch, CPU, torch.float32)
    assert step(shape, blocks, batch).flops == counted(lambda: network(**arguments))


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_vsf_does_its_floors_work_and_hardly_more(name: str, batch: int) -> None:
    """More by N's way through the text embedder, which goes with the prompt's in every step, and in the last
    block by N's own rows, which nobody reads."""
    n = random.randint(3, 6)
    with steps(name, n, batch=batch) as own:
        shape, blocks = own.cell.shape, WHOLE[own.cell.shape.family.name]
        c, i = shape.heads * shape.width, shape.image
        for call in own.calls(["vsf", "difference"], every_kernel=False):
            output(call)  # Wan's keys of N are made in the first step
            found = counted(call.run) - step(shape, blocks, batch).flops
            least = more_of(call.method, shape, blocks, n, batch).flops
            embedded = 2 * n * TEXT_WIDTH * c if shape.joint else 0
            last = 2 * n * c * c + 4 * n * (i + n) * c if shape.family.name.startswith("sd3") else 0
            assert found == least + batch * (embedded + last), call.method
            assert floor(call.method, shape, blocks, n, batch).added_flops == least


@pytest.mark.parametrize("name", NAMES)
def test_nag_and_nasa_do_the_work_of_their_published_form(name: str) -> None:
    """Beside what VSF has more than its floor: they look at [I, N] and [I, P] as two whole attentions."""
    with steps(name, 4) as own:
        shape, blocks = own.cell.shape, WHOLE[own.cell.shape.family.name]
        c, i, p = shape.heads * shape.width, shape.image, shape.text
        for call in own.calls(["nag", "nasa"], every_kernel=False):
            output(call)
            found = counted(call.run) - step(shape, blocks, 1).flops
            least = more_of(call.method, shape, blocks, 4, 1).flops
            embedded = 2 * p * TEXT_WIDTH * c if shape.joint else 0
            last = 2 * p * c * c + 4 * p * (i + p) * c if shape.family.name.startswith("sd3") else 0
            assert found == least + embedded + last, call.method


def test_the_floor_of_the_real_steps() -> None:
    """SD3.5 large by hand, from the layers of its 38 blocks, 20 negative tokens, at 1024x1024."""
    family = replace(FAMILIES["sd35-large"], heads=38, width=64, text=333)
    shape = replace(shape_named("sd35-large-1024"), family=family, heads=38)
    blocks = blocks_of(shape, None)[1]
    c, n, i = 2432, 20, 4096
    by_block = 12 * 2 * n * c * c + 4 * (2 * i * n + n * n) * c
    last = 2 * 2 * n * c * c + 4 * i * n * c
    found = floor("vsf", shape, blocks, n, 1)
    assert found.added_flops == 37 * by_block + last
    assert found.flops == pytest.approx(1 + found.added_flops / step(shape, blocks, 1).flops)
    assert 1.004 < found.flops < 1.006
    assert floor("cfg", shape, blocks, n, 1).flops == 2 == floor("cfg", shape, blocks, n, 1).moved
    assert floor("none", shape, blocks, n, 1).flops == 1


def test_the_floors_bytes_are_of_added_rows_alone() -> None:
    """One ordinary block of 48 channels, by hand: weights are read for the prompt's tokens anyway."""
    shape, n, batch = shape_named("sd35-large-64"), 4, 3
    c = shape.heads * shape.width
    linear = 4 * 2 * n * c + n * (c + 4 * c) * 2
    assert more_of("vsf", shape, Blocks(0, 1), n, batch).moved == batch * (linear + 4 * n * c)
    own = step(shape, Blocks(0, 1), batch)
    assert floor("vsf", shape, Blocks(0, 1), n, batch).moved == pytest.approx(
        1 + batch * (linear + 4 * n * c) / own.moved
    )
