"""The denoisers that are measured: diffusers' own classes at full width, with random weights.

Owns their configurations, how some of their blocks stand for all of them, and the tensors of a step. Knows no
method and no clock.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vsf_lib.bench.speed.shapes import Shape

TEXT_WIDTH = 4096
"""T5's and UMT5's, in all of them."""
SD3_CHANNELS, FLUX_CHANNELS, WAN_CHANNELS = 16, 64, 16
SD3_POOLED, FLUX_POOLED = 2048, 768
FREQUENCIES = 256
WAN_FFN = 8960
_PATCH = 2


@dataclass(frozen=True)
class Blocks:
    """How many blocks of each kind: of SD3 those with a second attention and all others, of Flux
    double-stream and single-stream ones.

    `ends`: whether SD3's last block, which drops the text, is among the others.
    """

    first: int
    second: int
    ends: bool = False

    @property
    def count(self) -> int:
        return self.first + self.second


_ALL = {
    "sd35-large": Blocks(0, 38, ends=True),
    "sd35-medium": Blocks(13, 11, ends=True),
    "flux": Blocks(19, 38),
    "wan-1.3b": Blocks(0, 30),
}


def blocks_of(shape: Shape, count: int | None) -> tuple[Blocks, Blocks]:
    """What stands for the network where `count` blocks are asked for (None is all), and all that it has.

    Kinds keep their proportion, the first one at least one block. Fewer than all are ordinary blocks: the
    last one of SD3 has less to do for the text than the others, and would flatter the average.
    """
    every = _ALL[shape.family.name]
    if count is None or count >= every.count:
        return every, every
    first = max(round(count * every.first / every.count), min(every.first, 1))
    return Blocks(first, count - first), every


def build(shape: Shape, blocks: Blocks, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """The network with random weights on `device`."""
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            network = _KINDS[_kind(shape)].make(shape, blocks)
    finally:
        torch.set_default_dtype(usual)
    return network.eval().requires_grad_(False)


def twin(network: nn.Module) -> nn.Module:
    """Another tree of modules over the same weights, so that hooks and processors of one do not touch the
    other."""
    shared = {id(x): x for x in itertools.chain(network.parameters(), network.buffers())}
    return copy.deepcopy(network, shared)


def pipeline(shape: Shape, network: nn.Module) -> Any:
    """A pipeline of diffusers' around `network`, without what draws or encodes."""
    pipe = _KINDS[_kind(shape)].pipeline(network)
    pipe._num_timesteps, pipe._interrupt = 1, False  # what its loop would have set by the first step
    return pipe


