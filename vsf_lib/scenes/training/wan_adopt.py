"""What the small Wan takes over from the scenes model: embeddings, maps of the image's tokens, modulation.

Wan adds up a shared modulation and a table per block, attends to text apart from the image, has its norm of
queries and keys over all heads, and knows positions by rotation only. What does not fit is learnt.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from vsf_lib.scenes.training import wan
from vsf_lib.scenes.training.common import PlainAttention
from vsf_lib.scenes.training.networks import Networks
from vsf_lib.scenes.training.text import Captions, encode
from vsf_lib.scenes.training.traces import Traces

SAMPLES = 256
"""States on which averages are taken."""


@torch.no_grad()
def adopt(transformer: WanTransformer3DModel, teacher: Networks, traces: Traces) -> None:
    """Fills in what fits; the attention to text stays as it was."""
    own, width = teacher.transformer, teacher.transformer.inner_dim
    count = min(SAMPLES, len(traces.scale))
    which = torch.arange(count)
    at = which % traces.blank.shape[1]
    captions = Captions([[text] for text in traces.captions[:count]])
    text, pooled = encode(teacher, *captions.padded(range(count)))
    sigma = traces.sigmas[which, at]
    seen = _watched(teacher, traces.states[which, at].float(), sigma, text, pooled)

    transformer.patch_embedding.weight.copy_(own.pos_embed.proj.weight.flatten(1)[:, :, None, None, None])
    places = own.pos_embed.cropped_pos_embed(16, 16)
    transformer.patch_embedding.bias.copy_(own.pos_embed.proj.bias + places.mean((0, 1)))
    embedder, theirs = transformer.condition_embedder, own.time_text_embed
    embedder.time_embedder.load_state_dict(theirs.timestep_embedder.state_dict())
    embedder.time_embedder.linear_2.bias += theirs.text_embedder(pooled).mean(0)
    temb = embedder.time_embedder(embedder.timesteps_proj(wan.timesteps(sigma)))
    chosen = [_modulation(block, width) for block in own.transformer_blocks]
    embedder.time_proj.weight.copy_(torch.stack([weight for weight, _ in chosen]).mean(0))
    embedder.time_proj.bias.zero_()
    shared = embedder.time_proj(F.silu(temb))
    full = F.silu(theirs(sigma * 1000, pooled))
    for block, source, (weight, bias), (q_size, k_size) in zip(
        transformer.blocks, own.transformer_blocks, chosen, seen, strict=True
    ):
        table = F.linear(full, weight, bias) - shared
        block.scale_shift_table.copy_(table.mean(0).view(1, 6, width))
        attn = getattr(source, "attn2", None) or source.attn
        for name, size in (("q", q_size), ("k", k_size)):
            to, norm = getattr(block.attn1, f"to_{name}"), getattr(block.attn1, f"norm_{name}")
            rows = size.repeat_interleave(wan.WIDTH)
            to.weight.copy_(getattr(attn, f"to_{name}").weight / rows[:, None])
            to.bias.copy_(getattr(attn, f"to_{name}").bias / rows)
            norm.weight.copy_(getattr(attn, f"norm_{name}").weight.repeat(wan.HEADS))
        block.attn1.to_v.load_state_dict(attn.to_v.state_dict())
        block.attn1.to_out[0].load_state_dict(attn.to_out[0].state_dict())
        block.ffn.load_state_dict(source.ff.state_dict())
    scale, shift = own.norm_out.linear(full).mean(0).chunk(2)
    transformer.scale_shift_table.copy_((torch.stack([shift, scale]) - temb.mean(0))[None])
    # A patch's channels run fastest there and slowest here.
    for mine, other in (
        (transformer.proj_out.weight, own.proj_out.weight),
        (transformer.proj_out.bias, own.proj_out.bias),
    ):
        mine.copy_(other.unflatten(0, (4, -1)).transpose(0, 1).flatten(0, 1))
    wan.look_around(transformer)


def _modulation(block: nn.Module, width: int) -> tuple[Tensor, Tensor]:
    """Weight `[6 C, C]` and bias of what modulates the attention that is taken over, and the feed-forward."""
    linear: Any = block.norm1.linear  # type: ignore[union-attr]
    parts = [0, 1, 2, 3, 4, 5] if len(linear.weight) == 6 * width else [6, 7, 8, 3, 4, 5]
    rows = torch.cat([torch.arange(part * width, (part + 1) * width) for part in parts])
    return linear.weight[rows], linear.bias[rows]


def _watched(
    teacher: Networks, states: Tensor, sigma: Tensor, text: Tensor, pooled: Tensor
) -> list[tuple[Tensor, Tensor]]:
    """For each block the size `[H]` of queries and of keys before their norm, of what is taken over."""
    sizes: dict[tuple[int, str], Tensor] = {}
    hooks = []

    def note(key: tuple[int, str]) -> Any:
        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            x = args[0]  # [B, H, L, D]
            sizes[key] = x.float().square().mean((0, 2, 3)).sqrt()

        return hook

    for i, block in enumerate(teacher.transformer.transformer_blocks):
        attn = getattr(block, "attn2", None) or block.attn
        for name in ("q", "k"):
            hooks.append(getattr(attn, f"norm_{name}").register_forward_pre_hook(note((i, name))))
    try:
        with PlainAttention():
            teacher.transformer(states, text, pooled, sigma * 1000, return_dict=False)
    finally:
        for hook in hooks:
            hook.remove()
    return [(sizes[i, "q"], sizes[i, "k"]) for i in range(len(teacher.transformer.transformer_blocks))]
