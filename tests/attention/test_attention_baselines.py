"""NAG and NASA against their formulas in float64."""

from __future__ import annotations

import math

import pytest
import torch
from attention_reference import draw, regions
from torch.nn.functional import scaled_dot_product_attention as sdpa

from vsf_lib.attention import nag_attention, nag_cross_attention, nasa_attention, nasa_cross_attention


def attention(q, k, v, rows, cols, hidden=None):
    """Attention of tokens `rows` over `cols`, lists of indices; `hidden` [B, L]: True where nobody looks."""
    logits = q[:, :, rows] @ k[:, :, cols].mT / math.sqrt(q.shape[3])
    if hidden is not None:
        logits = logits.masked_fill(hidden[:, None, None, cols], -math.inf)
    return logits.softmax(-1) @ v[:, :, cols]


def expected(q, k, v, where, formula, mask=None):
    q, k, v = q.double(), k.double(), v.double()
    i, p, n = (list(range(s.start, s.stop)) for s in where.values())
    hidden = None
    if mask is not None:
        hidden = torch.zeros(q.shape[0], q.shape[2], dtype=torch.bool)
        hidden[:, n] = ~mask
    out = torch.zeros_like(q)
    out[:, :, p] = attention(q, k, v, p, i + p)
    out[:, :, n] = attention(q, k, v, n, i + n, hidden)
    out[:, :, i] = formula(attention(q, k, v, i, i + p), attention(q, k, v, i, i + n, hidden))
    return out


def named(order, *sizes):
    where = regions(order, *sizes)
    return {name: where[name] for name in ("image", "positive", "negative")}


def nag(phi, tau, alpha, p):
    """Token by token, the slow way."""

    def formula(z_pos, z_neg):
        out = torch.empty_like(z_pos)
        for b in range(z_pos.shape[0]):
            f, t, a = (x if isinstance(x, float) else x[b].item() for x in (phi, tau, alpha))
            for token in range(z_pos.shape[2]):
                plus, minus = z_pos[b, :, token].flatten(), z_neg[b, :, token].flatten()
                z = plus + f * (plus - minus)
                ratio = torch.linalg.norm(z, p) / torch.linalg.norm(plus, p)
                if ratio > t:
                    z = z / ratio * t
                out[b, :, token] = (a * z + (1 - a) * plus).reshape(z_pos.shape[1], -1)
        return out

    return formula


