"""The estimate of extra memory against what PyTorch's allocator saw, on shapes drawn anew each time."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa

from vsf_lib.attention import (
    cross_attention,
    joint_attention,
    merge,
    nag_attention,
    nag_cross_attention,
    nasa_attention,
    nasa_cross_attention,
    variant_attention,
)
from vsf_lib.attention.memory import JointShape, joint_extra_bytes
from vsf_lib.attention.merge import FLIP, Formula, combine, guide
from vsf_lib.bench.allocated import peak

STRENGTHS = {
    "vsf": {"alpha": 2.0, "beta": 0.2},
    "difference": {"variant": "difference", "alpha": 2.0, "beta": 0.2},
    "nag": {"phi": 4.0, "tau": 2.5, "alpha": 0.25},
    "nasa": {"alpha": 0.3},
}
FUNCTIONS = {
    "vsf": joint_attention,
    "difference": variant_attention,
    "nag": nag_attention,
    "nasa": nasa_attention,
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The kernel's buffers grow with the threads, and are no part of the estimate."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def draw_shape(itemsize: int) -> JointShape:
    """More image than text, as is usual, and enough of it to outweigh a kernel's buffers."""
    n_i = random.randrange(700, 1100)
    return JointShape(
        rows=random.randint(1, 2),
        heads=random.randint(12, 16),
        width=random.choice([64, 128]),
        n_i=n_i,
        n_p=random.randrange(0, n_i // 3),
        n_n=random.randint(1, 60),
        itemsize=itemsize,
        device="cpu",
    )


def tensors(shape: JointShape, dtype: torch.dtype) -> list[Tensor]:
    """q, k and v as models have them: `[B, L, H, D]` in memory, N first."""
    length = shape.n_n + shape.n_p + shape.n_i
    return [
        torch.randn(shape.rows, length, shape.heads, shape.width, dtype=dtype).transpose(1, 2)
        for _ in range(3)
    ]


def measured(method: str, shape: JointShape, dtype: torch.dtype, *, padded: bool) -> int:
    """The peak of the guided attention and of its longer q, k and v, less the same of the model's own."""
    n, p = shape.n_n, shape.n_n + shape.n_p
    regions = {"negative": slice(0, n), "positive": slice(n, p), "image": slice(p, p + shape.n_i)}
    mask = None
    if padded:
        mask = torch.ones(shape.rows, n, dtype=torch.bool)
        mask[0, n // 2 :] = False

    def own() -> list[Tensor]:
        q, k, v = tensors(shape._replace(n_n=0), dtype)
        return [q, k, v, sdpa(q, k, v).transpose(1, 2).flatten(2)]

    def guided() -> list[Tensor]:
        q, k, v = tensors(shape, dtype)
        out = FUNCTIONS[method](q, k, v, **regions, **STRENGTHS[method], negative_mask=mask)
        return [q, k, v, out.transpose(1, 2).flatten(2)]

    return peak(guided) - peak(own)


@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("method", list(FUNCTIONS))
def test_bounds_the_measured_peak_within_twice(method: str, dtype: torch.dtype, padded: bool) -> None:
    shape = draw_shape(dtype.itemsize)
    estimate, found = joint_extra_bytes(method, shape), measured(method, shape, dtype, padded=padded)
    assert found <= estimate <= 2 * found, (shape, found, estimate)


@pytest.mark.parametrize("method", list(FUNCTIONS))
def test_more_text_than_image_is_bounded_too(method: str) -> None:
    shape = JointShape(
        rows=1, heads=4, width=64, n_i=random.randrange(200, 400), n_p=900, n_n=40, itemsize=4, device="cpu"
    )
    assert measured(method, shape, torch.float32, padded=False) <= joint_extra_bytes(method, shape)


def test_nothing_is_added_without_a_negative() -> None:
    assert joint_extra_bytes("vsf", draw_shape(2)._replace(n_n=0)) == 0


def test_an_unknown_method_is_named() -> None:
    with pytest.raises(ValueError, match="unknown method 'cfg'"):
        joint_extra_bytes("cfg", draw_shape(2))


FORMULAS = {
    "flip": FLIP,
    "all": Formula(),
    "more": Formula(lambda w: 1 + 2 * w),
    "limit": Formula(limit=1.2),
}


@pytest.mark.parametrize("formula", list(FORMULAS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_merge_allocates_nothing_of_the_outputs_size(
    dtype: torch.dtype, formula: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few numbers per token and head, and a piece's worth; the result in O_b's place."""
    rows, heads, n, width = 2, 3, random.randrange(300, 400), 64
    base, neg = torch.randn(2, rows, heads, n, width).to(dtype)
    lse, neg_lse = torch.randn(2, rows, heads, n)
    form = FORMULAS[formula]
    expected = guided(base, lse, neg, neg_lse, form)
    monkeypatch.setattr(merge, "piece_size", lambda _: 16 * rows * heads * width)
    out = base.clone()
    w = guide(out, out, lse, neg, neg_lse, 1.5, 0.2, form)
    torch.testing.assert_close(w.double(), (neg_lse - lse - 0.2).double().sigmoid(), atol=1e-6, rtol=0)
    rounding = 2e-6 if dtype == torch.float32 else 2**-8
    torch.testing.assert_close(out.double(), expected, atol=rounding, rtol=rounding)
    piece = 16 * rows * heads * width * 4
    taken = peak(lambda: guide(base, base, lse, neg, neg_lse, 1.5, 0.2, form))
    assert taken <= 5 * lse.numel() * 4 + 3 * piece < base.numel() * 4


def guided(base: Tensor, lse: Tensor, neg: Tensor, neg_lse: Tensor, form: Formula) -> Tensor:
    """The merge in float64 by a plain sum over both sets of keys, at alpha 1.5 and beta 0.2."""
    o_b, o_n = base.double(), neg.double()
    shares = torch.stack([lse.double(), neg_lse.double() - 0.2]).softmax(0)[..., None]
    kept = 1.0 if form.keep is None else {FLIP: shares[0]}.get(form, 1 + 2 * shares[1])
    out = kept * o_b - 1.5 * shares[1] * o_n
    if form.limit is None:
        return out
    longest = form.limit * o_b.abs().sum((1, 3), keepdim=True)
    return out * (longest / out.abs().sum((1, 3), keepdim=True)).clamp(max=1)


def test_where_a_gradient_is_wanted_nothing_is_written_over() -> None:
    base, neg = torch.randn(2, 1, 2, 30, 16, requires_grad=True)
    w = torch.rand(1, 2, 30)
    out = torch.empty(1, 2, 30, 16)
    combine(out, base, neg, w, 2.0, Formula(limit=1.0))
    out.square().sum().backward()
    with torch.no_grad():
        again = base.detach().clone()
        combine(again, again, neg, w, 2.0, Formula(limit=1.0))
    torch.testing.assert_close(out, again)


@pytest.mark.parametrize("method", ["nag", "nasa"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_baselines_widen_a_piece_at_a_time(
    method: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In cross-attention beside Z- a few pieces, and no output of their own."""
    n_i, heads, width = random.randrange(2000, 3000), 2, 64
    q, k, v = (torch.randn(1, n, heads, width, dtype=dtype).transpose(1, 2) for n in (n_i, 40, 40))
    negative = tuple(torch.randn(2, 1, heads, 7, width, dtype=dtype))
    function = {"nag": nag_cross_attention, "nasa": nasa_cross_attention}[method]
    whole = function(q, k, v, negative=negative, **STRENGTHS[method])
    monkeypatch.setattr(merge, "piece_size", lambda _: 64 * heads * width)
    torch.testing.assert_close(function(q, k, v, negative=negative, **STRENGTHS[method]), whole)
    taken = peak(lambda: function(q, k, v, negative=negative, **STRENGTHS[method])) - peak(
        lambda: sdpa(q, k, v)
    )
    assert taken <= q.numel() * dtype.itemsize + 7 * 64 * heads * width * 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_cross_attention_takes_the_negatives_output_and_little_else(dtype: torch.dtype) -> None:
    n_i, heads, width = random.randrange(2000, 3000), 2, 64
    q, k, v = (torch.randn(1, n, heads, width, dtype=dtype).transpose(1, 2) for n in (n_i, 40, 40))
    negative = tuple(torch.randn(2, 1, heads, 7, width, dtype=dtype))
    guided = peak(lambda: cross_attention(q, k, v, negative=negative, alpha=1.5, beta=0.2))
    pieces = 0 if dtype == torch.float32 else 2 * merge.piece_size("cpu") * 4
    output = q.numel() * dtype.itemsize
    assert guided - peak(lambda: sdpa(q, k, v)) <= 1.3 * output + pieces


@pytest.mark.parametrize("method", ["vsf", "difference", "nag", "nasa"])
def test_pieces_change_nothing(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = draw_shape(4)._replace(heads=2, n_i=random.randrange(300, 400), n_n=random.randint(1, 20))
    q, k, v = tensors(shape, torch.float32)
    n, p = shape.n_n, shape.n_n + shape.n_p
    regions = {"negative": slice(0, n), "positive": slice(n, p), "image": slice(p, p + shape.n_i)}
    whole = FUNCTIONS[method](q, k, v, **regions, **STRENGTHS[method])
    monkeypatch.setattr(merge, "piece_size", lambda _: 37 * shape.rows * shape.heads * shape.width)
    assert torch.equal(FUNCTIONS[method](q, k, v, **regions, **STRENGTHS[method]), whole)