def inputs(shape: Shape, batch: int, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """The arguments of one step as the pipeline passes them."""
    kind, options = _KINDS[_kind(shape)], {"device": device, "dtype": dtype}
    return {
        "encoder_hidden_states": torch.randn(batch, shape.text, TEXT_WIDTH, **options),  # type: ignore[call-overload]
        "timestep": torch.full((batch,), 500.0 if kind is not _KINDS["flux"] else 0.5, **options),  # type: ignore[call-overload]
        "return_dict": False,
        **kind.inputs(shape, batch, options),
    }


def encoded(shape: Shape, step: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `encode_prompt` for the text that stands in a step's."""
    found = {**_KINDS[_kind(shape)].encoding, "prompt": None, "prompt_embeds": step["encoder_hidden_states"]}
    if "pooled_projections" in step:
        found["pooled_prompt_embeds"] = step["pooled_projections"]
    return found


@dataclass(frozen=True)
class _Kind:
    make: Callable[[Shape, Blocks], nn.Module]
    pipeline: Callable[[nn.Module], Any]
    inputs: Callable[[Shape, int, dict[str, Any]], dict[str, Any]]
    encoding: Mapping[str, Any]


def _kind(shape: Shape) -> str:
    return "sd3" if shape.family.name.startswith("sd3") else shape.family.name.partition("-")[0]


def _sd3(shape: Shape, blocks: Blocks) -> nn.Module:
    from diffusers import SD3Transformer2DModel

    side = max(shape.grid)
    built = blocks.count + (not blocks.ends)
    network = SD3Transformer2DModel(
        sample_size=_PATCH * side,
        patch_size=_PATCH,
        in_channels=SD3_CHANNELS,
        num_layers=built,
        attention_head_dim=shape.width,
        num_attention_heads=shape.heads,
        joint_attention_dim=TEXT_WIDTH,
        caption_projection_dim=shape.heads * shape.width,
        pooled_projection_dim=SD3_POOLED,
        out_channels=SD3_CHANNELS,
        pos_embed_max_size=side,  # the models' own table is larger, and cut to this in every step
        dual_attention_layers=tuple(range(blocks.first)),
        qk_norm="rms_norm",
    )
    del network.transformer_blocks[blocks.count :]
    return network


def _sd3_pipeline(network: nn.Module) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline

    parts = (
        "vae",
        "text_encoder",
        "tokenizer",
        "text_encoder_2",
        "tokenizer_2",
        "text_encoder_3",
        "tokenizer_3",
    )
    return StableDiffusion3Pipeline(
        transformer=network, scheduler=FlowMatchEulerDiscreteScheduler(), **dict.fromkeys(parts)
    )


def _sd3_inputs(shape: Shape, batch: int, options: dict[str, Any]) -> dict[str, Any]:
    _, rows, columns = shape.grid
    return {
        "hidden_states": torch.randn(batch, SD3_CHANNELS, _PATCH * rows, _PATCH * columns, **options),
        "pooled_projections": torch.randn(batch, SD3_POOLED, **options),
    }


def _flux(shape: Shape, blocks: Blocks) -> nn.Module:
    from diffusers import FluxTransformer2DModel

    first = max(shape.width // 8, 4)
    return FluxTransformer2DModel(
        patch_size=1,
        in_channels=FLUX_CHANNELS,
        num_layers=blocks.first,
        num_single_layers=blocks.second,
        attention_head_dim=shape.width,
        num_attention_heads=shape.heads,
        joint_attention_dim=TEXT_WIDTH,
        pooled_projection_dim=FLUX_POOLED,
        guidance_embeds=False,
        axes_dims_rope=(first, *[(shape.width - first) // 2] * 2),
    )


def _flux_pipeline(network: nn.Module) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline

    parts = ("vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
    return FluxPipeline(
        transformer=network, scheduler=FlowMatchEulerDiscreteScheduler(), **dict.fromkeys(parts)
    )


def _flux_inputs(shape: Shape, batch: int, options: dict[str, Any]) -> dict[str, Any]:
    _, rows, columns = shape.grid
    places = torch.cartesian_prod(torch.arange(1), torch.arange(rows), torch.arange(columns))
    return {
        "hidden_states": torch.randn(batch, shape.image, FLUX_CHANNELS, **options),
        "pooled_projections": torch.randn(batch, FLUX_POOLED, **options),
        "img_ids": places.to(**options),
        "txt_ids": torch.zeros(shape.text, 3, **options),
    }


def _wan(shape: Shape, blocks: Blocks) -> nn.Module:
    from diffusers import WanTransformer3DModel

    return WanTransformer3DModel(
        patch_size=(1, _PATCH, _PATCH),
        num_attention_heads=shape.heads,
        attention_head_dim=shape.width,
        in_channels=WAN_CHANNELS,
        out_channels=WAN_CHANNELS,
        text_dim=TEXT_WIDTH,
        freq_dim=FREQUENCIES,
        ffn_dim=WAN_FFN,
        num_layers=blocks.count,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
    )


def _wan_pipeline(network: nn.Module) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, WanPipeline

    parts = ("vae", "text_encoder", "tokenizer")
    return WanPipeline(
        transformer=network, scheduler=FlowMatchEulerDiscreteScheduler(), **dict.fromkeys(parts)
    )


def _wan_inputs(shape: Shape, batch: int, options: dict[str, Any]) -> dict[str, Any]:
    frames, rows, columns = shape.grid
    size = (batch, WAN_CHANNELS, frames, _PATCH * rows, _PATCH * columns)
    return {"hidden_states": torch.randn(size, **options)}


_KINDS = {
    "sd3": _Kind(
        _sd3,
        _sd3_pipeline,
        _sd3_inputs,
        {"prompt_2": None, "prompt_3": None, "do_classifier_free_guidance": False},
    ),
    "flux": _Kind(_flux, _flux_pipeline, _flux_inputs, {"prompt_2": None}),
    "wan": _Kind(_wan, _wan_pipeline, _wan_inputs, {"do_classifier_free_guidance": False}),
}