@pytest.mark.parametrize("kernel", ["auto", "masked"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("order", ["IPN", "NPI", "PIN"])
def test_nag_matches_its_formula(order, masked, kernel):
    where = named(order, 13, 5, 4)
    q, k, v = draw(1, 22)
    mask = torch.arange(4) < torch.tensor([[4], [2]]) if masked else None
    for phi, tau, alpha, p in (
        (4.0, 2.5, 0.125, 1),
        (11.0, 5.0, 0.5, 2),
        (torch.tensor([1.0, 11.0]), torch.tensor([1.0, 2.0]), torch.tensor([0.5, 0.9]), 1),
    ):
        got = nag_attention(
            q, k, v, **where, phi=phi, tau=tau, alpha=alpha, p=p, negative_mask=mask, kernel=kernel
        )
        want = expected(q, k, v, where, nag(phi, tau, alpha, p), mask)
        torch.testing.assert_close(got.double(), want, atol=3e-5, rtol=0)


@pytest.mark.parametrize("kernel", ["auto", "masked"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("order", ["IPN", "NPI", "PIN"])
def test_nasa_matches_its_formula(order, masked, kernel):
    where = named(order, 13, 5, 4)
    q, k, v = draw(2, 22)
    mask = torch.arange(4) < torch.tensor([[4], [0]]) if masked else None
    alpha = torch.tensor([0.15, 0.5])
    got = nasa_attention(q, k, v, **where, alpha=alpha, negative_mask=mask, kernel=kernel)
    a = alpha.double()[:, None, None, None]
    want = expected(q, k, v, where, lambda z_pos, z_neg: z_pos - a * z_neg, mask)
    torch.testing.assert_close(got.double(), want, atol=2e-6, rtol=0)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("negative_batch", [1, 2])
def test_cross_attention_matches_the_formulas(negative_batch, masked):
    q = draw(6, 13, count=1)[0]
    k, v = draw(7, 5, count=2)
    k_n, v_n = draw(8, 4, batch=negative_batch, count=2)
    mask = torch.arange(4) < torch.tensor([[4], [2]]) if masked else None
    pair = {"negative": (k_n, v_n), "negative_mask": mask}

    def over(keys, values, hidden=None):
        logits = q.double() @ keys.double().mT / math.sqrt(q.shape[3])
        if hidden is not None:
            logits = logits.masked_fill(hidden[:, None, None, :], -math.inf)
        return logits.softmax(-1) @ values.double()

    z_pos, z_neg = over(k, v), over(k_n, v_n, None if mask is None else ~mask)
    alpha = torch.tensor([0.15, 0.5])
    got = nasa_cross_attention(q, k, v, **pair, alpha=alpha)
    want = z_pos - alpha.double()[:, None, None, None] * z_neg
    torch.testing.assert_close(got.double(), want, atol=2e-6, rtol=0)
    for phi, tau, a, p in ((4.0, 2.5, 0.125, 1), (torch.tensor([1.0, 11.0]), 1.5, alpha, 2)):
        got = nag_cross_attention(q, k, v, **pair, phi=phi, tau=tau, alpha=a, p=p)
        want = nag(phi, tau, a, p)(z_pos, z_neg)
        torch.testing.assert_close(got.double(), want, atol=3e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_alpha_zero_switches_a_row_of_cross_attention_off_exactly(dtype):
    q = draw(9, 13, count=1, dtype=dtype)[0]
    k, v = draw(10, 5, count=2, dtype=dtype)
    pair, off = draw(11, 4, batch=1, count=2, dtype=dtype), torch.tensor([0.0, 0.5])
    unguided = sdpa(q, k, v)
    for out in (
        nasa_cross_attention(q, k, v, negative=tuple(pair), alpha=off),
        nag_cross_attention(q, k, v, negative=tuple(pair), phi=4.0, tau=2.5, alpha=off),
    ):
        assert out.dtype == dtype
        assert torch.equal(out[0], unguided[0])
        assert not torch.equal(out[1], unguided[1])
    nothing = tuple(x[:, :, :0] for x in pair)
    assert torch.equal(nasa_cross_attention(q, k, v, negative=nothing, alpha=0.5), unguided)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_alpha_zero_switches_a_row_off_exactly(dtype):
    where = named("IPN", 13, 5, 4)
    q, k, v = draw(3, 22, dtype=dtype)
    unguided = sdpa(q[:, :, :18], k[:, :, :18], v[:, :, :18])
    off = torch.tensor([0.0, 0.5])
    for out in (
        nasa_attention(q, k, v, **where, alpha=off),
        nag_attention(q, k, v, **where, phi=4.0, tau=2.5, alpha=off),
    ):
        assert out.dtype == dtype
        assert torch.equal(out[0, :, :18], unguided[0])
        assert not torch.equal(out[1, :, :13], unguided[1, :, :13])
        assert torch.equal(out[1, :, 13:18], unguided[1, :, 13:18])


def test_no_negative_means_unguided():
    where = named("IPN", 13, 5, 0)
    q, k, v = draw(4, 18)
    assert torch.equal(nasa_attention(q, k, v, **where, alpha=0.5), sdpa(q, k, v))
    assert torch.equal(nag_attention(q, k, v, **where, phi=4.0, tau=2.5, alpha=0.5), sdpa(q, k, v))


def test_bad_arguments_are_named():
    where = named("IPN", 13, 5, 4)
    q, k, v = draw(5, 22)
    with pytest.raises(ValueError, match="phi"):
        nag_attention(q, k, v, **where, phi=math.nan, tau=2.5, alpha=0.5)
    with pytest.raises(ValueError, match="alpha"):
        nasa_attention(q, k, v, **where, alpha=torch.ones(2, 4))
    with pytest.raises(ValueError, match="V_N"):
        nag_cross_attention(q, k, v, negative=(k, v[..., :3]), phi=4.0, tau=2.5, alpha=0.5)
    with pytest.raises(ValueError, match="magic"):
        nasa_attention(q, k, v, **where, alpha=0.5, kernel="magic")
    with pytest.raises(ValueError, match="q and k of one length"):
        nasa_attention(q[:, :, :21], k, v, **where, alpha=0.5)
