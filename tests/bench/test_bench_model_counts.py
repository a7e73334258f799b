"""What a guided step does, by count: what it makes, asks the device, attends to, projects and copies."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_networks import NAMES, WHOLE, Shapes, output, steps

from vsf_lib.bench.speed.shapes import FAMILIES, Shape, shape_named

JOINT = NAMES[:3]
pytestmark = pytest.mark.usefixtures("small_families")


def pairs_of(shape: Shape, n: int, made: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """The shapes with an axis of queries and one of keys."""
    i, p = shape.image, shape.text
    lengths = {i, p, n, i + p, i + n, p + n, i + p + n, i + p + 2 * n}
    return [x for x in made if sum(size in lengths for size in x) > 1]


@pytest.mark.parametrize("name", NAMES)
def test_no_mask_and_no_logits_are_made(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a guided step; the published form's mask shows that the count would find them."""
    family = shape_named(name).family
    # Lengths that are no count of heads, of channels or of anything else here.
    monkeypatch.setitem(FAMILIES, family.name, replace(family, text=47))
    size = name.rpartition("-64")[0] + "-112" + ("-1f" if "wan" in name else "")
    with steps(size, 5) as own:
        shape, found = own.cell.shape, {}
        assert shape.image == 49
        for call in own.calls(["none", "vsf", "difference", "vsf-masked"], every_kernel=False):
            if call.begin is not None:
                call.begin()
            with Shapes() as shapes:
                call.run()
            found[call.method] = pairs_of(shape, 5, shapes.made)
    assert found["none"] == found["vsf"] == found["difference"] == []
    assert bool(found["vsf-masked"]) == shape.joint


@pytest.mark.parametrize("name", NAMES)
def test_a_guided_step_asks_the_device_nothing_and_calls_attention_as_often_as_it_must(name: str) -> None:
    """After its first step. In joint attention P lies between I and N, so N looks at them in two calls: four
    in all, and two in cross-attention."""
    waits = {"_local_scalar_dense", "item", "equal", "nonzero", "is_nonzero"}
    with torch.inference_mode(), Shapes() as shapes:
        assert torch.ones(3).all() and torch.equal(torch.ones(3), torch.ones(3))
    assert len(waits & set(shapes.ran)) >= 2  # they would be seen
    with steps(name, 5) as own:
        counts = {}
        for call in own.calls(["none", "vsf", "nag"], every_kernel=False):
            output(call)
            with Shapes() as shapes:
                call.run()
            assert not waits & set(shapes.ran), call.method
            counts[call.method] = sum("scaled_dot_product" in name for name in shapes.ran)
        layers = WHOLE[own.cell.shape.family.name].count
        # Beside the layers that see text: SD3.5 medium's second attention, Wan's self-attention.
        others = {"sd35-medium-64": 2, "wan-1.3b-64-5f": 2}.get(name, 0)
        assert counts["none"] == layers + others
        assert counts["vsf"] == (4 if own.cell.shape.joint else 2) * layers + others
        assert counts["nag"] == 2 * layers + others


def test_crosswise_the_negative_is_projected_once_in_a_generation() -> None:
    """Its two embedding layers and each layer's k and v, whatever the number of steps; of the prompt in every
    step."""
    n = 7
    with steps("wan-1.3b-64-5f", n) as own:
        layers, p = WHOLE["wan-1.3b"].count, own.cell.shape.text
        (call,) = own.calls(["vsf"], every_kernel=False)
        for _ in range(2):
            call.begin()
            by_step = []
            for _ in range(3):
                with Shapes() as shapes:
                    call.run()
                by_step.append((shapes.rows.count(n), shapes.rows.count(p)))
            assert by_step == [(2 + 2 * layers, 2 + 2 * layers), *[(0, 2 + 2 * layers)] * 2]


def test_jointly_the_negative_goes_through_each_layer_with_the_prompt() -> None:
    """As many linear calls as unguided, with N's rows in those of the text: none of them runs twice."""
    n = 8  # with which no sum of lengths is the image's
    with steps("sd35-large-64", n) as own:
        p = own.cell.shape.text
        rows = {}
        for call in own.calls(["none", "vsf"], every_kernel=False):
            output(call)
            with Shapes() as shapes:
                call.run()
            rows[call.method] = shapes.rows
        assert rows["vsf"] == [count + n if count == p else count for count in rows["none"]]
        assert rows["vsf"].count(p + n) == 1 + 2 * 6 + 3


@pytest.mark.parametrize("name", JOINT)
def test_the_ordinary_attention_is_a_view_of_the_layers_own_tensors(name: str) -> None:
    """q, k and v of [I, P] are not copied: they lie in memory that holds N as well."""
    n = 5
    with steps(name, n, batch=2) as own:
        s = own.cell.shape
        (call,) = own.calls(["vsf"], every_kernel=False)
        output(call)
        with Shapes() as shapes:
            call.run()
        ordinary = [held for rows, held in shapes.asked if rows == s.image + s.text]
        assert len(ordinary) == WHOLE[s.family.name].count
        assert set(ordinary) == {2 * s.heads * s.width * (s.image + s.text + n)}
