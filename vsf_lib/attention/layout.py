"""Reads the arguments of the attention functions: where the regions lie, how strong N is, and for whom.

Owns validation (ValueErrors that name the value) and the pieces every form needs. Values inside tensors are
never looked at: that would wait for the device at every layer. Must not know kernels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from .kernels import HIDDEN

Strength = float | Tensor


# Where I, P and N lie in a joint sequence, with plain bounds; P and N may be empty. No class: when a compiler
# sees one made of slices, it fixes their bounds, and makes a graph for each length of N.
Regions = tuple[slice, slice, slice]


def size(part: slice) -> int:
    """How many tokens a region has."""
    bounds: tuple[int, int] = (part.start, part.stop)
    return bounds[1] - bounds[0]


def read_regions(length: int, image: slice, positive: slice, negative: slice) -> Regions:
    """Check that the three slices tile `length` tokens, in any order, and that there are image tokens."""
    regions = (
        _bounds("image", image, length),
        _bounds("positive", positive, length),
        _bounds("negative", negative, length),
    )
    end = 0
    for part in _in_order(regions):
        if part.start != end:
            kind = "overlap" if part.start < end else "leave a gap"
            raise ValueError(f"regions {kind} at token {part.start}: {_describe(regions)}")
        end = part.stop
    if end != length:
        raise ValueError(f"regions cover {end} of {length} tokens: {_describe(regions)}")
    if size(regions[0]) == 0:
        raise ValueError(f"there are no image tokens: {_describe(regions)}")
    return regions


def check_qkv(q: Tensor, k: Tensor, v: Tensor) -> None:
    """q `[B, H, Lq, D]`, k and v `[B, H, Lk, D]`, of one dtype and device, with at least one token each."""
    if q.ndim != 4 or k.ndim != 4 or v.ndim != 4:
        raise ValueError(
            f"q, k and v must be [B, H, L, D], got {list(q.shape)}, {list(k.shape)} and {list(v.shape)}"
        )
    if k.shape != v.shape or q.shape[:2] != k.shape[:2] or q.shape[3] != k.shape[3]:
        raise ValueError(
            f"q, k and v do not fit together: {list(q.shape)}, {list(k.shape)} and {list(v.shape)}"
        )
    if q.dtype != k.dtype or q.dtype != v.dtype or not q.dtype.is_floating_point:
        raise ValueError(f"q, k and v must share one floating dtype, got {q.dtype}, {k.dtype} and {v.dtype}")
    if q.device != k.device or q.device != v.device:
        raise ValueError(f"q, k and v are on different devices: {q.device}, {k.device} and {v.device}")
    if q.shape[2] == 0 or k.shape[2] == 0:
        raise ValueError("q, k and v must have at least one token")


def check_joint(q: Tensor, k: Tensor, v: Tensor) -> None:
    """What `check_qkv` says, with every token both asking and asked: `[B, H, L, D]` each."""
    check_qkv(q, k, v)
    if q.shape != k.shape:
        raise ValueError(
            f"joint attention needs q and k of one length, got {list(q.shape)} and {list(k.shape)}"
        )


def read_pair(q: Tensor, k_n: Tensor, v_n: Tensor) -> tuple[Tensor, Tensor]:
    """K_N and V_N of cross-attention, `[B or 1, H, n_n, D]`, checked against q and as `[B, H, n_n, D]`."""
    batch, heads, _, width = q.shape
    for name, x in (("K_N", k_n), ("V_N", v_n)):
        if x.ndim != 4 or x.shape[0] not in (1, batch) or x.shape[1] != heads or x.shape[3] != width:
            raise ValueError(f"{name} must be [{batch} or 1, {heads}, n_n, {width}], got {list(x.shape)}")
        if x.dtype != q.dtype or x.device != q.device:
            raise ValueError(f"{name} is {x.dtype} on {x.device}, the queries are {q.dtype} on {q.device}")
    if k_n.shape[2] != v_n.shape[2]:
        raise ValueError(f"K_N has {k_n.shape[2]} tokens and V_N {v_n.shape[2]}")
    return k_n.expand(batch, -1, -1, -1), v_n.expand(batch, -1, -1, -1)


def autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """What F.scaled_dot_product_attention does under torch.autocast, which overlooks their operators."""
    device = tensors[0].device.type
    if device not in ("cpu", "cuda"):  # no kernels there: plain calls, which autocast knows
        return tensors
    if hasattr(torch, "get_autocast_dtype"):  # torch 2.4
        enabled, dtype = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
    elif device == "cpu":
        enabled, dtype = torch.is_autocast_cpu_enabled(), torch.get_autocast_cpu_dtype()
    else:
        enabled, dtype = torch.is_autocast_enabled(), torch.get_autocast_gpu_dtype()
    if not enabled:
        return tensors
    return tuple(x if x.dtype == torch.float64 else x.to(dtype) for x in tensors)


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype of everything between two roundings."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def read_scalar(name: str, value: Strength, q: Tensor) -> Strength:
    """A float, or a tensor `[B]` as `[B, 1, 1, 1]`, wide."""
    if not isinstance(value, Tensor):
        if not _finite(value):
            raise ValueError(f"{name} must be finite, not {value}")
        return value
    if value.shape not in ((), q.shape[:1]):
        raise ValueError(f"{name} must be a number or [B] = [{q.shape[0]}], got {list(value.shape)}")
    return value.to(q.device, wide(q.dtype)).reshape(-1, 1, 1, 1)


def read_alpha(alpha: Strength, q: Tensor, n_n: int) -> Strength:
    """A float, or a wide tensor `[B, 1]` or `[B, n_n]`."""
    if not isinstance(alpha, Tensor):
        if not _finite(alpha):
            raise ValueError(f"alpha must be finite, not {alpha}")
        return alpha
    return _per_token("alpha", alpha, q, n_n)


def read_beta(beta: Strength, q: Tensor, n_n: int, mask: Tensor | None) -> Strength:
    """A float, or a wide tensor `[B, 1]` or `[B, n_n]` in which padding has beta = inf. Finite or +inf."""
    if isinstance(beta, Tensor):
        value: Strength = _per_token("beta", beta, q, n_n)
    elif not beta > -math.inf:  # NaN compares as false
        raise ValueError(f"beta must be a number or +inf (off), not {beta}")
    else:
        value = beta
    if mask is None:
        return value
    if not isinstance(value, Tensor):
        value = torch.full((1, 1), value, device=q.device, dtype=wide(q.dtype))
    return torch.where(mask, value, math.inf)


def read_mask(mask: Tensor | None, q: Tensor, n_n: int) -> Tensor | None:
    """None, or bool `[B, n_n]` on q's device: True is a real token, False is padding."""
    if mask is None:
        return None
    if mask.shape != (q.shape[0], n_n):
        raise ValueError(f"negative_mask must be [B, n_n] = [{q.shape[0]}, {n_n}], got {list(mask.shape)}")
    if mask.dtype != torch.bool:
        raise ValueError(f"negative_mask must be bool (True = real token), not {mask.dtype}")
    return mask.to(q.device)


