"""The variants on the exact form against their formulas in float64, token by token."""

from __future__ import annotations

import itertools
import math
import random

import pytest
import torch
from attention_reference import draw, reference, regions, spread
from test_attention_joint import Watch, strengths
from torch.nn.functional import scaled_dot_product_attention as sdpa

from vsf_lib.attention import VARIANTS, joint_attention, variant_attention, variant_cross_attention


@pytest.fixture
def seed():
    """Another one on every run; a failure shows it."""
    return random.SystemRandom().randrange(2**31)


ORDERS = ["".join(o) for o in itertools.permutations("IPN")]
WITH_KERNEL, WITHOUT = "exact", "three-call"


def expected(q, k, v, where, *, variant, alpha, beta, limit=None, mask=None):
    """Float64 output and w: rows of P and N from the table's reference, image rows from the formula."""
    out, _ = reference(q, k, v, **where, alpha=0.0, beta=0.0, negative_mask=mask)
    q, k, v = q.double(), k.double(), v.double()
    i, p, n = (list(range(where[x].start, where[x].stop)) for x in ("image", "positive", "negative"))
    a, b = spread(alpha, len(q), len(n)), spread(beta, len(q), len(n))
    if mask is not None:
        b = b.masked_fill(~mask, math.inf)
    logits = q[:, :, i] @ k.mT / math.sqrt(q.shape[3])
    e_b, e_n = logits[..., i + p].exp(), (logits[..., n] - b[:, None, None]).exp()
    z_b, z_n = e_b.sum(-1, keepdim=True), e_n.sum(-1, keepdim=True)
    w = z_n / (z_b + z_n)
    o_b = e_b / z_b @ v[:, :, i + p]
    shares = torch.where(z_n > 0, e_n / z_n, 0.0)  # a row that is off has none
    pushed = (shares * a[:, None, None]) @ v[:, :, n]  # alpha O_n, where each token may have its own alpha
    z = {
        "flip": lambda: (1 - w) * o_b - w * pushed,
        "undiluted": lambda: o_b - w * pushed,
        "difference": lambda: o_b - w * (pushed - a[:, None, :1, None] * o_b),
    }[variant]()
    if limit is not None:
        factors = torch.ones(z.shape[0], 1, z.shape[2], 1, dtype=z.dtype)
        for row, token in itertools.product(range(z.shape[0]), range(z.shape[2])):
            ratio = z[row, :, token].abs().sum() / o_b[row, :, token].abs().sum()
            if ratio > limit:
                factors[row, 0, token, 0] = limit / ratio
        z = z * factors
    out[:, :, i] = z
    return out, w[..., 0]


def assert_matches(q, k, v, where, *, kernel, mask=None, **options):
    want, want_share = expected(q, k, v, where, mask=mask, **options)
    got, share = variant_attention(
        q, k, v, **where, **options, negative_mask=mask, kernel=kernel, return_share=True
    )
    assert got.dtype == q.dtype
    assert (got - want).abs().max().item() <= 1e-5
    assert (share - want_share).abs().max().item() <= 2e-6


