"""The paper's ablations and the released form against their tables, read literally, in float64.

The reference asks, for each pair of tokens, a sentence whether one may look at the other; it shares nothing
with the package.
"""

from __future__ import annotations

import itertools
import math
import random

import pytest
import torch
from attention_reference import draw, labels, regions, spread
from torch.nn.functional import scaled_dot_product_attention as sdpa

from vsf_lib.attention import joint_attention
from vsf_lib.attention.ablations import (
    embedding_flip_attention,
    no_duplicate_attention,
    no_duplicate_no_mask_attention,
    no_mask_attention,
    released_attention,
)


@pytest.fixture
def seed():
    """Another one on every run; a failure shows it."""
    return random.SystemRandom().randrange(2**31)


ORDERS = ["".join(o) for o in itertools.permutations("IPN")]


def anybody(query, key):
    return True


def vsf_without_a_duplicate(query, key):
    """Image to all, positive not to N, N not to positive."""
    return {query, key} != {"P", "N"}


def released(query, key):
    """The first copy of N goes with the prompt; the second sees itself, and its duplicate the image sees."""
    if key == "duplicate":
        return query == "I"
    if key == "second":
        return query == "second"
    return query != "second" or key == "I"


# function, who may look at whom, which of N's tokens are flipped, whether as duplicates
FORMS = {
    "no mask": (no_mask_attention, anybody, "N", True),
    "no duplicate": (no_duplicate_attention, vsf_without_a_duplicate, "N", False),
    "neither": (no_duplicate_no_mask_attention, anybody, "N", False),
    "embedding": (embedding_flip_attention, anybody, None, False),
    "released": (released_attention, released, "second", True),
}


def expected(name, q, k, v, where, *, alpha, beta, mask=None):
    _, may_look, flipped, duplicated = FORMS[name]
    q, k, v = q.double(), k.double(), v.double()
    batch, _, length, width = q.shape
    kinds, first = labels(length, *where.values()), where["negative"].start
    n_n = kinds.count("N")
    a, b = spread(alpha, batch, n_n), spread(beta, batch, n_n)
    if mask is not None:
        b = b.masked_fill(~mask, math.inf)
    if name == "released":
        for j in range(n_n):
            kinds[first + j] = "second" if j % 2 else "first"
    keys = [(kind, t) for t, kind in enumerate(kinds)]
    if duplicated:
        keys += [("duplicate", t) for t, kind in enumerate(kinds) if kind == flipped]
    out = torch.empty_like(q)
    for row, (query, t) in itertools.product(range(batch), [(kind, t) for t, kind in enumerate(kinds)]):
        logits, values = [], []
        for key, s in keys:
            logit = q[row, :, t] * k[row, :, s] / math.sqrt(width)
            logit, value = logit.sum(-1), v[row, :, s]
            pushes = key == "duplicate" or (key == flipped and not duplicated)
            j = s - first
            if pushes:
                value = -a[row, j] * value
            if not may_look(query, key):
                continue
            of_n = key not in ("I", "P")
            if of_n and query in ("I", "P"):
                if b[row, j] == math.inf:
                    continue
                if pushes and query == "I":
                    logit = logit - b[row, j]
            if of_n and mask is not None and not mask[row, j]:
                continue
            logits.append(logit)
            values.append(value)
        weights = torch.stack(logits).softmax(0)
        out[row, :, t] = (weights[..., None] * torch.stack(values)).sum(0)
    return out


def named(order, *sizes):
    where = regions(order, *sizes)
    return {name: where[name] for name in ("image", "positive", "negative")}


def assert_matches(name, q, k, v, where, *, mask=None, **strengths):
    got = FORMS[name][0](q, k, v, **where, **strengths, negative_mask=mask)
    assert got.dtype == q.dtype and got.shape == q.shape
    want = expected(name, q, k, v, where, mask=mask, **strengths)
    assert (got - want).abs().max().item() <= 1e-5


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", FORMS)
def test_any_order_of_regions(name, order, seed):
    assert_matches(name, *draw(seed, 15, width=8), named(order, 7, 4, 4), alpha=1.5, beta=0.3)


