"""The table of kernels: each row's operator exists, takes our arguments and returns the shapes we expect."""

from __future__ import annotations

import math

import pytest
import torch
from attention_reference import draw, reference, regions
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention as sdpa

from vsf_lib.attention import KERNELS, joint_attention, plan_kernel
from vsf_lib.attention.joint import _exact
from vsf_lib.attention.kernels import HIDDEN, attend, side_kernel
from vsf_lib.attention.layout import read_regions

CPU = next(kernel for kernel in KERNELS if kernel.name == "cpu-flash")
CUDA = [kernel for kernel in KERNELS if kernel.device == "cuda"]


def log_sum_exp(q, k, bias=0.0):
    return torch.logsumexp(q.double() @ k.double().mT / math.sqrt(q.shape[3]) + bias, -1)


@pytest.mark.parametrize("dtype", CPU.dtypes)
@pytest.mark.parametrize("n_k", [1, 17, 300])
def test_cpu_flash_gives_sdpa_and_its_log_sum_exp(n_k, dtype):
    q, k, v = draw(1, 9, dtype=dtype, count=1) + draw(2, n_k, dtype=dtype, count=2)
    out, lse = attend(CPU, q, k, v)
    assert torch.equal(out, sdpa(q, k, v))
    tolerance = 1e-4 if dtype.itemsize == 2 else 2e-6  # its 16-bit exponential is a coarser one
    torch.testing.assert_close(lse.double(), log_sum_exp(q, k), atol=tolerance, rtol=0)
    bias = torch.zeros(2, 1, 1, n_k)
    bias[0, ..., 1:] = -1.5
    out, lse = attend(CPU, q, k, v, bias.to(dtype))
    torch.testing.assert_close(lse.double(), log_sum_exp(q, k, bias.double()), atol=tolerance, rtol=0)


@pytest.mark.parametrize("dtype", CPU.dtypes)
def test_a_query_without_keys_gives_numbers(dtype):
    q, k, v = draw(3, 9, dtype=dtype)
    bias = torch.full((2, 1, 1, 9), max(HIDDEN, torch.finfo(dtype).min)).to(dtype)
    out, lse = attend(CPU, q, k, v, bias)
    assert out.isfinite().all() and lse.isfinite().all() and lse.max() < -6e4


@pytest.mark.parametrize("kernel", CUDA, ids=lambda k: k.name)
def test_cuda_operators_accept_our_calls(kernel):
    """On the meta device: arguments and shapes, no numbers."""
    dtype = kernel.dtypes[-1]
    q = torch.empty(2, 3, 50, 64, dtype=dtype, device="meta")
    k = torch.empty(2, 3, 7, 64, dtype=dtype, device="meta")
    out, lse = attend(kernel, q, k, k)
    assert out.shape == q.shape and lse.shape == (2, 3, 50) and lse.dtype == torch.float32
    biased = side_kernel(kernel, biased=True)
    out, lse = attend(biased, q, k, k, torch.empty(2, 1, 1, 7, dtype=dtype, device="meta"))
    assert out.shape == q.shape and lse.shape == (2, 3, 50)


@pytest.mark.parametrize("kernel", CUDA, ids=lambda k: k.name)
@pytest.mark.parametrize("masked", [False, True])
def test_the_exact_form_fits_the_cuda_operators(kernel, masked):
    q = torch.empty(2, 3, 60, 64, dtype=torch.bfloat16, device="meta")
    where = read_regions(60, **regions("IPN", 40, 13, 7))
    beta = torch.empty(2, 7, device="meta") if masked else 0.2
    mask = torch.empty(2, 7, dtype=torch.bool, device="meta") if masked else None
    out, w = _exact(kernel, q, q, q, where, 1.5, beta, mask)
    assert out.shape == q.shape and out.dtype == q.dtype and w.shape == (2, 3, 40)


def test_a_bias_is_aligned_where_the_kernel_wants_it():
    seen = {}

    def operator(q, k, v, **options):
        seen.update(options)
        return q, q[..., 0].float()

    efficient = next(kernel for kernel in CUDA if kernel.name == "efficient")
    q, k, v = draw(4, 9, count=1) + draw(5, 7, count=2)
    bias = torch.arange(14.0).reshape(2, 1, 1, 7)
    attend(efficient._replace(op=operator), q, k, v, bias)
    given = seen["attn_bias"]
    assert given.shape == (2, 2, 9, 7) and torch.equal(given, bias.expand_as(given))
    assert all(stride % 16 == 0 for stride in given.stride()[:3]) and given.stride()[3] == 1


@pytest.mark.parametrize("dtype", CPU.dtypes)
def test_the_plain_math_kernel_agrees_with_float64(dtype):
    """The one that plain calls fall back to, and that "auto" meets as "three-call"."""
    q, k, v = draw(11, 60, dtype=dtype)
    where = regions("IPN", 40, 13, 7)
    with sdpa_kernel(SDPBackend.MATH):
        out = joint_attention(q, k, v, **where, alpha=1.5, beta=0.2)
    want, _ = reference(q, k, v, **where, alpha=1.5, beta=0.2)
    tolerance = {8: 1e-12, 4: 3e-6}.get(dtype.itemsize, 0.03)
    torch.testing.assert_close(out.double(), want, atol=tolerance, rtol=0)


def test_plans():
    (q,) = draw(6, 9, count=1)
    assert plan_kernel(q) == plan_kernel(q, "exact") == plan_kernel(q, "cpu-flash") == "exact (cpu-flash)"
    assert plan_kernel(q, "three-call") == "three-call"
    assert plan_kernel(q, "masked") == "masked"
    assert plan_kernel(q.requires_grad_()) == "three-call"
    with torch.no_grad():
        assert plan_kernel(q) == "exact (cpu-flash)"
    assert plan_kernel(torch.empty(1, 2, 9, 16, device="meta")) == "three-call"


def test_the_kernel_that_sdpa_would_take_decides():
    q, k, v = draw(7, 9)
    with sdpa_kernel(SDPBackend.MATH):
        assert plan_kernel(q) == "three-call"
        with pytest.raises(ValueError, match="no kernel gives a log-sum-exp"):
            joint_attention(q, k, v, **regions("IPN", 5, 2, 2), alpha=1.0, beta=0.0, kernel="exact")


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        ("flash", "runs on cuda"),
        ("exact", "gradient"),
        ("magic", "auto, exact, three-call, masked, cpu-"),
    ],
)
def test_impossible_kernels_say_why(kernel, message):
    (q,) = draw(8, 9, count=1)
    with pytest.raises(ValueError, match=message):
        plan_kernel(q.requires_grad_(kernel == "exact"), kernel)