@pytest.mark.parametrize("kernel", [WITH_KERNEL, WITHOUT])
@pytest.mark.parametrize("limit", [None, 1.3])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("masked", [False, True])
def test_cross_attention(masked, variant, limit, kernel, seed):
    """The same formulas of what P and N give, with a strength per row."""
    q = draw(seed, 13, count=1)[0]
    k, v = draw(seed + 1, 9, count=2)
    k_n, v_n = draw(seed + 2, 4, count=2)
    alpha, beta = torch.tensor([1.5, 0.7]), 0.4
    mask = torch.tensor([[True] * 4, [True, False, True, False]]) if masked else None
    hidden = torch.zeros(2, 4) if mask is None else torch.where(mask, 0.0, -math.inf)
    logits = q.double() @ k.double().mT / math.sqrt(16)
    logits_n = q.double() @ k_n.double().mT / math.sqrt(16) - beta + hidden.double()[:, None, None]
    w = torch.cat([logits, logits_n], -1).softmax(-1)[..., 9:].sum(-1, keepdim=True)
    o_b, o_n = logits.softmax(-1) @ v.double(), logits_n.softmax(-1) @ v_n.double()
    a = alpha.double().view(2, 1, 1, 1)
    want = {
        "flip": (1 - w) * o_b - a * w * o_n,
        "undiluted": o_b - a * w * o_n,
        "difference": o_b - a * w * (o_n - o_b),
    }[variant]
    if limit is not None:
        ratio = want.abs().sum((1, 3), keepdim=True) / o_b.abs().sum((1, 3), keepdim=True)
        want = torch.where(ratio > limit, want * limit / ratio, want)
    got, share = variant_cross_attention(
        q, k, v, variant=variant, negative=(k_n, v_n), alpha=alpha, beta=beta, limit=limit,
        negative_mask=mask, kernel=kernel, return_share=True,
    )  # fmt: skip
    assert (got - want).abs().max().item() <= 1e-5
    assert (share - w[..., 0]).abs().max().item() <= 2e-6


@pytest.mark.parametrize("kernel", [WITH_KERNEL, WITHOUT])
@pytest.mark.parametrize("limit", [None, 1.0, 1.3])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("order", ORDERS)
def test_any_order_of_regions(order, variant, limit, kernel, seed):
    where = regions(order, 21, 6, 4)
    assert_matches(*draw(seed, 31), where, variant=variant, alpha=1.5, beta=0.2, limit=limit, kernel=kernel)


@pytest.mark.parametrize("kernel", [WITH_KERNEL, WITHOUT])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("beta", ["float", "row", "row-inf", "tokens", "tokens-inf"])
@pytest.mark.parametrize(
    ("variant", "alpha"),
    [
        (variant, alpha)
        for variant in VARIANTS
        for alpha in ("float", "row", "tokens")
        if (variant, alpha) != ("difference", "tokens")  # refused, see below
    ],
)
def test_strengths_per_row_and_token(variant, alpha, beta, masked, kernel):
    g = torch.Generator().manual_seed(4)
    where = regions("IPN", 17, 5, 6)
    mask = torch.arange(6) < torch.tensor([[6], [2], [0]]) if masked else None
    assert_matches(
        *draw(5, 28, batch=3),
        where,
        variant=variant,
        alpha=strengths(alpha, 3, 6, g),
        beta=strengths(beta, 3, 6, g),
        limit=1.5,
        mask=mask,
        kernel=kernel,
    )


