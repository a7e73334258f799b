"""The negative prompts of a call, through the pipeline's encoders, as the settings want them.

Owns what is the same for every network: eq. 10, and when a pooled embedding is needed. Knows no encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from vsf_lib.adapters.registry import Adapter
from vsf_lib.negative import extrapolate_negative
from vsf_lib.settings import SHARING, Settings


def encode_texts(
    pipe: Any,
    adapter: Adapter,
    settings: Settings,
    texts: Sequence[str],
    arguments: Mapping[str, Any],
    encode_prompt: Callable[..., Any],
) -> list[Tensor]:
    """The negative embeddings `[n, C]`, one per text, where `arguments` are what `encode_prompt` gets."""
    rows = adapter.negative(pipe, texts, settings.negative_form, arguments, encode_prompt)
    if not settings.negative_scale:
        return rows
    p0 = adapter.padding(pipe, arguments)
    # In float32, because the difference is enlarged, and half precision's rounding with it.
    return [extrapolate_negative(row.float(), p0, settings.negative_scale).to(row) for row in rows]


def encode_pooled(
    pipe: Any,
    adapter: Adapter,
    settings: Settings,
    texts: Sequence[str],
    arguments: Mapping[str, Any],
    encode_prompt: Callable[..., Any],
) -> list[Tensor] | None:
    """The negative prompts' pooled embeddings `[C]`, or None where the prompt's is not moved."""
    if settings.method not in SHARING or not settings.pooled_shift:
        return None
    return adapter.pooled(pipe, texts, arguments, encode_prompt)
