"""How much more memory a guided joint attention takes at its peak than the model's own, from shapes alone.

Owns the count of what `joint` and `baselines` keep alive at once, for hosts that plan their memory ahead. An
upper bound: which tensors a kernel frees early, and whether it widens a 16-bit operand by a copy (the CPU's
does, CUDA's does not), differs. Counts the exact form. Must not know models.
"""

from __future__ import annotations

from typing import NamedTuple

from .merge import piece_size


class JointShape(NamedTuple):
    """One call of joint attention: q, k and v `[rows, heads, n_i + n_p + n_n, width]` of `itemsize` bytes."""

    rows: int
    heads: int
    width: int
    n_i: int
    n_p: int
    n_n: int
    itemsize: int
    device: str = "cuda"
    """The kind of device; a CPU's caches want smaller pieces."""


def joint_extra_bytes(method: str, shape: JointShape) -> int:
    """What `method` ("vsf", "difference", "nag" or "nasa") adds to the peak of one attention.

    The model's own needs q, k, v and the output of [I, P], and none of those are counted.
    """
    if shape.n_n == 0:
        return 0
    channel = shape.rows * shape.heads * shape.width
    image, negative = channel * shape.n_i, channel * shape.n_n
    text = channel * (shape.n_p + shape.n_n)
    narrow, wide = shape.itemsize, max(shape.itemsize, 4)
    copied = 0 if wide == narrow else wide
    piece = min(image, piece_size(shape.device))  # what is wide at a time
    out = (image + text) * narrow
    if method in ("vsf", "difference"):
        merging = 0 if copied == 0 else 2 * piece * wide  # the guided output, and an operand made wide
        attention = image * narrow + out + merging
    elif method in ("nag", "nasa"):
        z_neg = (image + negative) * narrow
        looking = 3 * (image + negative) * narrow + z_neg  # [I, N] of q, k and v, which do not lie together
        terms = 4 if method == "nag" else 2
        combining = z_neg + out + piece * (2 * copied + terms * wide)
        attention = max(looking, combining)
    else:
        raise ValueError(f"unknown method {method!r}; known are vsf, difference, nag and nasa")
    # Log-sum-exps, their difference, w and what it is made of: a number per token and head each.
    shares = 6 * shape.rows * shape.heads * (shape.n_i + shape.n_p) * wide
    # N in q, k and v, in what follows (its values scaled, its own output), and in the kernel's own buffers.
    return attention + shares + 8 * negative * narrow