def test_the_limit_acts_and_none_does_not():
    where = regions("IPN", 21, 6, 4)
    q, k, v = draw(6, 31)
    unguided = sdpa(q[:, :, :27], k[:, :, :27], v[:, :, :27])[:, :, :21]

    def norms(**options):
        out = variant_attention(q, k, v, **where, variant="undiluted", alpha=8.0, beta=0.0, **options)
        return out[:, :, :21].abs().sum((1, 3)) / unguided.abs().sum((1, 3))

    free, held = norms(), norms(limit=1.2)
    assert free.max() > 1.5
    assert held.max() <= 1.2 + 1e-5
    assert torch.allclose(held[free < 1.2], free[free < 1.2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("limit", [None, 1.0])
@pytest.mark.parametrize("variant", VARIANTS)
def test_off_is_bitwise_the_unguided_call(variant, limit, dtype):
    where = regions("IPN", 21, 6, 4)
    q, k, v = draw(7, 31, dtype=dtype)
    options = {"variant": variant, "alpha": 3.0, "limit": limit}
    out = variant_attention(q, k, v, **where, **options, beta=torch.tensor([math.inf, 0.0]))
    unguided = sdpa(q[:, :, :27], k[:, :, :27], v[:, :, :27])
    assert torch.equal(out[0, :, :27], unguided[0])
    assert not torch.equal(out[1, :, :21], unguided[1, :, :21])
    assert torch.equal(out[1, :, 21:27], unguided[1, :, 21:27])
    assert torch.equal(variant_attention(q, k, v, **where, **options, beta=math.inf)[:, :, :27], unguided)


@pytest.mark.parametrize("variant", VARIANTS)
def test_half_precision(variant):
    """Whose values are halved on the way, lest they overflow."""
    where = regions("IPN", 21, 6, 4)
    for dtype in (torch.float16, torch.bfloat16):
        q, k, v = draw(8, 31, dtype=dtype)
        got = variant_attention(q, k, v, **where, variant=variant, alpha=1.7, beta=0.3, limit=1.5)
        want, _ = expected(q, k, v, where, variant=variant, alpha=1.7, beta=0.3, limit=1.5)
        assert (got.double() - want).abs().max() < 10 * torch.finfo(dtype).eps


def test_flip_without_a_limit_is_vsf():
    where = regions("NPI", 21, 6, 4)
    q, k, v = draw(9, 31)
    vsf = joint_attention(q, k, v, **where, alpha=1.3, beta=0.4)
    assert torch.equal(variant_attention(q, k, v, **where, variant="flip", alpha=1.3, beta=0.4), vsf)


@pytest.mark.parametrize("variant", VARIANTS)
def test_they_make_the_kernel_calls_of_vsf(variant):
    where = regions("IPN", 400, 300, 8)
    q, k, v = draw(10, 708, batch=1, heads=1, width=4)
    with Watch() as vsf:
        joint_attention(q, k, v, **where, alpha=1.0, beta=0.1)
    with Watch() as watch:
        variant_attention(q, k, v, **where, variant=variant, alpha=1.0, beta=0.1, limit=2.0)
    assert [c for c in watch.calls if "attention" in c] == [c for c in vsf.calls if "attention" in c]
    assert watch.largest <= q.numel()


def test_gradients_flow():
    where = regions("IPN", 9, 4, 3)
    q, k, v = (x.requires_grad_() for x in draw(11, 16, dtype=torch.float64))
    options = {"variant": "difference", "alpha": 1.5, "beta": 0.3, "limit": 1.2}
    variant_attention(q, k, v, **where, **options).square().sum().backward()
    got = [x.grad.clone() for x in (q, k, v)]
    for x in (q, k, v):
        x.grad = None
    expected(q, k, v, where, **options)[0].square().sum().backward()
    for have, x in zip(got, (q, k, v), strict=True):
        torch.testing.assert_close(have, x.grad, atol=1e-10, rtol=0)


def test_no_negative_means_unguided():
    q, k, v = draw(12, 27)
    out = variant_attention(q, k, v, **regions("IPN", 21, 6, 0), variant="undiluted", alpha=1.0, beta=0.0)
    assert torch.equal(out, sdpa(q, k, v))


def test_compiled_whole():
    where = regions("IPN", 21, 6, 4)
    q, k, v = draw(13, 31)

    def run(q, k, v):
        return variant_attention(q, k, v, **where, variant="difference", alpha=1.0, beta=0.1, limit=2.0)

    torch.compiler.reset()
    with torch.inference_mode():
        got = torch.compile(run, fullgraph=True, backend="aot_eager")(q, k, v)
        torch.testing.assert_close(got, run(q, k, v), atol=2e-6, rtol=0)
    torch.compiler.reset()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"variant": "magic"}, "flip, undiluted, difference"),
        ({"limit": 0.9}, "limit must be 1 or more"),
        ({"limit": math.nan}, "limit"),
        ({"limit": math.inf}, "limit"),
        ({"variant": "difference", "alpha": torch.ones(2, 4)}, "alpha of a difference"),
    ],
)
def test_bad_arguments_are_named(change, message):
    options = {"variant": "undiluted", "alpha": 1.0, "beta": 0.0, **change}
    with pytest.raises(ValueError, match=message):
        variant_attention(*draw(14, 31), **regions("IPN", 21, 6, 4), **options)