@pytest.mark.parametrize("name", FORMS)
def test_strengths_and_padding_per_token(name):
    where = named("IPN", 5, 3, 4)
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    beta = torch.tensor([[0.0, 0.5, math.inf, math.inf], [0.2, 0.1, 0.4, 0.3]])
    alpha = torch.tensor([[1.0, 2.0, 0.5, 3.0], [1.5, 1.2, 0.7, 0.1]])
    assert_matches(name, *draw(2, 12, width=8), where, alpha=alpha, beta=beta)
    assert_matches(name, *draw(3, 12, width=8), where, alpha=alpha, beta=beta, mask=mask)


@pytest.mark.parametrize("off", ["all", "rows"])
@pytest.mark.parametrize("name", FORMS)
def test_off_is_the_unguided_call(name, off):
    where = named("IPN", 7, 4, 4)
    q, k, v = draw(4, 15, width=8)
    beta = math.inf if off == "all" else torch.tensor([math.inf, 0.1])
    out = FORMS[name][0](q, k, v, **where, alpha=2.0, beta=beta)
    unguided = sdpa(q[:, :, :11], k[:, :, :11], v[:, :, :11])
    torch.testing.assert_close(out[0, :, :11], unguided[0], atol=2e-6, rtol=0)
    assert torch.allclose(out[1, :, :11], unguided[1], atol=1e-3) == (off == "all")


@pytest.mark.parametrize("name", FORMS)
def test_no_negative_means_unguided(name):
    q, k, v = draw(5, 11, width=8)
    out = FORMS[name][0](q, k, v, **named("IPN", 7, 4, 0), alpha=1.0, beta=0.0)
    assert torch.equal(out, sdpa(q, k, v))


def test_every_form_differs_from_vsf_and_from_each_other():
    """Each leaves something else out, which must be seen on image rows."""
    where = named("IPN", 7, 4, 4)
    q, k, v = draw(6, 15, width=8)
    outs = [joint_attention(q, k, v, **where, alpha=1.0, beta=0.2)]
    outs += [attention(q, k, v, **where, alpha=1.0, beta=0.2) for attention, *_ in FORMS.values()]
    image = [out[:, :, :7] for out in outs]
    same = [(a, b) for a, b in itertools.combinations(range(6), 2) if torch.allclose(image[a], image[b])]
    # Without a duplicate or a mask image tokens see the same in one layer; N and P, whose rows differ, tell.
    assert same == [(0, 2), (0, 3), (2, 3)]
    assert not any(torch.allclose(outs[a], outs[b]) for a, b in same)


def test_the_released_form_is_listing_1_with_the_first_copy_in_the_prompt():
    q, k, v = draw(7, 17, width=8)
    got = released_attention(q, k, v, **named("IPN", 7, 4, 6), alpha=1.7, beta=0.2)
    order = [*range(11), 11, 13, 15, 12, 14, 16]
    q, k, v = (x[:, :, order] for x in (q, k, v))
    want = joint_attention(q, k, v, **named("IPN", 7, 7, 3), alpha=1.7, beta=0.2)
    torch.testing.assert_close(got[:, :, order], want, atol=2e-6, rtol=0)


def test_bad_arguments_are_named():
    q, k, v = draw(8, 15, width=8)
    with pytest.raises(ValueError, match="twice in turn, but it has 5"):
        released_attention(q, k, v, **named("IPN", 7, 3, 5), alpha=1.0, beta=0.0)
    with pytest.raises(ValueError, match="alpha"):
        no_mask_attention(q, k, v, **named("IPN", 7, 4, 4), alpha=math.nan, beta=0.0)
    with pytest.raises(ValueError, match="magic"):
        no_mask_attention(q, k, v, **named("IPN", 7, 4, 4), alpha=1.0, beta=0.0, kernel="magic")
    with pytest.raises(ValueError, match="q and k of one length"):
        no_mask_attention(q[:, :, :14], k, v, **named("IPN", 7, 4, 3), alpha=1.0, beta=0.0)
