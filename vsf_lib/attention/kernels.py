"""Which attention kernels hand out their log-sum-exp, what each can do, and which one to take.

Owns the table, the choice and the call. Must not know what the attention is for: no regions, no
strengths.

The choice follows `F.scaled_dot_product_attention`: with any other kernel "off" and "guided" would differ in
their last bits and a speed comparison would compare kernels. Those of `outside` are taken only by name.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from .outside import OUTSIDE, why_not

FORMS = ("auto", "exact", "three-call", "masked")

# Stands for minus infinity in a bias. Finite, because a query whose keys are all hidden then gives some
# average and a log-sum-exp near -1e30 on every kernel, where -inf gives NaN on some and 0 on others. In
# float16 the lowest number has to do: it leaves room for logits that differ by 65,000.
HIDDEN = -1e30


class Kernel(NamedTuple):
    """One row of the table. `op` is None where this torch has no such operator.

    `device` is the kind that it runs on; those from outside, which may have several, say so themselves.
    """

    name: str
    device: str
    backend: int
    op: Any
    arguments: frozenset[str]
    dtypes: tuple[torch.dtype, ...]
    width_multiple: int
    bias_argument: str | None
    bias_multiple: int
    side: str


def _row(
    name: str,
    device: str,
    backend: int,
    operator: str,
    dtypes: tuple[torch.dtype, ...],
    *,
    width_multiple: int,
    bias_multiple: int = 1,
    side: str,
) -> Kernel:
    packet = getattr(torch.ops.aten, operator, None)
    op = packet.default if packet is not None else None
    arguments = frozenset(a.name for a in op._schema.arguments) if op is not None else frozenset()
    bias = next((a for a in ("attn_bias", "attn_mask") if a in arguments), None)
    return Kernel(name, device, backend, op, arguments, dtypes, width_multiple, bias, bias_multiple, side)


_HALF = (torch.float16, torch.bfloat16)
_SDP = "_scaled_dot_product_"

# backend: the number of torch.nn.attention.SDPBackend, as torch._fused_sdp_choice returns it.
# width_multiple: the operators skip the padding that SDPA does for odd head widths; such tensors take the
#   three-call form.
# bias_multiple: memory-efficient wants the rows of a bias to start at aligned addresses, as SDPA's own
#   padding ensures.
# side: the kernel for the small calls beside the ordinary one (few keys or few queries). cuDNN builds a plan
#   per shape and has refused short sequences in several versions, so flash does them: it takes the same
#   dtypes and devices, and where few queries would leave most of a GPU idle it splits the keys by itself.
#
# What was checked: `cpu-flash` runs in the tests, all dtypes, with and without bias (torch 2.13). The CUDA
# operators: argument names and defaults read from the schemas of torch 2.13, shapes of output and log-sum-exp
# (flash [B, H, L], memory-efficient padded to a multiple of 32, cuDNN [B, H, L, 1]) by running them on the
# meta device, in the tests. They have not run on a GPU. Arguments are probed by name because the schemas
# changed between torch 2.3 and 2.5.
KERNELS: tuple[Kernel, ...] = (
    _row(
        "cpu-flash",
        "cpu",
        1,
        _SDP + "flash_attention_for_cpu",
        (torch.float32, torch.float64, *_HALF),
        width_multiple=1,
        side="cpu-flash",
    ),
    _row("flash", "cuda", 1, _SDP + "flash_attention", _HALF, width_multiple=8, side="flash"),
    _row(
        "efficient",
        "cuda",
        2,
        _SDP + "efficient_attention",
        (torch.float32, *_HALF),
        width_multiple=8,
        bias_multiple=16,
        side="efficient",
    ),
    _row("cudnn", "cuda", 3, _SDP + "cudnn_attention", _HALF, width_multiple=8, side="flash"),
)

# From outside: asked for by name, checked at their first use. What beside them takes a bias, or few keys
# where an 8-bit kernel has nothing to gain, is PyTorch's own.
OUTSIDE_KERNELS: tuple[Kernel, ...] = tuple(
    Kernel(
        name,
        "cuda",
        -1,
        kernel.run,
        frozenset(),
        kernel.dtypes,
        1,
        "attn_bias" if kernel.biased else None,
        1,
        kernel.side or name,
    )
    for name, kernel in OUTSIDE.items()
)
_BY_NAME = {kernel.name: kernel for kernel in (*KERNELS, *OUTSIDE_KERNELS)}
_BIASED = {"cpu": "cpu-flash", "cuda": "efficient"}


class Plan(NamedTuple):
    """The form of the mathematics ("exact", "three-call" or "masked") and, for the exact form, its kernel."""

    form: str
    kernel: Kernel | None

    def __str__(self) -> str:
        return self.form if self.kernel is None else f"{self.form} ({self.kernel.name})"


def check_kernel_name(kernel: str) -> None:
    """Raise a ValueError that lists what is known unless `kernel` is a form or a kernel."""
    if kernel not in FORMS and kernel not in _BY_NAME:
        known = ", ".join((*FORMS, *_BY_NAME))
        raise ValueError(f"unknown attention kernel {kernel!r}; known are {known}")


def plan(q: Tensor, k: Tensor, v: Tensor, kernel: str = "auto") -> Plan:
    """Decide how attention of q over k and v, all `[B, H, L, D]`, is to be computed.

    "auto" never fails: it falls back to three plain calls. "exact" and a kernel's name raise a ValueError
    where the tensors do not allow them.
    """
    check_kernel_name(kernel)
    if kernel in ("three-call", "masked"):
        return Plan(kernel, None)
    found: Kernel | None = _BY_NAME.get(kernel)
    why: str | None = None
    if found is None:
        found, why = _preferred(q, k, v)
    if found is not None:
        why = _unfit(found, q, k, v)
    if found is not None and why is None:
        return Plan("exact", found)
    if kernel == "auto":
        return Plan("three-call", None)
    raise ValueError(f"kernel {kernel!r} cannot be used here: {why}; use 'auto' or 'three-call'")


def plan_kernel(q: Tensor, kernel: str = "auto") -> str:
    """What `kernel` comes to for tensors like q `[B, H, L, D]`: "exact (flash)", "three-call", "masked"."""
    return str(plan(q, q, q, kernel))


def attend(
    kernel: Kernel, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """softmax(q k^T / sqrt(D) + bias) v and the log-sum-exp of its logits.

    q `[B, H, Lq, D]`, k and v `[B, H, Lk, D]`, bias `[B, 1, 1, Lk]` in q's dtype or None; neither side may be
    empty. Returns `[B, H, Lq, D]` in q's dtype and `[B, H, Lq]` in float32 (float64 for float64).
    """
    if kernel.name in OUTSIDE:
        if bias is not None and kernel.bias_argument is None:
            raise ValueError(f"kernel {kernel.name!r} takes no bias")
        found: tuple[Tensor, Tensor] = kernel.op(q, k, v, bias)
        return found
    options: dict[str, Any] = {}
    if "compute_log_sumexp" in kernel.arguments:
        options["compute_log_sumexp"] = True
    if "attn_bias" in kernel.arguments:
        options["attn_bias"] = None  # has no default
    if bias is not None:
        if kernel.bias_argument is None:
            raise ValueError(f"kernel {kernel.name!r} takes no bias")
        if kernel.bias_multiple > 1:
            n = bias.shape[-1]
            bias = F.pad(bias, (0, -n % kernel.bias_multiple))[..., :n]
            bias = bias.expand(q.shape[0], q.shape[1], q.shape[2], n)
        options[kernel.bias_argument] = bias
    out, lse = kernel.op(q, k, v, **options)[:2]
    if lse.ndim == 4:
        lse = lse.squeeze(-1)
    return out, lse[..., : q.shape[2]]


def side_kernel(kernel: Kernel, *, biased: bool) -> Kernel:
    """The kernel for a small call beside one of `kernel`.

    Pieces of any kernels merge exactly, so abilities and speed decide.
    """
    if biased and kernel.name in OUTSIDE and kernel.bias_argument is not None:
        return kernel
    return _BY_NAME[_BIASED[kernel.device] if biased else kernel.side]


def _preferred(q: Tensor, k: Tensor, v: Tensor) -> tuple[Kernel | None, str | None]:
    if torch.compiler.is_compiling():
        # The choice is a Python number, which a graph cannot hold; it is made once, on empty tensors of the
        # same kind. The kernels' rules about the head width know only these limits and multiples of eight.
        width = next((limit for limit in (64, 128, 256) if q.shape[-1] <= limit), 512)
        backend = _choice_for(q.device, q.dtype, width if q.shape[-1] % 8 == 0 else width - 1)
    elif q.device.type in _BIASED:
        backend = int(torch._fused_sdp_choice(q, k, v))
    else:
        backend = -1
    for kernel in KERNELS:
        if kernel.device == q.device.type and kernel.backend == backend:
            return kernel, None
    return (
        None,
        f"on {q.device.type} with {q.dtype} and head width {q.shape[-1]} no kernel gives a log-sum-exp",
    )


def _choice_for(device: torch.device, dtype: torch.dtype, width: int) -> int:
    if device.type not in _BIASED:
        return -1
    q = torch.empty(1, 1, 64, width, device=device, dtype=dtype)
    return int(torch._fused_sdp_choice(q, q, q))


# What torch.compiler.assume_constant_result does, without importing the compiler for everybody who never
# compiles.
_choice_for._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _unfit(kernel: Kernel, q: Tensor, k: Tensor, v: Tensor) -> str | None:
    """Why `kernel` cannot take these tensors, or None."""
    if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad):
        return "a log-sum-exp carries no gradient and the tensors require one"
    if kernel.name in OUTSIDE:
        return why_not(kernel.name, q.device, q.dtype, q.shape[-1])
    if kernel.op is None:
        return f"this torch ({torch.__version__}) has no operator for it"
    if kernel.device != q.device.type:
        return f"it runs on {kernel.device} and the tensors are on {q.device.type}"
    if q.dtype not in kernel.dtypes:
        return f"it does not take {q.dtype}"
    if q.shape[-1] % kernel.width_multiple:
        return f"it wants a head width that is a multiple of {kernel.width_multiple}, not {q.shape[-1]}"
    return None
