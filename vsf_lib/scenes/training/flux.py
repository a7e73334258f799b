"""Flux's architecture in small, and how training calls it: patches, token ids, text, velocity.

Built on what the scenes model has already learned: its autoencoder, CLIP's pooled vector and T5 stay as they
are, so that only a transformer is trained and shipped, and that begins with what fits of the scenes model's.
How it learns is in flux_distil.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import FluxTransformer2DModel, SD3Transformer2DModel
from torch import Tensor, nn

from vsf_lib.errors import ModelError
from vsf_lib.scenes.model import FLUX_SHIFT
from vsf_lib.scenes.training.common import PlainAttention, restore
from vsf_lib.scenes.training.networks import Networks

DOUBLE, SINGLE = 2, 3
"""Blocks of each kind. With 128 channels this is 2.1 million weights: 4.2 MB in half precision."""
AXES = (8, 12, 12)
"""A head's channels that turn with a token's three positions; the first is 0 for all."""
SIDE = 8
"""Patches along a side: 16x16 latents in patches of 2x2."""


def build(*, guidance: bool, double: int = DOUBLE, single: int = SINGLE) -> FluxTransformer2DModel:
    """The untrained transformer; `guidance` gives it Flux dev's embedding of the guidance scale."""
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=32,
        num_layers=double,
        num_single_layers=single,
        attention_head_dim=32,
        num_attention_heads=4,
        joint_attention_dim=128,
        pooled_projection_dim=64,
        guidance_embeds=guidance,
        axes_dims_rope=AXES,
    )
    initialise(transformer)
    return transformer


def initialise(transformer: FluxTransformer2DModel) -> None:
    """Blocks start as the identity (zero modulation), the output as zero: this trains faster and steadier."""
    for name, module in transformer.named_modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
            if "norm" in name or name == "proj_out":
                nn.init.zeros_(module.weight)
    look_around(transformer)


@torch.no_grad()
def look_around(transformer: FluxTransformer2DModel, seed: int = 3) -> None:
    """Points all heads but the first of each block at some neighbour, at first, by the biases of q and k.

    Positions enter by rotation only, and a thousand steps hardly begin to find a use for that by themselves:
    colours and places are right then, but no outline holds together.
    """
    draw = torch.Generator().manual_seed(seed)
    for block in (*transformer.transformer_blocks, *transformer.single_transformer_blocks):
        attn = block.attn
        heads = attn.to_q.bias.numel() // sum(AXES)
        query, key = torch.zeros(2, heads, sum(AXES))
        for head in range(1, heads):
            for axis in (1, 2):
                start, width = sum(AXES[:axis]), AXES[axis]
                offset = float(torch.randint(-2, 3, (1,), generator=draw))
                for pair, strength in enumerate((3.0, 1.0)):
                    at = start + 2 * pair
                    angle = torch.tensor(offset * 10000 ** (-2 * pair / width))
                    query[head, at] = strength * angle.cos()
                    query[head, at + 1] = strength * angle.sin()
                    key[head, at] = strength
        added = (attn.add_q_proj, attn.add_k_proj) if attn.added_kv_proj_dim is not None else ()
        for layer, bias in zip((attn.to_q, attn.to_k, *added), (query, key) * 2, strict=False):
            layer.bias += bias.flatten()


@torch.no_grad()
def adopt(transformer: FluxTransformer2DModel, teacher: Networks) -> None:
    """Takes over what the scenes model has in the same form: embeddings, output, most of a block.

    A double block is a joint block without its second attention, a single one its image stream. What does not
    fit is learnt: positions by rotation, which the teacher adds to the patches instead. So begun, the loss
    after 200 steps is 0.82 of 0.92.
    """
    own: SD3Transformer2DModel = teacher.transformer
    width = own.inner_dim
    transformer.x_embedder.weight.copy_(own.pos_embed.proj.weight.flatten(1))
    transformer.x_embedder.bias.copy_(own.pos_embed.proj.bias)
    transformer.context_embedder.load_state_dict(own.context_embedder.state_dict())
    times, own_times = transformer.time_text_embed, own.time_text_embed
    times.timestep_embedder.load_state_dict(own_times.timestep_embedder.state_dict())
    times.text_embedder.linear_2.load_state_dict(own_times.text_embedder.linear_2.state_dict())
    first = (
        own_times.text_embedder.linear_1
    )  # of CLIP-L's projected vector and CLIP-G's; Flux has the bare one
    projection = teacher.clip_l.text_projection.weight
    times.text_embedder.linear_1.weight.copy_(first.weight[:, : len(projection)] @ projection)
    times.text_embedder.linear_1.bias.copy_(first.bias)
    transformer.norm_out.load_state_dict(own.norm_out.state_dict())
    # A patch's channels run slowest here and fastest there.
    for mine, theirs in (
        (transformer.proj_out.weight, own.proj_out.weight),
        (transformer.proj_out.bias, own.proj_out.bias),
    ):
        mine.copy_(theirs.unflatten(0, (4, -1)).transpose(0, 1).flatten(0, 1))
    sources = iter((0, 3, 3, 4, 5))
    for block in transformer.transformer_blocks:
        theirs, mine = own.transformer_blocks[next(sources)].state_dict(), block.state_dict()
        block.load_state_dict({name: theirs[name][: len(value)] for name, value in mine.items()})
    for block in transformer.single_transformer_blocks:
        source = own.transformer_blocks[next(sources)]
        for part in ("weight", "bias"):
            getattr(block.norm.linear, part).copy_(getattr(source.norm1.linear, part)[: 3 * width])
        for name in ("to_q", "to_k", "to_v", "norm_q", "norm_k"):
            getattr(block.attn, name).load_state_dict(getattr(source.attn, name).state_dict())
        block.proj_mlp.load_state_dict(source.ff.net[0].proj.state_dict())
        attention, hidden = source.attn.to_out[0], source.ff.net[2]
        block.proj_out.weight.copy_(torch.cat([attention.weight, hidden.weight], dim=1))
        block.proj_out.bias.copy_(attention.bias)
    look_around(transformer)


