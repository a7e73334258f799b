"""The negative prompt through the host's own text encoders: schedules, weights and LoRA as the host has them.

Owns how the text engines of Forge and Forge Neo are made to encode without padding (method "vsf"), and which
embedding belongs to which step. NAG and NASA take the host's padded encoding. Reads the engines it is handed;
what it needs of the host's modules comes in as arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from vsf_lib.errors import ModelError
from vsf_lib.negative import extrapolate_negative, join_clip_and_t5

_PADDING = 256


class Encoder:
    """Stands where the host's prompt parser expects a model: texts in, one embedding `[n, C]` each."""

    def __init__(self, model: Any, *, form: str, t5: bool, load: Callable[[], None]) -> None:
        """`form` as in `registry.Adapter.negative`. `t5` False leaves T5 out of SD3.5's text, as the host's
        option does. `load` brings the encoders to their device."""
        self._model = model
        self._form = form
        self._t5 = t5
        self._load = load

    @torch.inference_mode()
    def get_learned_conditioning(self, texts: Sequence[str]) -> list[Tensor]:
        """The host's name for it; called with the texts of one schedule."""
        if self._form == "padded":
            return [_text(self._model.get_learned_conditioning(_one(texts, text)))[0] for text in texts]
        self._load()
        encode = self._sd35 if hasattr(self._model, "text_processing_engine_g") else self._t5_alone
        # An empty part of a schedule ("[wheels::0.5]") keeps nothing out, so it has no tokens at all.
        return [encode(text) if text.strip() else encode(text)[:0] for text in texts]

    @torch.inference_mode()
    def of_padding(self) -> Tensor:
        """p0 of eq. 10: the mean `[C]` of T5's output for padding alone."""
        self._load()
        return padding_features(self._engine("t5"), _PADDING).float().mean(dim=(0, 1))

    def _sd35(self, text: str) -> Tensor:
        clip = [clip_tokens(self._engine(name), text, words_only=self._words_only) for name in ("l", "g")]
        t5 = self._t5_alone(text) if self._t5 else None
        width = 4096 if t5 is None else t5.shape[-1]
        return join_clip_and_t5(clip, t5, width)

    def _t5_alone(self, text: str) -> Tensor:
        """Flux and, with its UMT5 in the same place, Wan."""
        return t5_tokens(self._engine("t5"), text, words_only=self._words_only)

    @property
    def _words_only(self) -> bool:
        return self._form == "words"

    def _engine(self, name: str) -> Any:
        engine = getattr(self._model, f"text_processing_engine_{name}", None)
        if engine is None:
            raise ModelError(
                f"the loaded model has no {name.upper()} text engine to encode the negative prompt with: "
                "this version of the WebUI is not known; update the extension"
            )
        return engine


def clip_tokens(engine: Any, text: str, *, words_only: bool = False) -> Tensor:
    """CLIP's features `[n, C]`: of every chunk its begin token, its words and the first end token.

    With `words_only` its words alone.

    CLIP is causal, so that what follows the end token took no part in these.
    """
    chunks, _ = engine.tokenize_line(text)
    encoded = engine([text])
    features = (encoded[0] if isinstance(encoded, tuple) else encoded)[0]
    parts, at = [], 0
    for chunk in chunks:
        end = chunk.tokens.index(engine.id_end)
        parts.append(features[at + 1 : at + end] if words_only else features[at : at + end + 1])
        at += len(chunk.tokens)
    return torch.cat(parts)


def t5_tokens(engine: Any, text: str, *, words_only: bool = False) -> Tensor:
    """T5's features `[n, C]` of a text that was not padded: T5 looks both ways, so a slice would not do.

    With `words_only` without the end token's. UMT5's too.
    """
    with _unpadded(engine), _uncut(engine):
        features: Tensor = engine([text])
    whole = features.flatten(0, 1)
    return whole[:-1] if words_only else whole


def padding_features(engine: Any, length: int) -> Tensor:
    """T5's features `[1, length, C]` of padding tokens and nothing else."""
    if hasattr(engine, "encode_with_transformers"):
        features: Tensor = engine.encode_with_transformers(torch.full((1, length), engine.id_pad))
        return features
    features = engine.text_encoder.encode_token_weights([[(engine.tokenizer.pad_token, 1.0)] * length])[0]
    return features


@contextmanager
def _unpadded(engine: Any) -> Iterator[None]:
    # Later versions of Forge Neo keep it in a tokenizer of their own.
    owners = (engine, getattr(engine, "tokenizer", None))
    owner: Any = next((owner for owner in owners if hasattr(owner, "min_length")), None)
    if owner is None:
        raise ModelError(
            "the WebUI's T5 engine has no min_length, so the negative prompt cannot be encoded without "
            "padding: this version is not known; update the extension"
        )
    before = owner.min_length
    owner.min_length = 1
    try:
        yield
    finally:
        owner.min_length = before


@contextmanager
def _uncut(engine: Any) -> Iterator[None]:
    """For Forge Neo's first UMT5 engine, which means to cut an end token off a text's ids, but cuts the last
    letter off the text, and then hides all that follows the first end token."""
    if not hasattr(engine, "tokens_end"):
        yield
        return
    before = engine.tokens_end
    engine.tokens_end = None
    engine.tokenize = lambda texts: engine.tokenizer(texts, add_special_tokens=False)["input_ids"]
    try:
        yield
    finally:
        engine.tokens_end = before
        del engine.tokenize


def _text(encoded: Any) -> Tensor:
    """The text in what a host's model makes of prompts, which is all of it where there is nothing pooled."""
    text: Tensor = encoded if isinstance(encoded, Tensor) else encoded["crossattn"]
    return text


def _one(texts: Sequence[str], text: str) -> Sequence[str]:
    """`[text]` as the host's list, with the sizes that some models read from it."""
    kind: Any = type(texts)
    return [text] if kind is list else kind([text], copy_from=texts)


class Schedule:
    """Which embedding each picture's negative prompt has at which step."""

    def __init__(self, rows: Sequence[Sequence[Any]], scale: float, padding: Tensor | None) -> None:
        """`rows` holds, per picture, the host's entries with `end_at_step` and `cond`; `scale` is lambda of
        eq. 10, and `padding` its p0."""
        self._ends = [[int(entry.end_at_step) for entry in row] for row in rows]
        self._embeddings = [
            [entry.cond if padding is None else _extrapolated(entry.cond, padding, scale) for entry in row]
            for row in rows
        ]
        self._made: dict[tuple[int, ...], list[Tensor]] = {}

    @property
    def longest(self) -> int:
        """How many tokens the longest embedding of any picture and step has."""
        return max((len(embedding) for row in self._embeddings for embedding in row), default=0)

    @property
    def width(self) -> int:
        """How wide the embeddings are."""
        return max((embedding.shape[-1] for row in self._embeddings for embedding in row), default=0)

    def __call__(self, step: int) -> list[Tensor]:
        """One embedding `[n, C]` per picture; the same list as long as nothing changes."""
        # Behind the last boundary, where samplers with more calls than steps get, the last part holds.
        which = tuple(next((i for i, end in enumerate(ends) if step <= end), -1) for ends in self._ends)
        if which not in self._made:
            self._made[which] = [row[i] for row, i in zip(self._embeddings, which, strict=True)]
        return self._made[which]


def _extrapolated(embedding: Tensor, padding: Tensor, scale: float) -> Tensor:
    return extrapolate_negative(embedding, padding.to(embedding), scale)
