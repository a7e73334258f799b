"""The least work that each method can do on one attention.

Owns the count. Knows no tensor.
"""

from __future__ import annotations

from vsf_lib.bench.speed.course import Work
from vsf_lib.bench.speed.methods import OF_VSF, negatives_of
from vsf_lib.bench.speed.shapes import Shape


def floor(method: str, shape: Shape, n_n: int, batch: int = 1) -> Work:
    """The floor of `method` with a negative of `n_n` tokens; of VSF it is the same in every form.

    Each pair of a query and a key costs four operations a channel.
    """
    pairs, moved = _own(shape)
    if method == "none":
        return Work(1.0, 1.0)
    more_pairs, more_moved = (pairs, moved) if method == "cfg" else added(method, shape, n_n)
    channels = batch * shape.heads * shape.width
    return Work(
        (pairs + more_pairs) / pairs,
        (moved + more_moved) / moved,
        4 * more_pairs * channels,
        more_moved * channels,
    )


def added(method: str, shape: Shape, n_n: int, *, asks: bool = True) -> tuple[int, int]:
    """What a method but CFG adds: pairs of a query and a key, and elements of q, k, v and the output, per
    channel.

    Without `asks` nobody needs N's own rows.
    """
    i, n = shape.image, negatives_of(method, shape, n_n)
    if not shape.joint:
        return i * n, 2 * n
    # N's own rows look at I and N. The image's look at N, and for NAG and NASA at I a second time, since
    # both take the two averages apart.
    again = 0 if method in OF_VSF else i * i
    return i * n + again + (n * (i + n) if asks else 0), 4 * n if asks else 2 * n


def _own(shape: Shape) -> tuple[int, int]:
    """Pairs and elements per channel of the unguided attention."""
    i, p = shape.image, shape.text
    if shape.joint:
        return (i + p) ** 2, 4 * (i + p)
    return i * p, 2 * i + 2 * p