def load(path: Path, *, guidance: bool, device: str = "cpu") -> FluxTransformer2DModel:
    """The transformer as a stage left it in `path`; raises ModelError if the stage has not run."""
    if not path.exists():
        raise ModelError(f"there is no {path.name} in {path.parent}: run the stage that makes it first")
    transformer = build(guidance=guidance)
    restore(path, [transformer])
    return transformer.eval().to(device)


def pack(latents: Tensor) -> Tensor:
    """Latents `[B, C, 2h, 2w]` as tokens `[B, h w, 4 C]`: a patch's four pixels run fastest."""
    b, c, height, width = latents.shape
    patches = latents.view(b, c, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return patches.reshape(b, height * width // 4, 4 * c)


def unpack(tokens: Tensor, side: int = SIDE) -> Tensor:
    """The inverse of `pack` for square pictures of `side` patches."""
    b, _, width = tokens.shape
    patches = tokens.view(b, side, side, width // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return patches.reshape(b, width // 4, 2 * side, 2 * side)


def image_ids(side: int = SIDE) -> Tensor:
    """Rotary positions `[side side, 3]` of the image's tokens: 0, row, column."""
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).view(-1, 3).float()


def flux_sigmas(steps: int, shift: float = FLUX_SHIFT) -> Tensor:
    """The noise levels `[steps + 1]` that FluxPipeline visits, ending at 0."""
    even = torch.linspace(1, 1 / steps, steps)
    return torch.cat([shift * even / (1 + (shift - 1) * even), torch.zeros(1)])


def encode(networks: Networks, clip_ids: Tensor, t5_ids: Tensor) -> tuple[Tensor, Tensor]:
    """T5's text `[B, n, 128]` and the pooled vector `[B, 64]`: CLIP's before its projection, as Flux's is."""
    with PlainAttention():
        pooled = networks.clip_l.text_model(clip_ids).pooler_output
    return networks.t5(t5_ids)[0], pooled


def velocity(
    transformer: FluxTransformer2DModel,
    latents: Tensor,
    sigma: Tensor,
    guidance: Tensor | None,
    text: tuple[Tensor, Tensor],
) -> Tensor:
    """The predicted velocity `[B, 8, 16, 16]` in mixed precision; `sigma` and `guidance` are `[B]`."""
    sequence, pooled = text
    scales: Sequence[Tensor] = [sigma * 1000] + ([] if guidance is None else [guidance * 1000])
    # In bfloat16, which autocast gives the stream, neighbouring noise levels are the same number.
    exact = transformer.time_text_embed.register_forward_pre_hook(lambda *_: (*scales, pooled))
    try:
        with torch.autocast(latents.device.type, torch.bfloat16), PlainAttention():
            tokens = transformer(
                hidden_states=pack(latents),
                timestep=sigma,
                guidance=guidance,
                pooled_projections=pooled,
                encoder_hidden_states=sequence,
                txt_ids=torch.zeros(sequence.shape[1], 3, device=latents.device),
                img_ids=image_ids().to(latents.device),
                return_dict=False,
            )[0]
    finally:
        exact.remove()
    return unpack(tokens.float())


@torch.no_grad()
def without_guidance(transformer: FluxTransformer2DModel, scale: float) -> FluxTransformer2DModel:
    """A copy without the guidance embedding that acts as `transformer` does at `scale`.

    All embeddings are summed, so that the embedding of one scale is a bias of the timestep's.
    """
    result = build(
        guidance=False,
        double=len(transformer.transformer_blocks),
        single=len(transformer.single_transformer_blocks),
    )
    state = transformer.state_dict()
    result.load_state_dict({name: v for name, v in state.items() if "guidance_embedder" not in name})
    embed = transformer.time_text_embed
    bias = embed.guidance_embedder(embed.time_proj(torch.tensor([scale * 1000.0])))[0]
    result.time_text_embed.timestep_embedder.linear_2.bias += bias
    return result
