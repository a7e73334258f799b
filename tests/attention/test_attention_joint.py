"""Joint attention against the literal float64 reading of the table, and what follows from its definition."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from attention_reference import draw, reference, regions
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention as sdpa
from torch.utils._python_dispatch import TorchDispatchMode

from vsf_lib.attention import joint_attention

ORDERS = ["".join(o) for o in itertools.permutations("IPN")]
FORMS = ("exact", "three-call", "masked")


def assert_matches(q, k, v, where, *, kernel, strongest, **strengths):
    want, want_share = reference(q, k, v, **where, **strengths)
    got, share = joint_attention(q, k, v, **where, **strengths, kernel=kernel, return_share=True)
    assert got.dtype == q.dtype and got.shape == q.shape
    assert share.shape == want_share.shape
    limit = 2e-6 * (1 + strongest)
    assert (got - want).abs().max().item() <= limit
    assert (share - want_share).abs().max().item() <= 2e-6


@pytest.mark.parametrize("kernel", FORMS)
@pytest.mark.parametrize("order", ORDERS)
def test_any_order_of_regions(order, kernel):
    where = regions(order, 21, 6, 4)
    assert_matches(*draw(1, 31), where, kernel=kernel, strongest=1.5, alpha=1.5, beta=0.2)


@pytest.mark.parametrize("kernel", FORMS)
@pytest.mark.parametrize("sizes", [(1, 0, 1), (1, 5, 0), (1, 0, 0), (9, 0, 300), (33, 7, 1), (40, 77, 64)])
def test_extreme_sizes(sizes, kernel):
    where = regions("IPN", *sizes)
    assert_matches(*draw(2, sum(sizes)), where, kernel=kernel, strongest=2, alpha=2.0, beta=0.1)


@pytest.mark.parametrize("width", [1, 7, 40, 64, 65])
def test_odd_head_widths(width):
    where = regions("NPI", 20, 5, 3)
    assert_matches(*draw(3, 28, width=width), where, kernel="exact", strongest=1, alpha=1.0, beta=0.0)


def strengths(kind, batch, n_n, generator):
    """alpha >= 0 or beta >= 0 of the given kind, with some tokens and rows off where `inf` is in it."""
    if kind == "float":
        return 1.25
    if kind == "row":
        return torch.linspace(0.5, 3, batch)
    x = torch.rand(batch, n_n, generator=generator) * 3
    if kind == "tokens-inf":
        x = torch.where(torch.rand(batch, n_n, generator=generator) > 0.5, math.inf, x)
        x[-1] = math.inf
    if kind == "row-inf":
        return torch.tensor([math.inf] + [0.3] * (batch - 1))
    return x


@pytest.mark.parametrize("kernel", FORMS)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("beta", ["float", "row", "row-inf", "tokens", "tokens-inf"])
@pytest.mark.parametrize("alpha", ["float", "row", "tokens"])
def test_strengths_per_row_and_token(alpha, beta, masked, kernel):
    g = torch.Generator().manual_seed(4)
    where = regions("IPN", 17, 5, 6)
    mask = None
    if masked:
        mask = torch.arange(6) < torch.tensor([[6], [2], [0]])  # one whole, one padded, one without negative
    assert_matches(
        *draw(5, 28, batch=3),
        where,
        kernel=kernel,
        strongest=3,
        alpha=strengths(alpha, 3, 6, g),
        beta=strengths(beta, 3, 6, g),
        negative_mask=mask,
    )


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    order=st.sampled_from(ORDERS),
    n_i=st.integers(1, 40),
    n_p=st.integers(0, 20),
    n_n=st.integers(0, 20),
    alpha=st.floats(-1, 5),
    beta=st.one_of(st.floats(0, 5), st.just(math.inf)),
    kernel=st.sampled_from(("auto", *FORMS)),
    seed=st.integers(0, 2**31),
)
def test_any_input(order, n_i, n_p, n_n, alpha, beta, kernel, seed):
    where = regions(order, n_i, n_p, n_n)
    qkv = draw(seed, n_i + n_p + n_n, width=8)
    assert_matches(*qkv, where, kernel=kernel, strongest=abs(alpha), alpha=alpha, beta=beta)


# --- the checks of the method


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("off", ["float", "rows", "tokens", "mask"])
def test_off_is_bitwise_the_unguided_call(order, off):
    n_n = 4
    where = regions(order, 21, 6, n_n)
    q, k, v = draw(6, 31)
    beta = {"float": math.inf, "rows": torch.full((2,), math.inf), "tokens": torch.full((2, n_n), math.inf)}
    mask = torch.zeros(2, n_n, dtype=torch.bool) if off == "mask" else None
    out = joint_attention(q, k, v, **where, alpha=3.0, beta=beta.get(off, 0.0), negative_mask=mask)
    keep = torch.ones(31, dtype=torch.bool)
    keep[where["negative"]] = False
    unguided = sdpa(q[:, :, keep], k[:, :, keep], v[:, :, keep])
    assert torch.equal(out[:, :, keep], unguided)


def test_one_row_off_leaves_the_others_guided():
    where = regions("IPN", 21, 6, 4)
    q, k, v = draw(7, 31)
    out = joint_attention(q, k, v, **where, alpha=3.0, beta=torch.tensor([math.inf, 0.0]))
    unguided = sdpa(q[:, :, :27], k[:, :, :27], v[:, :, :27])
    assert torch.equal(out[0, :, :27], unguided[0])
    assert not torch.allclose(out[1, :, :21], unguided[1, :, :21], atol=1e-3)
    assert torch.equal(out[1, :, 21:27], unguided[1, :, 21:27])  # only the image path is guided


def test_a_large_beta_approaches_the_unguided_output():
    where = regions("IPN", 21, 6, 4)
    q, k, v = draw(8, 31)
    unguided = sdpa(q[:, :, :27], k[:, :, :27], v[:, :, :27])[:, :, :21]
    gaps = [
        (joint_attention(q, k, v, **where, alpha=2.0, beta=b)[:, :, :21] - unguided).abs().max().item()
        for b in (0.0, 2.0, 5.0, 20.0)
    ]
    assert gaps == sorted(gaps, reverse=True) and gaps[0] > 0.1 and gaps[-1] < 1e-6


@pytest.mark.parametrize("kernel", FORMS)
def test_alpha_zero_still_takes_attention_away(kernel):
    where = regions("IPN", 21, 6, 4)
    q, k, v = draw(9, 31)
    out, w = joint_attention(q, k, v, **where, alpha=0.0, beta=0.0, kernel=kernel, return_share=True)
    unguided = sdpa(q[:, :, :27], k[:, :, :27], v[:, :, :27])[:, :, :21]
    assert w.min() > 0
    torch.testing.assert_close(out[:, :, :21], unguided * (1 - w[..., None]), atol=2e-6, rtol=0)
    assert not torch.allclose(out[:, :, :21], unguided, atol=1e-3)


@pytest.mark.parametrize("kernel", FORMS)
@pytest.mark.parametrize("order", ["IPN", "NPI"])
def test_alpha_minus_one_is_ordinary_attention_on_image_rows(order, kernel):
    where = regions(order, 21, 6, 4)
    q, k, v = draw(10, 31)
    out = joint_attention(q, k, v, **where, alpha=-1.0, beta=0.0, kernel=kernel)
    ordinary = sdpa(q[:, :, where["image"]], k, v)
    torch.testing.assert_close(out[:, :, where["image"]], ordinary, atol=2e-6, rtol=0)


def test_equation_7_with_w_from_equation_8():
    where = regions("IPN", 21, 6, 4)
    q, k, v = draw(11, 31, dtype=torch.float64)
    alpha, beta = 1.7, 0.4
    e = (q[:, :, :21] @ k.mT / math.sqrt(q.shape[3])).exp()
    e_pos, e_neg = e[..., :27], e[..., 27:] * math.exp(-beta)
    z_pos, z_neg = e_pos.sum(-1, keepdim=True), e_neg.sum(-1, keepdim=True)
    w = z_pos / (z_pos + z_neg)
    z = w * (e_pos / z_pos) @ v[:, :, :27] - alpha * (1 - w) * (e_neg / z_neg) @ v[:, :, 27:]
    out, share = joint_attention(q, k, v, **where, alpha=alpha, beta=beta, return_share=True)
    torch.testing.assert_close(out[:, :, :21], z, atol=1e-12, rtol=0)
    torch.testing.assert_close(share, 1 - w[..., 0], atol=1e-12, rtol=0)


def test_the_share_is_returned_for_an_empty_negative():
    _, w = joint_attention(*draw(12, 8), **regions("IPN", 5, 3, 0), alpha=1.0, beta=0.0, return_share=True)
    assert w.shape == (2, 2, 5) and not w.any()


# --- what it costs


class Watch(TorchDispatchMode):
    """Notes every operator below autograd and the size of what it returns."""

    def __init__(self):
        super().__init__()
        self.calls, self.largest = [], 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.calls.append(func.name())
        for x in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(x, torch.Tensor):
                self.largest = max(self.largest, x.numel())
        return out

    @property
    def attention_calls(self):
        return sum("scaled_dot_product" in c for c in self.calls)


def watched(where, kernel, **more):
    n_n = where["negative"].stop - where["negative"].start
    q, k, v = draw(13, 700 + n_n, batch=1, heads=1, width=4)
    with Watch() as watch:
        joint_attention(q, k, v, **where, alpha=1.0, beta=0.1, kernel=kernel, **more)
    return watch, q.numel()


@pytest.mark.parametrize(
    ("order", "mask", "calls"),
    [("IPN", False, 4), ("NPI", False, 4), ("PIN", False, 3), ("NIP", False, 3), ("PIN", True, 4)],
)
def test_the_exact_form_allocates_nothing_of_many_by_many(order, mask, calls):
    where = regions(order, 400, 300, 8)
    mask = torch.ones(1, 8, dtype=torch.bool) if mask else None
    watch, size = watched(where, "exact", negative_mask=mask, return_share=True)
    assert watch.attention_calls == calls
    assert watch.largest <= size  # the output itself; 400 x 300 would be 42 times that
    assert not any("cat" in c for c in watch.calls)  # nor are keys joined


def test_the_other_forms_cost_what_they_say():
    where = regions("IPN", 400, 300, 8)
    masked, _ = watched(where, "masked")
    assert masked.attention_calls == 1
    assert masked.largest >= 708 * 716  # also shows that the watch sees a mask
    assert watched(where, "three-call")[0].attention_calls == 3
    assert watched(regions("IPN", 400, 300, 0), "auto")[0].attention_calls == 1


def test_heads_flatten_without_a_copy():
    q, k, v = draw(14, 31)
    out = joint_attention(q, k, v, **regions("IPN", 21, 6, 4), alpha=1.0, beta=0.0)
    flat = out.transpose(1, 2).flatten(2)
    assert flat.data_ptr() == out.data_ptr()


# --- gradients, inference, autocast


def test_gradients_flow_through_the_three_call_form():
    where = regions("IPN", 9, 4, 3)
    q, k, v = (x.requires_grad_() for x in draw(15, 16, dtype=torch.float64))
    weight = draw(16, 16, dtype=torch.float64, count=1)[0]
    (joint_attention(q, k, v, **where, alpha=1.5, beta=0.3) * weight).sum().backward()
    got = [x.grad.clone() for x in (q, k, v)]
    for x in (q, k, v):
        x.grad = None
    (reference(q, k, v, **where, alpha=1.5, beta=0.3)[0] * weight).sum().backward()
    for have, x in zip(got, (q, k, v), strict=True):
        torch.testing.assert_close(have, x.grad, atol=1e-10, rtol=0)


def test_inference_mode():
    where = regions("NPI", 9, 4, 3)
    with torch.inference_mode():
        assert_matches(*draw(17, 16), where, kernel="exact", strongest=1, alpha=1.0, beta=0.3)


def test_autocast_is_followed_as_sdpa_follows_it():
    where = regions("IPN", 9, 4, 3)
    q, k, v = draw(18, 16)
    with torch.autocast("cpu", torch.bfloat16):
        out = joint_attention(q, k, v, **where, alpha=1.0, beta=math.inf)
        unguided = sdpa(q[:, :, :13], k[:, :, :13], v[:, :, :13])
    assert out.dtype == unguided.dtype == torch.bfloat16
    assert torch.equal(out[:, :, :13], unguided)


# --- refusals

GOOD = regions("IPN", 9, 4, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": slice(0, 10)}, "overlap"),
        ({"image": slice(0, 8)}, "gap"),
        ({"negative": slice(13, 15)}, "cover 15 of 16"),
        ({"negative": slice(13, 17)}, "does not fit"),
        ({"image": slice(0, 9, 2)}, "step 1"),
        ({"image": slice(0, 0), "positive": slice(0, 13)}, "no image tokens"),
        ({"alpha": math.nan}, "alpha"),
        ({"alpha": math.inf}, "alpha"),
        ({"beta": math.nan}, "beta"),
        ({"beta": -math.inf}, "beta"),
        ({"alpha": torch.ones(3)}, r"\[B\] = \[2\]"),
        ({"beta": torch.ones(2, 4)}, r"\[2, 3\]"),
        ({"negative_mask": torch.ones(2, 4, dtype=torch.bool)}, "negative_mask"),
        ({"negative_mask": torch.ones(2, 3)}, "bool"),
        ({"kernel": "magic"}, "three-call"),
    ],
)
def test_bad_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        joint_attention(*draw(19, 16), **{**GOOD, "alpha": 1.0, "beta": 0.0, **change})


def test_bad_tensors_are_named():
    q, k, v = draw(20, 16)
    for bad in ((q, k, v[:, :, :15]), (q, k, v.bfloat16()), (q[0], k[0], v[0]), (q.int(), k.int(), v.int())):
        with pytest.raises(ValueError, match="q, k and v"):
            joint_attention(*bad, **GOOD, alpha=1.0, beta=0.0)
    with pytest.raises(ValueError, match="q and k of one length"):
        joint_attention(q[:, :, :15], k, v, **GOOD, alpha=1.0, beta=0.0)


def test_slices_may_be_open_or_count_from_the_end():
    q, k, v = draw(21, 16)
    plain = joint_attention(q, k, v, **GOOD, alpha=1.0, beta=0.0)
    same = joint_attention(
        q, k, v, image=slice(9), positive=slice(9, -3), negative=slice(-3, None), alpha=1.0, beta=0.0
    )
    assert torch.equal(plain, same)
