"""Value sign flip with a piece left out, as the paper's ablations have it, and the form of its released code.

Owns who sees whom in each, as a literal table. For benchmarks only: one plain masked call, slow and easy to
read. Must not know models.

Sources: the paper (Guo & Du, "Value Sign Flip") names the ablations; how each is made was read from its
public code (github.com/weathon/VSF, `experiments/ablation` and `src`, MIT). What is this project's own
reading is said at each. The authors' scripts for "no mask", "no duplicate" and "no bias" all run without a
bias; "no bias" alone is `joint_attention` with beta = 0 and needs nothing here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa

from .kernels import check_kernel_name
from .layout import (
    Regions,
    Strength,
    autocast,
    check_joint,
    flip,
    lowest,
    read_alpha,
    read_beta,
    read_mask,
    read_regions,
    size,
    wide,
)


@dataclass(frozen=True, eq=False)
class Ablation:
    """A form of joint attention by its table; called as `joint_attention` is.

    Kinds of tokens: I, P and N as everywhere; N1 are duplicates as keys alone, of N or of B. Where N holds
    every token twice in turn, its first copies are A and its second ones B.
    """

    sees: Mapping[str, tuple[str, ...]]
    """For each kind of query the kinds of keys that it may look at."""
    flipped: str | None
    """The kind whose values are -alpha v, and from which beta is taken off for image rows; None for none."""
    twice: bool = False

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        image: slice,
        positive: slice,
        negative: slice,
        alpha: Strength,
        beta: Strength,
        negative_mask: Tensor | None = None,
        kernel: str = "auto",
    ) -> Tensor:
        """q, k, v and the result `[B, H, L, D]`; the other arguments as in `joint_attention`.

        beta = inf hides a token of N, or all of it, and its duplicate from image and positive rows, which
        then equal the unguided call to rounding. `kernel` is checked, and plain calls are made.
        """
        check_kernel_name(kernel)
        q, k, v = autocast(q, k, v)
        check_joint(q, k, v)
        regions = read_regions(q.shape[2], image, positive, negative)
        n_n = size(regions[2])
        if self.twice and n_n % 2:
            raise ValueError(f"N must hold every token twice in turn, but it has {n_n} tokens")
        mask = read_mask(negative_mask, q, n_n)
        alpha, beta = read_alpha(alpha, q, n_n), read_beta(beta, q, n_n, mask)
        if n_n == 0:
            return sdpa(q, k, v)
        return self._attend(q, k, v, regions, _per_token(alpha, q, n_n), _per_token(beta, q, n_n), mask)

    def _attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        regions: Regions,
        alpha: Tensor,
        beta: Tensor,
        mask: Tensor | None,
    ) -> Tensor:
        """alpha and beta `[B, n_n]`, beta inf where N is hidden."""
        i, p, n = regions
        own = (
            slice(1, size(regions[2]), 2) if self.twice else slice(0, size(regions[2]))
        )  # of N, what is flipped
        source = slice(n.start + own.start, n.stop, own.step)
        values = flip(alpha[:, own], v[:, :, source])
        if self.flipped == "N1":
            k, v = torch.cat([k, k[:, :, source]], dim=2), torch.cat([v, values], dim=2)
        elif self.flipped is not None:
            v = v.clone()
            v[:, :, source] = values
        duplicates = slice(q.shape[2], k.shape[2])
        place: dict[str, slice] = {
            "I": i,
            "P": p,
            "N": n,
            "A": slice(n.start, n.stop, 2),
            "B": source,
            "N1": duplicates,
        }

        hidden = lowest(q.dtype)
        bias = q.new_full((q.shape[0], 1, q.shape[2], k.shape[2]), hidden)
        for asking, seen in self.sees.items():
            for kind in seen:
                bias[:, :, place[asking], place[kind]] = 0
        off = torch.isinf(beta)
        if self.flipped is not None:
            finite = torch.where(off, 0, beta)[:, own].to(q.dtype)
            bias[:, :, i, place[self.flipped]] -= finite[:, None, None]
        for rows, hide in ((i, off), (p, off), (n, None if mask is None else ~mask)):
            if hide is not None:
                bias[:, :, rows, n].masked_fill_(hide[:, None, None], hidden)
                if self.flipped == "N1":
                    bias[:, :, rows, duplicates].masked_fill_(hide[:, None, None, own], hidden)
        return sdpa(q, k, v, attn_mask=bias)


_EVERYBODY = ("I", "P", "N")

no_mask_attention = Ablation(dict.fromkeys(_EVERYBODY, (*_EVERYBODY, "N1")), flipped="N1")
"""No mask: all queries see I, P, N0 and the flipped duplicate N1.

The authors' mask and bias are one tensor, and their script leaves it out: that is beta = 0 here. A bias on
I -> N1 without a mask is our reading.
"""

no_duplicate_attention = Ablation(
    {"I": ("I", "P", "N"), "P": ("I", "P"), "N": ("I", "N")},
    flipped="N",
)
"""No duplicate, the mask kept: N itself has flipped values for all who may look at it, itself included.

Our reading throughout: the paper names it, but the authors' script leaves out duplicate and mask together.
"""

no_duplicate_no_mask_attention = Ablation(dict.fromkeys(_EVERYBODY, _EVERYBODY), flipped="N")
"""Neither duplicate nor mask: all queries see I, P and N, whose values are flipped.

The authors' script for this passes `disable_duplicate` and `disable_mask`; the public code that would read
them was not found, so that N has its values flipped for all queries is our reading. beta = 0 as there.
"""

embedding_flip_attention = Ablation(dict.fromkeys(_EVERYBODY, _EVERYBODY), flipped=None)
"""Whole-embedding flip: N is ordinary text for everybody, and no value is flipped.

It is the caller who multiplies the negative's text embedding by -alpha before it enters the network, as the
authors' script does; alpha and a finite beta are therefore not used here. That script pads the negative as a
prompt. Without padding, as all other forms have it, is our choice.
"""

released_attention = Ablation(
    {"I": ("I", "P", "A", "N1"), "P": ("I", "P", "A"), "A": ("I", "P", "A"), "B": ("I", "B")},
    flipped="N1",
    twice=True,
)
"""The form of the released SD3 code: N stands in the stream twice, and its first copy A counts as prompt.

Read from `src/sd3_pipeline.py` and `src/processor.py`: the mask of Listing 1 with [P, A] for P and B for N0;
N1 duplicates B. In their sequence A and B follow each other as wholes, here their tokens take turns, so that
padding at the end of N is padding of both; text has no position in these models. Where the released Flux
code departs further (see the notes in presets.py), this does not follow it.
"""


def _per_token(strength: Strength, q: Tensor, n_n: int) -> Tensor:
    """A float, `[1 or B, 1]` or `[B, n_n]` as `[B, n_n]`, wide."""
    return torch.as_tensor(strength, device=q.device, dtype=wide(q.dtype)).expand(q.shape[0], n_n)
