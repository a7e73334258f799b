"""What a pass records of where it acted: against the reference's weights, and for no bit of the output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import reference_forge
import torch
from test_forge_pass import JOINT, KINDS, TILE_BY_TILE, apply_to, begin, build, call_of, in_tiles
from torch import Tensor, nn

from vsf_lib.adapters.forge import SamplingPass
from vsf_lib.adapters.share import Maps, ShareRecord
from vsf_lib.settings import Settings

LATENT = (6, 4)
"""Of `call_of`; two latents along the side of a token."""


@pytest.fixture(params=JOINT)
def kind(request) -> str:
    return request.param


def recording(
    kind: str, model: nn.Module, negatives: list[Tensor], *, each_step: bool = True, **settings: Any
) -> tuple[SamplingPass, ShareRecord]:
    record = ShareRecord(each_step=each_step)
    values = {"alpha": 1.3, "beta": 0.3, **settings}
    return SamplingPass(KINDS[kind][1], model, Settings(**values), lambda _: negatives, record), record


def run(
    sampling: SamplingPass, model: nn.Module, calls: Sequence[tuple[int, dict[str, Any]]]
) -> list[Tensor]:
    outputs = []
    with torch.inference_mode():
        for step, args in calls:
            sampling.note(step, 4)
            outputs.append(sampling.wrapper()(apply_to(model), args))
    return outputs


def shares_of(model: nn.Module, args: Any, row: int, negative: Tensor, settings: Settings) -> Tensor:
    """`[rows, columns]` in float64: the mean over guided layers and heads for one row of a call."""
    shares: list[Tensor] = []
    reference_forge.guided_row(model, args, row, negative, settings, shares)
    return torch.stack(shares).mean(dim=(0, 1)).unflatten(0, (LATENT[0] // 2, LATENT[1] // 2))


def read(record: ShareRecord) -> Maps:
    maps = record.read()
    assert maps is not None
    return maps


@pytest.mark.parametrize("entries", [[0], [1, 0], [1, 0, 0]], ids=str)
@pytest.mark.parametrize("blocks", ["both", "double"])
@pytest.mark.parametrize("method", ["vsf", "difference"])
def test_equals_the_references_weights_and_changes_no_bit(kind, entries, blocks, method):
    model = build(kind)
    negatives = [torch.randn(3, 16), torch.randn(5, 16)]
    calls = [(step, call_of(2, entries)) for step in range(4)]
    options = {"blocks": blocks, "method": method}
    sampling, record = recording(kind, model, negatives, **options)
    outputs = run(sampling, model, calls)
    without = run(begin(kind, model, negatives, **options), model, calls)
    assert all(torch.equal(a, b) for a, b in zip(outputs, without, strict=True))

    wanted = torch.zeros(4, 2, 3, 2, dtype=torch.float64)
    for step, args in calls:
        for picture in range(2):
            rows = [
                shares_of(model, args, 2 * entry + picture, negatives[picture], sampling.settings)
                for entry, kind_of in enumerate(entries)
                if kind_of == 0
            ]
            wanted[step, picture] = torch.stack(rows).mean(0)
    maps = read(record)
    assert maps.steps == (0, 1, 2, 3)
    assert maps.latent == LATENT
    assert wanted.std() > 1e-3, "a map that says nothing proves nothing"
    torch.testing.assert_close(maps.each.double(), wanted, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(maps.mean.double(), wanted.mean(0), atol=1e-6, rtol=1e-5)

    sampling, record = recording(kind, model, negatives, each_step=False, **options)
    run(sampling, model, calls)
    only_mean = read(record)
    assert only_mean.each is None
    torch.testing.assert_close(only_mean.mean, maps.mean, atol=1e-6, rtol=1e-5)


def test_separate_calls_of_a_step_are_one_step(kind):
    """Short of memory the host calls the model for each prompt, and for no prompt, apart."""
    model, negatives = build(kind), [torch.randn(3, 16)]
    prompts = [call_of(1, [0]) for _ in range(3)]
    sampling, record = recording(kind, model, negatives)
    run(sampling, model, [(0, call_of(1, [1])), (0, prompts[0]), (0, prompts[1]), (1, prompts[2])])
    first, second, third = (shares_of(model, args, 0, negatives[0], sampling.settings) for args in prompts)
    maps = read(record)
    assert maps.steps == (0, 1)
    torch.testing.assert_close(maps.each[0, 0].double(), (first + second) / 2, atol=1e-6, rtol=1e-5)
    mean = ((first + second) / 2 + third) / 2
    torch.testing.assert_close(maps.mean[0].double(), mean, atol=1e-6, rtol=1e-5)


def test_only_guided_steps_are_recorded(kind):
    model, negatives = build(kind), [torch.randn(3, 16)]
    sampling, record = recording(kind, model, negatives, start=0.25, end=0.75)
    calls = [(step, call_of(1, [0])) for step in range(4)]
    run(sampling, model, calls)
    maps = read(record)
    assert maps.steps == (1, 2)
    for place, step in enumerate(maps.steps):
        wanted = shares_of(model, calls[step][1], 0, negatives[0], sampling.settings)
        torch.testing.assert_close(maps.each[place, 0].double(), wanted, atol=1e-6, rtol=1e-5)


def test_a_cached_step_is_not_recorded():
    model = build("flux")
    sampling, record = recording("flux", model, [torch.randn(3, 16)])
    first = model.double_blocks[0]
    for step, uses in enumerate((lambda _: True, lambda block: block is first, lambda _: False)):
        model.uses = uses
        run(sampling, model, [(step, call_of(1, [0]))])
    assert read(record).steps == (0,)
    assert sampling.finish().guided_steps == (0,)


def test_a_picture_with_nothing_to_keep_out_has_an_empty_map(kind):
    model = build(kind)
    sampling, record = recording(kind, model, [torch.randn(3, 16), torch.zeros(0, 16)])
    run(sampling, model, [(0, call_of(2, [0]))])
    assert (read(record).mean[0] > 0).all()
    assert (read(record).mean[1] == 0).all()


@pytest.mark.parametrize("method", ["nag", "nasa"])
def test_methods_without_a_share_record_none(kind, method):
    model, negatives = build(kind), [torch.randn(3, 16)]
    sampling, record = recording(kind, model, negatives, method=method)
    run(sampling, model, [(0, call_of(1, [0]))])
    assert record.read() is None


@pytest.mark.parametrize("tiles", [(1, 1, 1), (3,)], ids=["one by one", "in one call"])
def test_a_model_that_is_called_in_parts_has_no_map_but_a_picture(kind, tiles):
    model, negatives, args = build(kind), [torch.randn(3, 16)], call_of(1, [0])
    args["input"] = torch.randn(1, 4, 6, 12, dtype=torch.float64)
    parted = in_tiles(TILE_BY_TILE, tiles)

    outputs = []
    sampling, record = recording(kind, model, negatives)
    for each in (sampling, begin(kind, model, negatives)):
        each.note(0, 4)
        with torch.inference_mode():
            outputs.append(each.wrapper(parted)(apply_to(model), args))
    assert torch.equal(*outputs)
    assert "in parts" in record.problem
    assert record.read() is None


def test_half_a_token_at_the_edge_and_tokens_that_are_no_picture():
    record = ShareRecord(each_step=False)
    share = torch.rand(2, 3 * 4)
    record.add(0, share, (True, True), 2, (5, 7))
    assert torch.equal(read(record).mean, share.unflatten(1, (3, 4)))
    record = ShareRecord(each_step=False)
    record.add(0, share, (True, True), 2, (4, 4))
    assert "12 image tokens for 4x4 latents" in record.problem
    record.add(1, share, (True, True), 2, (5, 7))
    assert record.read() is None
    record = ShareRecord(each_step=False)
    record.add(0, share, (True, True), 2, (6, 8))
    record.add(1, share, (True, True), 2, (8, 6))
    assert record.read() is None, "as many tokens, but another picture"
    record = ShareRecord(each_step=False)
    record.add(0, share, (False, True), 2, (5, 7))
    assert "no whole batches" in record.problem


def test_nothing_is_read_from_the_device_before_the_end():
    record = ShareRecord(each_step=True)
    for step in range(3):  # tensors without values: reading one raises
        record.add(step, torch.empty(4, 12, device="meta"), (False, False, True, True), 2, (6, 8))
    with pytest.raises(NotImplementedError):
        record.read()


def test_without_each_step_no_step_is_kept():
    record = ShareRecord(each_step=False)
    for step in range(50):
        record.add(step, torch.rand(2, 12), (True, True), 2, (6, 8))
    held = [value for value in vars(record).values() if isinstance(value, Tensor)]
    assert sum(tensor.numel() for tensor in held) <= 2 * 24
    assert not record._each