def split_alpha(alpha: Strength, v: Tensor) -> tuple[Strength, Tensor]:
    """alpha_j v_j as one factor per row `[B, 1, 1, 1]` (or float) times values of half the largest v at most.

    Tokens of different strength leave only that way: their attention is summed inside the kernel. The half
    keeps a float16 average of values near 65,504 from rounding to infinity; a power of two costs no
    precision.
    """
    if not isinstance(alpha, Tensor):
        return (2 * alpha, v * 0.5) if v.dtype == torch.float16 else (alpha, v)
    if alpha.shape[1] == 1:
        row = alpha[:, :, None, None]
        return (2 * row, v * 0.5) if v.dtype == torch.float16 else (row, v)
    largest = alpha.abs().amax(1, keepdim=True)
    largest = torch.where(largest > 0, 2 * largest, 1.0)
    factor = (alpha / largest)[:, None, :, None]
    return largest[:, :, None, None], (v * factor).to(v.dtype)


def split_beta(beta: Strength, dtype: torch.dtype) -> tuple[Strength, Tensor | None]:
    """beta_j as one number per row `[B, 1, 1]` (or float), and the rest as a bias `[B, 1, 1, n_n]` (or None).

    The row's number is its smallest beta and is subtracted from the log-sum-exp in float32; it is inf for a
    row that is off. Only the remainder, 0 for most, has to go through the kernel's 16 bits.
    """
    if not isinstance(beta, Tensor):
        return beta, None
    if beta.shape[1] == 1:
        return beta[:, :, None], None
    smallest = beta.amin(1, keepdim=True)
    rest = torch.where(torch.isinf(smallest), 0.0, beta - smallest)
    return smallest[:, :, None], hide(-rest, dtype)


