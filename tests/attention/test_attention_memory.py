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
    nag_attention,
    nasa_attention,
    variant_attention,
)
from vsf_lib.attention.memory import JointShape, joint_extra_bytes
from vsf_lib.attention.merge import FLIP, Formula, guide
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
    shape = JointShape(rows=1, heads=4, width=64, n_i=random.randrange(200, 400), n_p=900, n_n=40, itemsize=4)
    assert measured(method, shape, torch.float32, padded=False) <= joint_extra_bytes(method, shape)


def test_nothing_is_added_without_a_negative() -> None:
    assert joint_extra_bytes("vsf", draw_shape(2)._replace(n_n=0)) == 0


def test_an_unknown_method_is_named() -> None:
    with pytest.raises(ValueError, match="unknown method 'cfg'"):
        joint_extra_bytes("cfg", draw_shape(2))


@pytest.mark.parametrize(
    "formula", [FLIP, Formula(), Formula(lambda w: 1 + 2 * w)], ids=["flip", "all", "more"]
)
def test_the_merge_allocates_nothing_of_the_outputs_size(formula: Formula) -> None:
    """Where O_b is wide already: a few numbers per token and head, and the result in O_b's place."""
    rows, heads, n, width = 2, 3, random.randrange(200, 400), 64
    base, neg = torch.randn(2, rows, heads, n, width)
    lse, neg_lse = torch.randn(2, rows, heads, n)
    expected = guide(base.double(), lse.double(), neg.double(), neg_lse.double(), 1.5, 0.2, formula)[0]
    own = base.clone()
    out = guide(own, lse, neg, neg_lse, 1.5, 0.2, formula)[0]
    assert out.data_ptr() == own.data_ptr()
    torch.testing.assert_close(out.double(), expected, atol=2e-6, rtol=2e-6)
    assert peak(lambda: guide(base, lse, neg, neg_lse, 1.5, 0.2, formula)) <= 5 * lse.numel() * 4


def test_a_limit_still_compares_with_the_unguided_output() -> None:
    base, neg = torch.randn(2, 1, 2, 30, 16)
    lse, neg_lse = torch.randn(2, 1, 2, 30)
    before = base.clone()
    out = guide(base, lse, neg, neg_lse, 3.0, 0.0, Formula(limit=1.2))[0]
    assert torch.equal(base, before)
    norms = [x.abs().sum((1, 3)) for x in (out, base)]
    assert (norms[0] <= 1.2001 * norms[1]).all() and (norms[0] > 1.1 * norms[1]).any()


@pytest.mark.parametrize(
    ("dtype", "pieces"), [(torch.float32, 1), (torch.bfloat16, 5)], ids=["float32", "bfloat16"]
)
def test_cross_attention_takes_the_negatives_output_and_little_else(dtype: torch.dtype, pieces: int) -> None:
    """In 16 bits also the merge in float32, and the operand that the CPU makes wide: twice the size each."""
    n_i, heads, width = random.randrange(2000, 3000), 2, 64
    q, k, v = (torch.randn(1, n, heads, width, dtype=dtype).transpose(1, 2) for n in (n_i, 40, 40))
    negative = tuple(torch.randn(2, 1, heads, 7, width, dtype=dtype))
    guided = peak(lambda: cross_attention(q, k, v, negative=negative, alpha=1.5, beta=0.2))
    output = q.numel() * dtype.itemsize
    assert guided - peak(lambda: sdpa(q, k, v)) <= (pieces + 0.3) * output
