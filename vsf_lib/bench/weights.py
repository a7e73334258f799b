"""A word's weight, as in `(wheels:1.5)`, as a factor on what enters the network: the way of the WebUIs.

Owns which tokens are words and how an embedding is weighted. The other way, a factor on a token's alpha, is
`forms.weighted`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vsf_lib.adapters import encode_negatives
from vsf_lib.errors import ModelError
from vsf_lib.negative import framed
from vsf_lib.settings import Settings

_PADDED = Settings(method="nag")


class _Part(NamedTuple):
    """The tokens of one encoder, or of CLIP's two side by side, in a negative embedding."""

    factors: Tensor
    """`[n]`: the weight on words, 1 on begin and end tokens."""
    words: slice


def token_factors(pipe: Any, settings: Settings, texts: Sequence[str], weight: float) -> list[float]:
    """`[n_n]`: `weight` for the words of a negative prompt, 1 for its begin and end tokens.

    One list serves a whole batch, so all `texts` must have as many tokens, as those of the benchmark do.
    """
    found = {tuple(torch.cat(_kept(pipe, settings, text, weight)).tolist()) for text in texts}
    if len(found) != 1:
        raise ModelError(
            f"the negative prompts have {sorted(map(len, found))} tokens, but share one list of factors: "
            "weigh prompts of one length"
        )
    return list(found.pop())


def weighted_embeddings(
    pipe: Any, settings: Settings, texts: Sequence[str], *, weight: float, renormalised: bool
) -> list[Tensor]:
    """Negative embeddings `[n_n, C]` whose words are multiplied by `weight`.

    `renormalised` multiplies each encoder's output once more, by what brings its mean back, as Forge and
    AUTOMATIC1111 do ("original" emphasis): CLIP's over its padded chunk, T5's over the tokens it was given.
    """
    rows = encode_negatives(pipe, settings.changed(negative_tokens="all"), texts)
    padded = encode_negatives(pipe, _PADDED, texts) if renormalised and _has_clip(pipe) else rows
    weighted = []
    for row, chunk, text in zip(rows, padded, texts, strict=True):
        parts = _parts(pipe, text, weight)
        pieces = []
        for i, (piece, part) in enumerate(
            zip(row.split([len(p.factors) for p in parts]), parts, strict=True)
        ):
            of_clip = i == 0 and _has_clip(pipe)
            weighed = piece * part.factors[:, None].to(piece)
            if renormalised:
                weighed *= _clip_ratios(pipe, chunk, part.factors) if of_clip else _ratio(piece, part.factors)
            pieces.append(weighed[part.words] if settings.negative_tokens == "words" else weighed)
        weighted.append(torch.cat(pieces))
    return weighted


def _clip_ratios(pipe: Any, padded: Tensor, factors: Tensor) -> Tensor:
    """`[C]`: a ratio for the channels of either CLIP, by the padded chunk that an embedding begins with."""
    chunk = padded[: pipe.tokenizer_max_length]
    factors = torch.cat([factors, torch.ones(len(chunk) - len(factors))])
    ratios, start = torch.ones(chunk.shape[1]).to(chunk), 0
    for encoder in (pipe.text_encoder, pipe.text_encoder_2):
        channels = slice(start, start + encoder.config.hidden_size)
        ratios[channels] = _ratio(chunk[:, channels], factors)
        start = channels.stop
    return ratios


def _ratio(features: Tensor, factors: Tensor) -> Tensor:
    return features.mean() / (features * factors[:, None].to(features)).mean()


def _kept(pipe: Any, settings: Settings, text: str, weight: float) -> list[Tensor]:
    parts = _parts(pipe, text, weight)
    return [p.factors[p.words] if settings.negative_tokens == "words" else p.factors for p in parts]


def _parts(pipe: Any, text: str, weight: float) -> list[_Part]:
    """In the order of the embedding: CLIP and T5 in SD3, T5 alone in Flux."""
    tokenizers = [pipe.tokenizer, pipe.tokenizer_3] if _has_clip(pipe) else [pipe.tokenizer_2]
    parts = []
    for tokenizer in tokenizers:
        if tokenizer is not None:  # SD3 does without T5
            prefix, body, suffix = framed(text, tokenizer)
            words = slice(len(prefix), len(prefix) + len(body))
            factors = torch.ones(len(prefix) + len(body) + len(suffix))
            factors[words] = weight
            parts.append(_Part(factors, words))
    return parts


def _has_clip(pipe: Any) -> bool:
    """Whether the text that the network reads begins with CLIP's features."""
    return hasattr(pipe, "tokenizer_3")
