"""What is timed: one step of a denoiser by each method, guided by the hooks that guide pipelines.

Owns how a method comes to a network, and its generation, which stays at its first step. Times nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention as sdpa

from vsf_lib.adapters import Form, Guidance, guided
from vsf_lib.attention.layout import read_regions
from vsf_lib.attention.masked import joint_bias, with_flipped
from vsf_lib.bench.methods import CFG_SCALE
from vsf_lib.bench.model.networks import TEXT_WIDTH, encoded, inputs, pipeline, twin
from vsf_lib.bench.speed.course import Call, Cell
from vsf_lib.bench.speed.methods import ALPHA, BETA, UNPADDED, kernel_options, negatives_of, vsf_kernels
from vsf_lib.presets import baseline
from vsf_lib.settings import Settings


@dataclass(frozen=True)
class Steps:
    """The steps of one cell: a network, a step's arguments, and the negative of each length."""

    cell: Cell
    network: nn.Module
    arguments: dict[str, Any]
    undo: ExitStack
    """Ends the guidances."""

    @classmethod
    def of(cls, cell: Cell, network: nn.Module, undo: ExitStack) -> Steps:
        return cls(cell, network, inputs(cell.shape, cell.batch, cell.device, cell.dtype), undo)

    def unguided(self) -> Call:
        """The model's own step, that all are set against."""
        network = twin(self.network)
        return Call("none", "sdpa", lambda: network(**self.arguments)[0])

    def calls(self, methods: Sequence[str], *, every_kernel: bool) -> Iterator[Call]:
        """Those of `methods`, VSF by each kernel that can do it here, or by the one that it takes.

        Each has a tree of modules of its own over the same weights, so that all guidances can be at hand at
        once.
        """
        shape = self.cell.shape
        keys = shape.image + shape.text if shape.joint else shape.text
        q, k = (
            torch.empty(1, 1, n, shape.width, device=self.cell.device, dtype=self.cell.dtype)
            for n in (keys if shape.joint else shape.image, keys)
        )
        kernels = vsf_kernels(q, k, k, joint=shape.joint)
        usual = next(name for name, auto in kernels if auto)
        vsf = Settings(alpha=ALPHA, beta=BETA)
        for method in methods:
            if method == "none":
                yield self.unguided()
            elif method == "cfg":
                yield self._two_passes()
            elif method == "vsf":
                for name, auto in kernels:
                    if every_kernel or auto:
                        yield self._guided(method, name, vsf, auto=auto, **kernel_options(name))
            elif method == "vsf-masked" and shape.joint:
                yield self._guided(method, "masked", vsf, form=Form(method, MaskedOnce(), exact=False))
            elif method == "vsf-masked":
                yield self._guided(method, "masked", vsf, kernel="masked")
            elif method == "difference":
                settings = vsf.changed(method="difference")
                yield self._guided(method, usual, settings, kernel=usual)
            else:
                yield self._guided(method, "sdpa", baseline(method.removesuffix(UNPADDED)).settings())

    def _guided(
        self,
        method: str,
        shown: str,
        settings: Settings,
        *,
        kernel: str = "auto",
        fuse: bool = False,
        auto: bool = True,
        form: Form | None = None,
    ) -> Call:
        cell = self.cell
        pipe = pipeline(cell.shape, twin(self.network))
        n = negatives_of(method, cell.shape, cell.n_n)
        negative = torch.randn(n, TEXT_WIDTH, device=cell.device, dtype=cell.dtype)
        guidance = self.undo.enter_context(
            guided(pipe, settings, negative_embeddings=[negative], kernel=kernel, form=form, fuse=fuse)
        )
        generation = Generation(pipe, guidance, encoded(cell.shape, self.arguments), self.arguments)
        self.undo.callback(generation.end)  # before the guidance: what was added last goes first
        return Call(method, shown, generation.step, (negative,), auto, begin=generation.begin)

    def _two_passes(self) -> Call:
        network = twin(self.network)
        text = torch.randn_like(self.arguments["encoder_hidden_states"])
        unconditional = {**self.arguments, "encoder_hidden_states": text}

        def run() -> Tensor:
            away = network(**unconditional)[0]
            return away + CFG_SCALE * (network(**self.arguments)[0] - away)

        return Call("cfg", "sdpa", run, (text,))


class Generation:
    """A generation of a guided pipeline, up to its first step, which is made as often as one wants.

    It ends as a pipeline's call does, so guidance checks that every layer was guided.
    """

    def __init__(
        self, pipe: Any, guidance: Guidance, encoding: dict[str, Any], arguments: dict[str, Any]
    ) -> None:
        self.guidance = guidance
        self._pipe = pipe
        self._encoding = encoding
        self._arguments = arguments
        self._begun = False

    def begin(self) -> None:
        """Ends the one before."""
        self.end()
        self._pipe.encode_prompt(**self._encoding)
        self._begun = True

    def step(self) -> Tensor:
        """The denoiser's output."""
        try:
            output: Tensor = self._pipe.transformer(**self._arguments)[0]
        except BaseException:
            self._begun = False  # what was not guided to its end has no end to check
            raise
        return output

    def end(self) -> None:
        """Raises GuidanceError if a step was not guided in every layer, or gave what is not finite."""
        if self._begun:
            self._begun = False
            self._pipe.maybe_free_model_hooks()


class MaskedOnce:
    """VSF as published, in one call with a mask of every query against every key; kindly: the mask is made in
    a generation's first attention and kept."""

    def __init__(self) -> None:
        self._bias: Tensor | None = None

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        image: slice,
        positive: slice,
        negative: slice,
        alpha: Any,
        beta: Any,
        negative_mask: Tensor | None = None,
        kernel: str = "auto",
    ) -> Tensor:
        if self._bias is None:
            regions = read_regions(q.shape[2], image, positive, negative)
            self._bias = joint_bias(q, regions, beta, negative_mask)
        keys, values = with_flipped(k, v, negative, alpha)
        return sdpa(q, keys, values, attn_mask=self._bias)
