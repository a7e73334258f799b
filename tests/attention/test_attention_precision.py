"""16-bit accuracy beside the masked form's own, and numbers at the edge of what a dtype can hold."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from attention_reference import cross_reference, draw, reference, regions
from torch.nn.functional import scaled_dot_product_attention as sdpa

from vsf_lib.attention import cross_attention, joint_attention

HALF = [torch.bfloat16, torch.float16]


def errors(got, want):
    gap = (got.double() - want).abs()
    return gap.square().mean().sqrt().item(), gap.max().item()


def assert_as_good(ours, masked):
    """Each a list of (rms, max), one pair per seed."""
    rms = statistics.median(a[0] / b[0] for a, b in zip(ours, masked, strict=True))
    largest = statistics.median(a[1] / b[1] for a, b in zip(ours, masked, strict=True))
    assert rms <= 1.3
    assert largest <= 2


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize(
    ("sizes", "alpha", "beta"),
    [((64, 20, 8), 0.5, 0.0), ((64, 20, 8), 3.3, 0.2), ((100, 77, 20), 1.0, 0.2), ((36, 8, 300), 1.5, 2.0)],
)
def test_image_rows_are_as_good_as_masked(sizes, alpha, beta, dtype):
    where = regions("IPN", *sizes)
    ours, masked = [], []
    for seed in range(9):
        q, k, v = draw(seed, sum(sizes), dtype=dtype, width=32)
        want = reference(q, k, v, **where, alpha=alpha, beta=beta)[0][:, :, where["image"]]
        for kernel, into in (("exact", ours), ("masked", masked)):
            got = joint_attention(q, k, v, **where, alpha=alpha, beta=beta, kernel=kernel)
            into.append(errors(got[:, :, where["image"]], want))
    assert_as_good(ours, masked)


@pytest.mark.parametrize("dtype", HALF)
def test_strengths_per_token_are_as_good_as_masked(dtype):
    where = regions("IPN", 64, 20, 8)
    g = torch.Generator().manual_seed(1)
    alpha, beta = torch.rand(2, 8, generator=g) * 3, torch.rand(2, 8, generator=g) * 8
    mask = torch.arange(8) < torch.tensor([[8], [3]])
    ours, masked = [], []
    for seed in range(9):
        q, k, v = draw(seed, 92, dtype=dtype, width=32)
        want = reference(q, k, v, **where, alpha=alpha, beta=beta, negative_mask=mask)[0]
        for kernel, into in (("exact", ours), ("masked", masked)):
            got = joint_attention(q, k, v, **where, alpha=alpha, beta=beta, negative_mask=mask, kernel=kernel)
            into.append(errors(got, want))
    assert_as_good(ours, masked)


@pytest.mark.parametrize("dtype", HALF)
def test_cross_attention_is_as_good_as_one_call(dtype):
    ours, masked = [], []
    for seed in range(9):
        q = draw(seed, 64, dtype=dtype, count=1)[0]
        k, v = draw(seed + 50, 40, dtype=dtype, count=2)
        k_n, v_n = draw(seed + 90, 8, dtype=dtype, count=2)
        want = cross_reference(q, k, v, k_n, v_n, alpha=1.5, beta=0.1)[0]
        for kernel, into in (("exact", ours), ("masked", masked)):
            got = cross_attention(q, k, v, negative=(k_n, v_n), alpha=1.5, beta=0.1, kernel=kernel)
            into.append(errors(got, want))
    assert_as_good(ours, masked)


@pytest.mark.parametrize("kernel", ["exact", "three-call", "masked"])
@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
@pytest.mark.parametrize("sign", [1, -1])
def test_logits_of_ten_thousand(sign, dtype, kernel):
    """Also with a padded token that would win by far, and with a row whose tokens are all off."""
    where = regions("IPN", 21, 6, 4)
    q, k, v = draw(1, 31, batch=3, dtype=dtype)
    q, k = torch.full_like(q, 50.0), torch.full_like(k, 50.0)  # 16 * 50 * 50 / 4 = 10,000
    k[:, :, where["negative"]] *= sign
    k[:, :, 29] = 50.0
    mask = torch.tensor([[True] * 4, [True, True, False, True], [False] * 4])
    for alpha, beta in ((2.0, 0.5), (torch.ones(3, 4), torch.rand(3, 4))):
        strengths = {"alpha": alpha, "beta": beta, "negative_mask": mask}
        got, share = joint_attention(q, k, v, **where, **strengths, kernel=kernel, return_share=True)
        want, want_share = reference(q, k, v, **where, **strengths)
        assert got.isfinite().all() and share.isfinite().all()
        # A log-sum-exp of 10,000 is known to 0.001 in float32: w can be no better than a quarter of that.
        tolerance = 2e-3 if dtype == torch.float32 else 3e-2
        torch.testing.assert_close(got.double(), want, atol=tolerance, rtol=0)
        torch.testing.assert_close(share.double(), want_share, atol=tolerance, rtol=0)


@pytest.mark.parametrize("kernel", ["exact", "three-call", "masked"])
@pytest.mark.parametrize("alpha", [0.25, 1.0, torch.tensor([[1.0, 0.1, 0.5, 0.0]])])
def test_float16_values_at_the_limit_stay_finite(alpha, kernel):
    """alpha v is finite, so the output is; averages of 65,504 must not round up to infinity on the way."""
    where = regions("IPN", 200, 6, 4)
    q, k, _ = draw(2, 210, batch=1, dtype=torch.float16)
    v = torch.ones_like(q)
    v[:, :, where["negative"]] = 65504.0
    got = joint_attention(q, k, v, **where, alpha=alpha, beta=-8.0, kernel=kernel)
    assert got[:, :, where["image"]].isfinite().all()
    assert got[:, :, where["image"]].min() < -1000


@pytest.mark.parametrize("alpha", [0.9, torch.tensor([0.9]), torch.full((1, 40), 0.9)])
def test_float16_averages_that_round_upwards_stay_finite(alpha):
    """A kernel rounds its weights to 16 bits, so an average of 65,504s may be infinite. Here it is."""
    where = regions("IPN", 400, 1, 40)
    q, k, v = (torch.zeros(1, 1, 441, 16, dtype=torch.float16) for _ in range(3))
    q[:, :, :400, 0] = torch.linspace(2, 3.5, 400).half()
    k[:, :, 402:, 0] = -1.0
    v[:, :, where["negative"]] = 65504.0
    plain = sdpa(q[:, :, :400], k[:, :, 401:], v[:, :, 401:])
    assert plain.isinf().any()
    k[:, :, :401, 0] = -8.0  # nearly all attention goes to the negative
    got = joint_attention(q, k, v, **where, alpha=alpha, beta=0.0)
    assert got[:, :, where["image"]].isfinite().all()


def test_float16_strength_far_beyond_its_range_in_float32_arithmetic():
    """alpha v stays finite although alpha itself is large and v small; and tiny strengths do not vanish."""
    where = regions("IPN", 21, 6, 4)
    q, k, v = draw(3, 31, dtype=torch.float16)
    v = v * 0.01
    for alpha in (100000.0, torch.full((2, 4), 100000.0)):
        got = joint_attention(q, k, v, **where, alpha=alpha, beta=0.0)
        want = reference(q, k, v, **where, alpha=100000.0, beta=0.0)[0]
        torch.testing.assert_close(got.double(), want, rtol=5e-3, atol=2.0)


def test_an_infinite_beta_meets_infinite_logit_gaps_without_nan():
    where = regions("IPN", 21, 6, 4)
    q, k, v = draw(4, 31)
    k = k * 1e4
    out, w = joint_attention(q, k, v, **where, alpha=3.0, beta=math.inf, return_share=True)
    assert not w.any() and out.isfinite().all()
