"""Wan's architecture in small, and how training calls it: latents, text, velocity.

A latent frame is the scenes model's own latents of one keyframe, each 2x2 of its places side by side in the
channels: what the small image models have learned about drawing then holds for every frame. UMT5 is the
scenes model's T5 with the verbs added. How all this learns stands in wan_flow.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers import WanTransformer3DModel
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from transformers import PreTrainedTokenizerFast, T5EncoderModel, UMT5Config, UMT5EncoderModel

from vsf_lib.scenes.motion import VERBS
from vsf_lib.scenes.training.networks import build_normalizer
from vsf_lib.scenes.world import WORDS

CHANNELS = 32
"""Of a latent frame: the scenes model's 8, four places each."""
SIDE = 8
LAYERS = 6
HEADS, WIDTH = 4, 32
SHIFT = 3.0
"""The flow shift of Wan at 480p and below."""
LENGTH = 512
"""Tokens to which Wan's pipeline fills up a prompt, with zeros."""
PLACES = 16
"""What training computes of them; the last stands for all others, which are the same."""
_PAD, _BOS, _UNK, _EOS = "<pad>", "<s>", "<unk>", "</s>"


def build(layers: int = LAYERS) -> WanTransformer3DModel:
    """The untrained transformer: 1.8 million weights."""
    transformer = WanTransformer3DModel(
        patch_size=(1, 1, 1),
        num_attention_heads=HEADS,
        attention_head_dim=WIDTH,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        text_dim=128,
        freq_dim=256,
        ffn_dim=512,
        num_layers=layers,
        rope_max_seq_len=64,
    )
    initialise(transformer)
    return transformer


@torch.no_grad()
def initialise(transformer: WanTransformer3DModel) -> None:
    """Blocks start as the identity, the output as zero: this trains faster and steadier."""
    for name, module in transformer.named_modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
            if name == "proj_out" or "time_proj" in name or "attn2.to_out" in name:
                nn.init.zeros_(module.weight)
    nn.init.zeros_(transformer.patch_embedding.bias)
    for block in transformer.blocks:
        nn.init.zeros_(block.scale_shift_table)
    nn.init.zeros_(transformer.scale_shift_table)
    look_around(transformer)
    overlook_padding(transformer)


@torch.no_grad()
def look_around(transformer: WanTransformer3DModel, seed: int = 3) -> None:
    """Points all heads but the first of each block at some neighbour, at first, by the biases of q and k.

    Positions enter by rotation only, and training is slow to find a use for that by itself. Neighbours in
    time are among them.
    """
    draw = torch.Generator().manual_seed(seed)
    rope = transformer.rope
    axes = (rope.t_dim, rope.h_dim, rope.w_dim)
    for block in transformer.blocks:
        query, key = torch.zeros(2, HEADS, WIDTH)
        for head in range(1, HEADS):
            for axis in range(3):
                start, width, reach = sum(axes[:axis]), axes[axis], 1 if axis == 0 else 2
                offset = float(torch.randint(-reach, reach + 1, (1,), generator=draw))
                for pair, strength in enumerate((3.0, 1.0)):
                    at = start + 2 * pair
                    angle = torch.tensor(offset * 10000 ** (-2 * pair / width))
                    query[head, at] = strength * angle.cos()
                    query[head, at + 1] = strength * angle.sin()
                    key[head, at] = strength
        block.attn1.to_q.bias += query.flatten()
        block.attn1.to_k.bias += key.flatten()


@torch.no_grad()
def overlook_padding(transformer: WanTransformer3DModel) -> None:
    """Lets the 500 places without a word draw about as much attention as the words at first, not 98 %.

    They are zeros, so that their keys are the bias alone, which the norm makes large: a direction that
    queries begin by avoiding.
    """
    for block in transformer.blocks:
        block.attn2.to_q.bias.view(HEADS, WIDTH)[:, 0] = 6.0
        block.attn2.to_k.bias.view(HEADS, WIDTH)[:, 0] = -0.5


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Word-level, the scenes model's T5 ids first, then the verbs."""
    vocabulary = {token: i for i, token in enumerate([_PAD, _BOS, _UNK, _EOS, *WORDS, *VERBS])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token=_UNK))
    core.normalizer = build_normalizer()
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single=f"$A {_EOS}", special_tokens=[(_EOS, vocabulary[_EOS])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        model_max_length=LENGTH,
        pad_token=_PAD,
        bos_token=_BOS,
        eos_token=_EOS,
        unk_token=_UNK,
    )


@torch.no_grad()
def build_text_encoder(t5: T5EncoderModel) -> UMT5EncoderModel:
    """UMT5 with the weights of the scenes model's T5, which of one layer is the same network."""
    known = t5.config
    encoder = UMT5EncoderModel(
        UMT5Config(
            vocab_size=known.vocab_size + len(VERBS),
            d_model=known.d_model,
            d_kv=known.d_kv,
            d_ff=known.d_ff,
            num_layers=known.num_layers,
            num_heads=known.num_heads,
            feed_forward_proj=known.feed_forward_proj,
            dropout_rate=0.0,
            pad_token_id=0,
            eos_token_id=known.eos_token_id,
            is_encoder_decoder=False,
            use_cache=False,
        )
    )
    state = {name: value.float() for name, value in t5.state_dict().items()}
    words = state["shared.weight"]
    fresh = torch.Generator().manual_seed(4)
    verbs = words.mean(0) + words.std(0) * torch.randn(len(VERBS), words.shape[1], generator=fresh)
    for name in ("shared.weight", "encoder.embed_tokens.weight"):
        state[name] = torch.cat([words, verbs])
    encoder.load_state_dict(state)
    return encoder


