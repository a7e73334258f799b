"""Value sign flip and its baselines as pure attention functions: tensors in, tensors out.

This package knows the mathematics and PyTorch's kernels. It must not know models, pipelines, settings or
hosts, and imports torch and nothing of ours.

Symbols, as in the VSF paper (Guo & Du, "Value Sign Flip", section 3 and appendices B and C): I image or video
tokens, P positive prompt, N negative prompt, alpha the push of the flipped values, beta the bias taken off
the logits I -> N, w the share of a query's attention that the negative prompt gets.
"""

from __future__ import annotations

from .baselines import nag_attention, nag_cross_attention, nasa_attention, nasa_cross_attention
from .cross import cross_attention
from .joint import joint_attention
from .kernels import KERNELS, OUTSIDE_KERNELS, Kernel, plan_kernel
from .variants import VARIANTS, variant_attention, variant_cross_attention

__all__ = [
    "KERNELS",
    "OUTSIDE_KERNELS",
    "VARIANTS",
    "Kernel",
    "cross_attention",
    "joint_attention",
    "nag_attention",
    "nag_cross_attention",
    "nasa_attention",
    "nasa_cross_attention",
    "plan_kernel",
    "variant_attention",
    "variant_cross_attention",
]
