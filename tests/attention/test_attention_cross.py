"""Cross-attention against a float64 softmax over [P, N]."""

from __future__ import annotations

import math

import pytest
import torch
from attention_reference import cross_reference, draw
from torch.nn.functional import scaled_dot_product_attention as sdpa

from vsf_lib.attention import cross_attention


def inputs(seed, n_i, n_p, n_n, *, batch=2, negative_batch=2, dtype=torch.float32):
    q = draw(seed, n_i, batch=batch, count=1, dtype=dtype)[0]
    k, v = draw(seed + 100, n_p, batch=batch, count=2, dtype=dtype)
    return q, k, v, *draw(seed + 200, n_n, batch=negative_batch, count=2, dtype=dtype)


@pytest.mark.parametrize("kernel", ["exact", "three-call", "masked"])
@pytest.mark.parametrize("sizes", [(33, 16, 5), (1, 1, 1), (20, 64, 300), (9, 5, 0)])
@pytest.mark.parametrize("negative_batch", [1, 2])
@pytest.mark.parametrize("how", ["floats", "rows", "tokens", "masked"])
def test_matches_the_reference(how, negative_batch, sizes, kernel):
    q, k, v, k_n, v_n = inputs(1, *sizes, negative_batch=negative_batch)
    n_n = sizes[2]
    g = torch.Generator().manual_seed(0)
    alpha, beta, mask = 1.5, 0.1, None
    if how == "rows":
        alpha, beta = torch.tensor([0.5, 3.0]), torch.tensor([math.inf, 0.2])
    elif how == "tokens":
        alpha, beta = torch.rand(2, n_n, generator=g) * 3, torch.rand(2, n_n, generator=g)
        beta[:, 1:2] = math.inf
    elif how == "masked":
        mask = torch.arange(n_n) < torch.tensor([[n_n], [0]])
    strengths = {"alpha": alpha, "beta": beta, "negative_mask": mask}
    want, want_share = cross_reference(q, k, v, k_n, v_n, **strengths)
    got, share = cross_attention(q, k, v, negative=(k_n, v_n), **strengths, kernel=kernel, return_share=True)
    assert (got - want).abs().max().item() <= 2e-6 * 4
    assert (share - want_share).abs().max().item() <= 2e-6


def test_off_is_bitwise_the_unguided_call():
    q, k, v, k_n, v_n = inputs(2, 33, 16, 5)
    mask = torch.zeros(2, 5, dtype=torch.bool)
    unguided = sdpa(q, k, v)
    for off in (
        {"beta": math.inf},
        {"beta": torch.full((2,), math.inf)},
        {"beta": 0.0, "negative_mask": mask},
    ):
        assert torch.equal(cross_attention(q, k, v, negative=(k_n, v_n), alpha=2.0, **off), unguided)


def test_gradients_take_the_one_call_form():
    q, k, v, k_n, v_n = (x.requires_grad_() for x in inputs(3, 9, 5, 3, dtype=torch.float64))
    cross_attention(q, k, v, negative=(k_n, v_n), alpha=1.0, beta=0.2).square().sum().backward()
    got = [x.grad.clone() for x in (q, k, v, k_n, v_n)]
    for x in (q, k, v, k_n, v_n):
        x.grad = None
    cross_reference(q, k, v, k_n, v_n, alpha=1.0, beta=0.2)[0].square().sum().backward()
    for have, x in zip(got, (q, k, v, k_n, v_n), strict=True):
        torch.testing.assert_close(have, x.grad, atol=1e-10, rtol=0)


@pytest.mark.parametrize("needs_grad", [3, 4])
def test_gradients_of_the_negative_alone(needs_grad):
    tensors = list(inputs(4, 9, 5, 3))
    tensors[needs_grad].requires_grad_()
    q, k, v, k_n, v_n = tensors
    cross_attention(q, k, v, negative=(k_n, v_n), alpha=1.0, beta=0.2).sum().backward()
    assert tensors[needs_grad].grad.abs().max() > 0


def test_bad_negatives_are_named():
    q, k, v, k_n, v_n = inputs(5, 9, 5, 3)
    for pair, message in (
        ((k_n[:, :1], v_n), "K_N"),
        ((k_n, v_n[..., :3]), "V_N"),
        ((k_n, v_n[:, :, :2]), "3 tokens"),
        ((k_n, v_n.double()), "V_N"),
    ):
        with pytest.raises(ValueError, match=message):
            cross_attention(q, k, v, negative=pair, alpha=1.0, beta=0.0)