def fold(latents: Tensor) -> Tensor:
    """The scenes model's latents `[..., 8, 16, 16]` as a frame of Wan's, `[..., 32, 8, 8]`."""
    return F.pixel_unshuffle(latents, 2)


def unfold(latents: Tensor) -> Tensor:
    """The inverse of `fold`."""
    return F.pixel_shuffle(latents, 2)


class Captions:
    """Tokenised captions, several per scene."""

    def __init__(self, captions: Sequence[Sequence[str]]) -> None:
        tokenizer = build_tokenizer()

        def ids(texts: list[str]) -> Tensor:
            kept = tokenizer(texts, padding="max_length", truncation=True, max_length=PLACES - 1)
            return torch.tensor(kept.input_ids)

        flat = [text for row in captions for text in row]
        self._ids = ids(flat).view(len(captions), len(captions[0]), -1)
        self._empty = ids([""])[0]

    def first(self, scenes: Sequence[int] | Tensor) -> Tensor:
        """Ids `[n, 15]` of the first caption of each of `scenes`."""
        return self._ids[torch.as_tensor(scenes), 0]

    def empty(self) -> Tensor:
        """Ids `[1, 15]` of the empty caption."""
        return self._empty[None]

    def batch(self, rng: np.random.Generator, size: int, dropped: float) -> tuple[Tensor, Tensor, Tensor]:
        """Scene indices `[n]`, ids `[n, 15]` of any of their captions, and which were made empty `[n]`."""
        scenes = torch.from_numpy(rng.integers(len(self._ids), size=size))
        which = torch.from_numpy(rng.integers(self._ids.shape[1], size=size))
        ids = self._ids[scenes, which].clone()
        empty = torch.from_numpy(rng.random(size) < dropped)
        ids[empty] = self._empty
        return scenes, ids, empty


def encode(encoder: UMT5EncoderModel, ids: Tensor) -> Tensor:
    """Text `[B, 16, 128]` as WanPipeline makes it: padding takes no part, and is zero afterwards."""
    mask = ids != 0
    text = encoder(ids, attention_mask=mask)[0] * mask[..., None]
    return F.pad(text, (0, 0, 0, PLACES - ids.shape[1]))


class PlainProcessor:
    """Attention of one layer by plain matrix products: see `common.PlainAttention`.

    Over text the last place counts as all those that `LENGTH` has beyond it, which are the same. Together
    this is twice as fast as the pipeline's own, and can be compiled.
    """

    def __init__(self) -> None:
        self._beyond = torch.zeros(PLACES)
        self._beyond[-1] = math.log(LENGTH - PLACES + 1)

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query = attn.norm_q(attn.to_q(hidden_states).float()).unflatten(2, (HEADS, WIDTH))
        key = attn.norm_k(attn.to_k(source).float()).unflatten(2, (HEADS, WIDTH))
        value = attn.to_v(source).unflatten(2, (HEADS, WIDTH)).transpose(1, 2)
        if rotary_emb is not None:
            query, key = _turned(query, *rotary_emb), _turned(key, *rotary_emb)
        query, key = (x.transpose(1, 2).to(value.dtype) for x in (query * WIDTH**-0.5, key))
        logits = query @ key.transpose(-1, -2)
        if encoder_hidden_states is not None:
            logits = logits + self._beyond.to(logits)
        out = logits.softmax(-1).to(value.dtype) @ value
        return attn.to_out[0](out.transpose(1, 2).flatten(2))


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    crossed = torch.stack((-x[..., 1::2], x[..., 0::2]), dim=-1).flatten(-2)
    return x * cos + crossed * sin


def plain(transformer: WanTransformer3DModel, *, compiled: bool = False) -> WanTransformer3DModel:
    """The same transformer with attention as training wants it, for text from `encode` alone."""
    for block in transformer.blocks:
        block.attn1.processor = PlainProcessor()
        block.attn2.processor = PlainProcessor()
    if compiled:
        transformer.compile_repeated_blocks(dynamic=False)
    return transformer


def velocity(transformer: nn.Module, latents: Tensor, sigma: Tensor, text: Tensor) -> Tensor:
    """The predicted velocity of a `plain` transformer at latents `[B, 32, T, 8, 8]`; `sigma` is `[B]`."""
    with torch.autocast(latents.device.type, torch.bfloat16):
        out = transformer(latents, timesteps(sigma), text, return_dict=False)[0]
    return out.float()


def timesteps(sigma: Tensor) -> Tensor:
    """What the scheduler makes of noise levels: whole numbers below 1000."""
    return (sigma * 1000).floor().clamp(max=999)


def wan_sigmas(steps: int, shift: float = SHIFT) -> Tensor:
    """The noise levels `[steps + 1]` that UniPC visits with flow sigmas, ending at 0."""
    even = torch.linspace(1, 0.001, steps + 1)[:-1]
    return torch.cat([shift * even / (1 + (shift - 1) * even), torch.zeros(1)])
