"""What diffusers' pipelines with a transformer have in common: argument names, results, text, refusals.

Owns the parts of `registry.Adapter` that no network changes, for a network's module to build on. Knows no
attention and no class of a network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from diffusers.utils import USE_PEFT_BACKEND, scale_lora_layers, unscale_lora_layers
from torch import Tensor, nn

from vsf_lib.errors import GuidanceError, ModelError
from vsf_lib.negative import TextEncoder
from vsf_lib.settings import Settings

TEXT = "encoder_hidden_states"

# T5 has no table of positions; this is the longest text that its pipelines were trained with and accept.
_T5_LIMIT = 512


class DiffusersAdapter:
    """See `registry.Adapter`."""

    joint = True
    extrapolates = False
    two_kinds = False
    moves_pooled = False
    separate_unconditional = False

    def prompts(self, arguments: Mapping[str, Any], conditional: Tensor) -> int:
        prompt = arguments.get("prompt")
        if prompt is None:
            return len(conditional)
        return 1 if isinstance(prompt, str) else len(prompt)

    def encoded(
        self, arguments: Mapping[str, Any], result: Sequence[Tensor | None]
    ) -> tuple[Tensor, Tensor | None]:
        conditional, unconditional = result[0], result[1]
        if conditional is None:
            raise GuidanceError("the pipeline encoded no prompt; call it with prompt or prompt_embeds")
        return conditional, unconditional if arguments.get("do_classifier_free_guidance", True) else None

    def padding(self, pipe: Any, arguments: Mapping[str, Any]) -> Tensor:
        raise NotImplementedError

    def pooled(
        self,
        pipe: Any,
        texts: Sequence[str],
        arguments: Mapping[str, Any],
        encode_prompt: Callable[..., Any],
    ) -> list[Tensor]:
        raise NotImplementedError

    def move_pooled(self, kwargs: Mapping[str, Any], pooled: Tensor, shift: float) -> dict[str, Any]:
        raise NotImplementedError

    def text(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor | None:
        text = kwargs.get(TEXT)
        if not isinstance(text, Tensor):
            raise GuidanceError(
                f"the transformer was called without {TEXT}, which no step of the pipeline does"
            )
        return text

    def image_tokens(self, kwargs: Mapping[str, Any]) -> int:
        return 0

    def silent(self, name: str, settings: Settings) -> bool:
        return False

    def output(self, output: Any) -> Tensor:
        tensor: Tensor = output[0]
        return tensor


def check_parts(pipe: Any, parts: Sequence[str], remedy: str) -> None:
    """Raises ModelError if the pipeline lacks one of the parts that encode the negative prompt."""
    for part in parts:
        if getattr(pipe, part, None) is None:
            raise ModelError(
                f"this pipeline has no {part}, so the negative prompt cannot be encoded; {remedy}"
            )


def t5_encoder(tokenizer: Any, model: Any, device: Any) -> TextEncoder:
    """T5 and its kin as a pipeline runs them, on `device`."""

    def features(ids: Tensor) -> Tensor:
        hidden: Tensor = model(ids.to(device))[0]
        return hidden.to(dtype=model.dtype, device=device)

    return TextEncoder(tokenizer, features, _T5_LIMIT, chunked=False)


@contextmanager
def text_lora(encoders: Sequence[nn.Module], scale: float | None) -> Iterator[None]:
    """The text encoders' LoRA at the strength that the pipeline encodes the prompt with."""
    scaled = list(encoders) if scale is not None and USE_PEFT_BACKEND else []
    for encoder in scaled:
        scale_lora_layers(encoder, scale)
    try:
        yield
    finally:
        for encoder in scaled:
            unscale_lora_layers(encoder, scale)
