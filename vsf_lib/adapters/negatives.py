"""The negative prompts of a call, through the pipeline's encoders, as the settings want them.

Owns what is the same for every network: eq. 10, and when a pooled embedding is needed. Knows no encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypeVar

from torch import Tensor

from vsf_lib.adapters.negative_cache import NegativeCache
from vsf_lib.adapters.registry import Adapter
from vsf_lib.negative import extrapolate_negative
from vsf_lib.settings import SHARING, Settings

T = TypeVar("T")


def encode_texts(
    pipe: Any,
    adapter: Adapter,
    settings: Settings,
    texts: Sequence[str],
    arguments: Mapping[str, Any],
    encode_prompt: Callable[..., Any],
    cache: NegativeCache | None = None,
) -> list[Tensor]:
    """The negative embeddings `[n, C]`, one per text, where `arguments` are what `encode_prompt` gets."""
    form = settings.negative_form
    rows = _kept(
        cache,
        pipe,
        ("negative", form, tuple(texts)),
        arguments,
        lambda: adapter.negative(pipe, texts, form, arguments, encode_prompt),
    )
    if not settings.negative_scale:
        return rows
    p0 = _kept(cache, pipe, "padding", arguments, lambda: adapter.padding(pipe, arguments))
    # In float32, because the difference is enlarged, and half precision's rounding with it.
    return [extrapolate_negative(row.float(), p0, settings.negative_scale).to(row) for row in rows]


def encode_pooled(
    pipe: Any,
    adapter: Adapter,
    settings: Settings,
    texts: Sequence[str],
    arguments: Mapping[str, Any],
    encode_prompt: Callable[..., Any],
    cache: NegativeCache | None = None,
) -> list[Tensor] | None:
    """The negative prompts' pooled embeddings `[C]`, or None where the prompt's is not moved."""
    if settings.method not in SHARING or not settings.pooled_shift:
        return None
    return _kept(
        cache,
        pipe,
        ("pooled", tuple(texts)),
        arguments,
        lambda: adapter.pooled(pipe, texts, arguments, encode_prompt),
    )


def _kept(
    cache: NegativeCache | None,
    pipe: Any,
    what: Hashable,
    arguments: Mapping[str, Any],
    make: Callable[[], T],
) -> T:
    return make() if cache is None else cache.get(pipe, what, arguments, make)