def flip(alpha: Strength, v: Tensor) -> Tensor:
    """The values of N1, `[B, H, n_n, D]`: -alpha v, rounded once."""
    if isinstance(alpha, Tensor):
        return (v * -alpha[:, None, :, None]).to(v.dtype)
    return v * -alpha


def row_bias(beta: Strength, dtype: torch.dtype) -> Tensor | float:
    """-beta as an additive bias `[B, 1, 1, n_n or 1]`, or as a float."""
    return hide(-beta, dtype) if isinstance(beta, Tensor) else max(-beta, lowest(dtype))


def mask_bias(mask: Tensor | None, q: Tensor) -> Tensor | None:
    """The bias `[B, 1, 1, n_n]` that hides padding from everybody, in q's dtype."""
    if mask is None:
        return None
    return torch.where(mask, 0.0, lowest(q.dtype)).to(q.dtype)[:, None, None, :]


def hide(bias: Tensor, dtype: torch.dtype) -> Tensor:
    """`[B, n]` as a kernel's bias `[B, 1, 1, n]`, minus infinity made finite (see HIDDEN)."""
    return bias.clamp(min=lowest(dtype)).to(dtype)[:, None, None, :]


def lowest(dtype: torch.dtype) -> float:
    return max(HIDDEN, torch.finfo(dtype).min)


def new_output(q: Tensor) -> Tensor:
    """An uninitialised `[B, H, L, D]` in memory `[B, L, H, D]`: models flatten the heads next, free then."""
    b, h, n, d = q.shape
    return q.new_empty(b, n, h, d).transpose(1, 2)


def take(x: Tensor, parts: Sequence[slice]) -> Tensor:
    """The tokens of `parts`, in the sequence's order: a view where they lie together, otherwise a copy."""
    first, *rest = _in_order(parts)
    joined = [first]
    for part in rest:
        if part.start == joined[-1].stop:
            joined[-1] = slice(joined[-1].start, part.stop)
        else:
            joined.append(part)
    if len(joined) == 1:
        return x[:, :, joined[0]]
    return torch.cat([x[:, :, p] for p in joined], dim=2)


def within(part: slice, others: Sequence[slice]) -> slice:
    """Where `part` lies after `take(x, [part, *others])`."""
    before = sum(o.stop - o.start for o in others if o.start < part.start)
    return slice(before, before + part.stop - part.start)


def _finite(x: float) -> bool:
    # Not math.isfinite, which a compiled graph cannot hold for a number that changes between calls.
    return -math.inf < x < math.inf


def _in_order(parts: Iterable[slice]) -> list[slice]:
    """The parts that are not empty, as they follow each other.

    By insertion, because a compiled graph cannot sort by sizes that change.
    """
    found: list[slice] = []
    for part in parts:
        if part.stop > part.start:
            at = 0
            for other in found:
                at += 1 if other.start <= part.start else 0
            found.insert(at, part)
    return found


def _bounds(name: str, part: slice, length: int) -> slice:
    if not isinstance(part, slice) or part.step not in (None, 1):
        raise ValueError(f"{name} must be a slice with step 1, got {part!r}")
    start = 0 if part.start is None else part.start
    stop = length if part.stop is None else part.stop
    start = start + length if start < 0 else start
    stop = stop + length if stop < 0 else stop
    if start < 0 or stop > length or stop < start:
        raise ValueError(f"{name} = {part!r} does not fit a sequence of {length} tokens")
    return slice(start, stop)


def _per_token(name: str, value: Tensor, q: Tensor, n_n: int) -> Tensor:
    batch = q.shape[0]
    if value.shape not in ((), (batch,), (batch, n_n)):
        raise ValueError(
            f"{name} must be a number, [B] = [{batch}] or [B, n_n] = [{batch}, {n_n}], "
            f"got {list(value.shape)}"
        )
    value = value.to(q.device, wide(q.dtype))
    return value if value.ndim == 2 else value.reshape(-1, 1)


def _describe(regions: Regions) -> str:
    names = ("image", "positive", "negative")
    return ", ".join(f"{n} {p.start}:{p.stop}" for n, p in zip(names, regions, strict=True))
