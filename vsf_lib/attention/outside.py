"""Attention kernels that PyTorch's scaled_dot_product_attention never takes, called by their own interfaces.

Owns flex_attention, xformers and SageAttention: how each is called, and a check of its first numbers, since
what they give differs between versions and devices. A package is imported when it is asked for by name. Must
not know which kernel is to be taken.

Sources of the signatures: torch 2.13's `torch.nn.attention.flex_attention`; xformers 0.0.28 to 0.0.33,
`ops/fmha/__init__.py`; SageAttention of January 2026, `sageattention/core.py`, whose `return_lse` came with
its version 2. flex_attention runs in the tests; the other two have not been run, so that their check decides.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

Pair = tuple[Tensor, Tensor]

_HALF = (torch.float16, torch.bfloat16)


class Outside(NamedTuple):
    """A kernel as a function of q `[B, H, Lq, D]`, k, v `[B, H, Lk, D]` and a bias `[B, 1, 1, Lk]` or None.

    It gives the output `[B, H, Lq, D]` and the log-sum-exp `[B, H, Lq]`.
    """

    run: Callable[[Tensor, Tensor, Tensor, Tensor | None], Pair]
    module: str
    """What has to be installed."""
    devices: tuple[str, ...]
    dtypes: tuple[torch.dtype, ...]
    widest: int
    """The largest head width."""
    biased: bool
    """Whether it takes a bias."""
    side: str | None
    """PyTorch's kernel for the small calls beside it, None for itself."""
    error: float
    """How far its numbers may be from the right ones in the check, beyond the rounding of its dtype.

    On standard normal q, k and v, of the output and of the log-sum-exp alike.
    """


def _flex(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Pair:
    from torch.nn.attention import flex_attention as module  # a statement, which a compiler can follow

    flex: Any = module
    score_mod = None
    if bias is not None:
        row = bias.expand(q.shape[0], -1, -1, -1)

        def score_mod(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
            return score + row[b, 0, 0, j]

    # Compiled, the CPU's gives no log-sum-exp; uncompiled, it makes all logits: for tests alone.
    plain = q.device.type == "cpu" or torch.compiler.is_compiling()
    attention = flex.flex_attention if plain else _compiled_flex()
    if not hasattr(flex, "AuxRequest"):  # before torch 2.9
        out, lse = attention(q, k, v, score_mod=score_mod, return_lse=True)
        return out, lse
    if torch.compiler.is_compiling():
        out, aux = attention(q, k, v, score_mod=score_mod, return_aux=flex.AuxRequest(lse=True))
        return out, aux.lse
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="flex_attention called without torch.compile")
        out, aux = attention(q, k, v, score_mod=score_mod, return_aux=flex.AuxRequest(lse=True))
    return out, aux.lse


@functools.lru_cache(maxsize=1)
def _compiled_flex() -> Callable[..., Any]:
    flex: Any = importlib.import_module("torch.nn.attention.flex_attention")
    compiled: Callable[..., Any] = torch.compile(flex.flex_attention, dynamic=True)
    return compiled


def _xformers(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Pair:
    fmha: Any = importlib.import_module("xformers.ops.fmha")
    # Its layout is [B, L, H, D], and its log-sum-exp's [B, H, L], sometimes padded.
    out, lse = fmha.memory_efficient_attention_partial(*(x.transpose(1, 2) for x in (q, k, v)))
    return out.transpose(1, 2), lse[..., : q.shape[2]]


def _sage(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Pair:
    sage: Any = importlib.import_module("sageattention")
    out, lse = sage.sageattn(q, k, v, tensor_layout="HND", is_causal=False, return_lse=True)
    return out, lse


OUTSIDE: dict[str, Outside] = {
    "flex": Outside(
        _flex,
        "torch.nn.attention.flex_attention",
        ("cpu", "cuda"),
        (torch.float32, torch.float64, *_HALF),
        256,
        biased=True,
        side=None,
        error=1e-4,
    ),
    "xformers": Outside(
        _xformers, "xformers.ops.fmha", ("cuda",), _HALF, 256, biased=False, side="efficient", error=1e-4
    ),
    # 8-bit q and k, in some of its kernels v too.
    "sage": Outside(_sage, "sageattention", ("cuda",), _HALF, 128, biased=False, side="flash", error=0.1),
}


def why_not(name: str, device: torch.device, dtype: torch.dtype, width: int) -> str | None:
    """Why a kernel cannot be used for such tensors, or None if it can, by its first numbers too."""
    kernel = OUTSIDE[name]
    if device.type not in kernel.devices:
        return f"it runs on {' and '.join(kernel.devices)} and the tensors are on {device.type}"
    if dtype not in kernel.dtypes:
        return f"it does not take {dtype}"
    if width > kernel.widest:
        return f"it takes heads of up to {kernel.widest} channels, not {width}"
    return _checked(name, device, dtype, width)


def _checked(name: str, device: torch.device, dtype: torch.dtype, width: int) -> str | None:
    return _first_numbers(OUTSIDE[name], device, dtype, width)


# Makes a compiler call it for its answer, as it does for what torch.compiler.assume_constant_result wraps.
_checked._dynamo_marked_constant = True  # type: ignore[attr-defined]


@functools.lru_cache(maxsize=64)
def _first_numbers(kernel: Outside, device: torch.device, dtype: torch.dtype, width: int) -> str | None:
    try:
        importlib.import_module(kernel.module)
    except Exception as error:  # a package built for another torch fails by all kinds of errors
        return f"{kernel.module} cannot be imported ({_line(error)})"
    generator = torch.Generator().manual_seed(1)
    allowed = kernel.error + 4 * torch.finfo(dtype).eps
    with torch.no_grad():
        for n in (7, 130):  # as few keys as a short negative has, and more than a block
            q, k, v = (
                torch.randn(1, 2, tokens, width, generator=generator).to(device, dtype)
                for tokens in (70, n, n)
            )
            bias = torch.randn(1, 1, 1, n, generator=generator).to(device, dtype) if kernel.biased else None
            try:
                found = kernel.run(q, k, v, bias)
                off = max(
                    float((a.double() - b).abs().max())
                    for a, b in zip(found, _right(q, k, v, bias), strict=True)
                )
            except Exception as error:
                return f"its first call failed ({_line(error)})"
            if not off <= allowed:  # NaN too
                return f"its first numbers were off by {off:.3g}, more than {allowed:.3g}"
    return None


def _right(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Pair:
    logits = q.double() @ k.double().mT / math.sqrt(q.shape[3])
    if bias is not None:
        logits = logits + bias.double()
    return logits.softmax(-1) @ v.double(), logits.logsumexp(-1)


def _line(error: Exception) -> str:
    text = inspect.cleandoc(str(error)).split("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
