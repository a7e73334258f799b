"""torch.compile of the whole functions, without a graph break."""

from __future__ import annotations

import math
import shutil

import pytest
import torch
from attention_reference import draw, regions
from torch._dynamo.utils import counters

from vsf_lib.attention import (
    cross_attention,
    joint_attention,
    merge,
    nag_attention,
    nasa_attention,
    variant_attention,
)

WHERE = regions("IPN", 40, 9, 5)


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def run(q, k, v, alpha, beta, mask=None):
    return joint_attention(q, k, v, **WHERE, alpha=alpha, beta=beta, negative_mask=mask, return_share=True)


def assert_same(got, want):
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, atol=2e-6, rtol=0)


def test_joint_with_changing_numbers_and_kinds():
    q, k, v = draw(1, 54)
    mask = torch.arange(5) < torch.tensor([[5], [2]])
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    with torch.inference_mode():
        for strengths in (
            (1.5, 0.2),
            (2.5, 0.3),
            (2.5, math.inf),
            (torch.tensor([1.0, 2.0]), torch.tensor([math.inf, 0.1])),
            (torch.rand(2, 5), torch.rand(2, 5), mask),
        ):
            assert_same(compiled(q, k, v, *strengths), run(q, k, v, *strengths))


def test_sizes_may_change():
    def of_size(q, k, v, where):
        return (joint_attention(q, k, v, **where, alpha=1.0, beta=0.1),)

    compiled = torch.compile(of_size, fullgraph=True, backend="eager", dynamic=True)
    for n_i in (40, 50):
        q, k, v = draw(2, n_i + 14)
        where = regions("NPI", n_i, 9, 5)
        assert_same(compiled(q, k, v, where), of_size(q, k, v, where))


STRENGTH = torch.tensor(1.5)
METHODS = {
    "vsf": (joint_attention, {"alpha": STRENGTH, "beta": STRENGTH}),
    "difference": (variant_attention, {"variant": "difference", "alpha": STRENGTH, "beta": STRENGTH}),
    "nag": (nag_attention, {"phi": STRENGTH, "tau": STRENGTH, "alpha": STRENGTH}),
    "nasa": (nasa_attention, {"alpha": STRENGTH}),
}


@pytest.mark.parametrize("method", list(METHODS))
def test_a_negative_of_any_length_needs_two_graphs(method):
    """The first that is met, and the one for all others."""
    function, strengths = METHODS[method]

    def run(image, text):
        q = torch.cat([image, text], 2)
        n_i = image.shape[2]
        where = {
            "image": slice(0, n_i),
            "positive": slice(n_i, n_i + 9),
            "negative": slice(n_i + 9, q.shape[2]),
        }
        return (function(q, q, q, **where, **strengths),)

    counters.clear()
    compiled = torch.compile(run, fullgraph=True, backend="eager")
    (image,) = draw(5, 40, count=1)
    for n_n in (5, 7, 11, 3, 8):
        (text,) = draw(n_n, 9 + n_n, count=1)
        assert_same(compiled(image, text), run(image, text))
    assert counters["stats"]["unique_graphs"] == 2


def test_cross_and_nag():
    def both(q, k, v):
        negative = (k[:1, :, :3], v[:1, :, :3])
        return (
            cross_attention(q, k[:, :, :9], v[:, :, :9], negative=negative, alpha=1.0, beta=0.1),
            nag_attention(q, k, v, **WHERE, phi=4.0, tau=2.5, alpha=0.125),
        )

    q, k, v = draw(3, 54)
    assert_same(torch.compile(both, fullgraph=True, backend="aot_eager")(q, k, v), both(q, k, v))


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_inductor():
    q, k, v = draw(4, 54)
    compiled = torch.compile(run, fullgraph=True, backend="inductor")
    assert_same(compiled(q, k, v, 1.5, 0.2), run(q, k, v, 1.5, 0.2))


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_the_merge_alone():
    """Compiled by itself, for all sizes and strengths at once; the calls around it stay as they are."""
    merge._fused.cache_clear()
    counters.clear()
    for n_i, n_n, alpha, beta in ((40, 5, 1.5, 0.2), (44, 7, 0.5, 0.0), (51, 6, 3.0, math.inf)):
        where = regions("IPN", n_i, 9, n_n)
        for dtype in (torch.float32, torch.bfloat16):
            q, k, v = draw(n_i, n_i + 9 + n_n, dtype=dtype)
            eager = joint_attention(q, k, v, **where, alpha=alpha, beta=beta, return_share=True)
            fused = joint_attention(q, k, v, **where, alpha=alpha, beta=beta, return_share=True, fuse=True)
            torch.testing.assert_close(fused[1], eager[1], atol=2e-6, rtol=0)
            if beta == math.inf:
                assert torch.equal(fused[0], eager[0])
            rounding = 2e-6 if dtype == torch.float32 else 2**-7
            torch.testing.assert_close(fused[0], eager[0], atol=rounding, rtol=rounding)
    assert 2 <= counters["stats"]["unique_graphs"] <= 6
    merge._fused.cache_clear()
