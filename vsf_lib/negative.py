"""Negative embeddings: the negative prompt through a model's own text encoders without padding, and eq. 10.

Owns how a text becomes features that no padding token took part in, how an over-long text is divided, and how
rows of different length share one tensor. Knows tokenizers and encoders, no pipeline, network or device.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from vsf_lib.errors import ModelError, PromptError

log = logging.getLogger("vsf")

_PADDING = 256
"""How many padding tokens stand for "no text" in eq. 10."""


@dataclass(frozen=True)
class TextEncoder:
    """A tokenizer, the features of its ids, and what to do with a text that is longer than the encoder takes.

    `features` maps ids `[1, n]` to `[1, n, C]`. `limit` counts special tokens too. With `chunked` a longer
    text is cut into pieces that each get their own special tokens (a causal encoder such as CLIP, whose table
    of positions ends); without, it is truncated and the loss is logged.
    """

    tokenizer: Any
    features: Callable[[Tensor], Tensor]
    limit: int
    chunked: bool


def encode_unpadded(text: str, encoder: TextEncoder, *, words_only: bool = False) -> Tensor:
    """The features `[n, C]` of a text: special tokens and words; no padding went in, so none comes out.

    With `words_only` the special tokens take part in the encoding, and their own features are left out.
    """
    pieces = []
    for prefix, body, suffix in _pieces(text, encoder):
        features = encoder.features(torch.tensor([prefix + body + suffix]))[0]
        pieces.append(features[len(prefix) : len(prefix) + len(body)] if words_only else features)
    return torch.cat(pieces)


def join_clip_and_t5(clip: Sequence[Tensor], t5: Tensor | None, width: int) -> Tensor:
    """SD3's sequence `[n, width]`: CLIP features side by side, filled up with zeros, then T5's tokens.

    `clip` holds one `[n, C]` per CLIP encoder. If their tokenizers disagree on the length, the shorter one's
    last feature (its end token, which is also what CLIP-L pads with) is repeated: the sequence keeps every
    real token.
    """
    length = max(len(features) for features in clip)
    level = [torch.cat([f, f[-1:].expand(length - len(f), -1)]) for f in clip]
    channels = torch.cat(level, dim=-1)
    channels = pad(channels, (0, width - channels.shape[-1]))
    return channels if t5 is None else torch.cat([channels, t5])


def stack_rows(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Rows `[n_r, C]` as one `[B, n, C]`, and the mask `[B, n]` of real tokens, None where all are."""
    lengths = [len(row) for row in rows]
    longest = max(lengths)
    stacked = torch.stack([pad(row, (0, 0, 0, longest - len(row))) for row in rows])
    if min(lengths) == longest:
        return stacked, None
    places = torch.arange(longest, device=stacked.device)
    return stacked, places[None, :] < torch.tensor(lengths, device=stacked.device)[:, None]


def padding_mean(encoder: TextEncoder) -> Tensor:
    """p0 `[C]` of eq. 10, in float32: the mean over positions of the features of padding and nothing else."""
    ids = torch.full((1, _PADDING), encoder.tokenizer.pad_token_id)
    return encoder.features(ids)[0].float().mean(dim=0)


def extrapolate_negative(p_neg: Tensor, p_pad_mean: Tensor, scale: float) -> Tensor:
    """Equation 10: p- + lambda (p- - p0), with p- `[..., n, C]` and p0 `[C]`, the mean embedding of padding
    alone."""
    return p_neg + scale * (p_neg - p_pad_mean)


def framed(text: str, tokenizer: Any) -> tuple[list[int], list[int], list[int]]:
    """What the tokenizer puts before a text, the text's own ids, and what it puts after.

    Found by comparison, because tokenizers name their special tokens differently or not at all.
    """
    plain = {"padding": False, "truncation": False, "return_attention_mask": False, "verbose": False}
    body = list(tokenizer(text, add_special_tokens=False, **plain)["input_ids"])
    whole = list(tokenizer(text, add_special_tokens=True, **plain)["input_ids"])
    if not body:
        raise PromptError(
            f"the negative prompt {text!r} has no token; name what should not be in the picture"
        )
    for start in range(len(whole) - len(body) + 1):
        if whole[start : start + len(body)] == body:
            return whole[:start], body, whole[start + len(body) :]
    raise ModelError(
        f"the tokenizer {type(tokenizer).__name__} changes a text's tokens when it adds its special ones, so "
        "the negative prompt cannot be encoded without padding; use the tokenizer that the model was "
        "published with"
    )


def _pieces(text: str, encoder: TextEncoder) -> list[tuple[list[int], list[int], list[int]]]:
    """What the encoder sees at a time: ids before the words, words, ids after them."""
    prefix, body, suffix = framed(text, encoder.tokenizer)
    room = encoder.limit - len(prefix) - len(suffix)
    if room < 1:
        raise ModelError(f"a text encoder takes {encoder.limit} tokens, too few for one word and its frame")
    if len(body) > room and not encoder.chunked:
        log.warning(
            "the negative prompt has %d tokens, the encoder takes %d: its end is left out", len(body), room
        )
        body = body[:room]
    return [(prefix, body[i : i + room], suffix) for i in range(0, len(body), room)]
