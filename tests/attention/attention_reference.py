"""The table of the method, read literally, in float64: the yardstick of the attention tests.

Shares no code with the package: keys of N stand in the list twice, a boolean matrix says who sees whom, and a
plain softmax does the rest.
"""

from __future__ import annotations

import math

import torch

# (query, key) pairs that may look; N1 is the flipped duplicate and never asks.
SEES = {("I", "I"), ("I", "P"), ("I", "N1"), ("P", "I"), ("P", "P"), ("N", "I"), ("N", "N")}


def labels(length, image, positive, negative):
    kinds = ["?"] * length
    for name, part in (("I", image), ("P", positive), ("N", negative)):
        for t in range(part.start, part.stop):
            assert kinds[t] == "?"
            kinds[t] = name
    assert "?" not in kinds
    return kinds


def table(kinds):
    """Boolean `[L, L + n_n]`."""
    keys = kinds + ["N1"] * kinds.count("N")
    return torch.tensor([[(a, b) in SEES for b in keys] for a in kinds])


def spread(x, batch, n_n):
    """A float, `[B]` or `[B, n_n]` as float64 `[B, n_n]`."""
    x = torch.as_tensor(x, dtype=torch.float64)
    if x.ndim == 1:
        x = x[:, None]
    return x.expand(batch, n_n)


def reference(q, k, v, *, image, positive, negative, alpha, beta, negative_mask=None):
    """Float64 output `[B, H, L, D]` and share `[B, H, n_i]`."""
    q, k, v = q.double(), k.double(), v.double()
    batch, _, length, width = q.shape
    n_n = negative.stop - negative.start
    allowed = table(labels(length, image, positive, negative)).expand(batch, -1, -1).clone()
    if negative_mask is not None:
        for b in range(batch):
            for j in range(n_n):
                if not negative_mask[b, j]:
                    allowed[b, negative, negative.start + j] = False
                    allowed[b, image, length + j] = False
    alpha, beta = spread(alpha, batch, n_n), spread(beta, batch, n_n)
    logits = q @ torch.cat([k, k[:, :, negative]], 2).mT / math.sqrt(width)
    logits[..., length:] -= beta[:, None, None, :]
    weights = logits.masked_fill(~allowed[:, None], -math.inf).softmax(-1)
    values = torch.cat([v, -alpha[:, None, :, None] * v[:, :, negative]], 2)
    return weights @ values, weights[:, :, image, length:].sum(-1)


def cross_reference(q, k, v, k_n, v_n, *, alpha, beta, negative_mask=None):
    q, k, v, k_n, v_n = (x.double() for x in (q, k, v, k_n, v_n))
    batch, n_n = q.shape[0], k_n.shape[2]
    k_n, v_n = k_n.expand(batch, -1, -1, -1), v_n.expand(batch, -1, -1, -1)
    alpha, beta = spread(alpha, batch, n_n), spread(beta, batch, n_n)
    if negative_mask is not None:
        beta = beta.masked_fill(~negative_mask, math.inf)
    logits_n = q @ k_n.mT / math.sqrt(q.shape[3]) - beta[:, None, None, :]
    weights = torch.cat([q @ k.mT / math.sqrt(q.shape[3]), logits_n], 3).softmax(-1)
    values = torch.cat([v, -alpha[:, None, :, None] * v_n], 2)
    return weights @ values, weights[..., k.shape[2] :].sum(-1)


def regions(order, n_i, n_p, n_n):
    """Slices for an order such as "IPN", by the interface's names."""
    sizes, names = {"I": n_i, "P": n_p, "N": n_n}, {"I": "image", "P": "positive", "N": "negative"}
    out, at = {}, 0
    for kind in order:
        out[names[kind]] = slice(at, at + sizes[kind])
        at += sizes[kind]
    return out


def draw(seed, length, *, batch=2, heads=2, width=16, dtype=torch.float32, count=3):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, heads, length, width, generator=g).to(dtype) for _ in range(count)]
