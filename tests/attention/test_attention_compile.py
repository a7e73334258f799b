"""torch.compile of the whole functions, without a graph break."""

from __future__ import annotations

import math
import shutil

import pytest
import torch
from attention_reference import draw, regions

from vsf_lib.attention import cross_attention, joint_attention, nag_attention

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
