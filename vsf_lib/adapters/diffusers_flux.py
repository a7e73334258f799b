"""Flux.1 in diffusers: where its tokens sit and how its attention is reached, in both kinds of block.

Owns Flux's token order (text, then image, so N goes first, at the position of all text, which is none), the
copy of its attention processor that hands q, k and v to a guided call, and its text encoders. With
`Settings.blocks` "double" the single-stream blocks carry N along unseen. Keeps no state and knows no step or
session.

diffusers 0.34 has its `Attention` with FluxAttnProcessor2_0 here; 0.35 to 0.37 have FluxAttention with
FluxAttnProcessor, which lays heads out otherwise. The layers' parts have the same names in both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.transformers import transformer_flux
from torch import Tensor, nn
from torch.nn.functional import pad

from vsf_lib.adapters.compiled import TracedCall, uncompiled
from vsf_lib.adapters.diffusers_joint import image_heads, joined, text_heads
from vsf_lib.adapters.diffusers_pipeline import (
    TEXT,
    DiffusersAdapter,
    check_parts,
    t5_encoder,
    text_lora,
)
from vsf_lib.adapters.joint import Call, attend
from vsf_lib.errors import GuidanceError, ModelError
from vsf_lib.negative import encode_unpadded, padding_mean
from vsf_lib.settings import Settings

# diffusers 0.34 has the class with 2_0 alone; later that name makes objects of the other.
_OWN = getattr(transformer_flux, "FluxAttnProcessor", None) or transformer_flux.FluxAttnProcessor2_0

# 0.34 exchanges the processor for fused projections, and leaves this mark on layers that are unfused again.
_FUSES_IN_PLACE = hasattr(transformer_flux, "FluxAttention")

_BLOCKS = ("transformer_blocks", "single_transformer_blocks")
_CLIP = ("text_encoder", "tokenizer")
_T5 = ("text_encoder_2", "tokenizer_2")


class FluxAdapter(DiffusersAdapter):
    """See `registry.Adapter`."""

    extrapolates = True
    two_kinds = True
    moves_pooled = True
    separate_unconditional = True

    def check_encoders(self, pipe: Any) -> None:
        check_parts(
            pipe,
            _T5,
            "load it with its T5 text encoder, or encode the negative prompt before that is freed "
            "(encode_negatives)",
        )

    def denoiser(self, pipe: Any) -> nn.Module:
        transformer = pipe.transformer
        if not isinstance(uncompiled(transformer), transformer_flux.FluxTransformer2DModel):
            raise ModelError(
                f"the transformer is a {type(transformer).__name__}, but guidance knows "
                "FluxTransformer2DModel only; load that one, without wrapping it"
            )
        self.layers(transformer)
        guided: nn.Module = transformer
        return guided

    def layers(self, denoiser: nn.Module) -> Mapping[str, Any]:
        layers: dict[str, Any] = {}
        for kind in _BLOCKS:
            for i, block in enumerate(getattr(denoiser, kind)):
                name, attn = f"{kind}.{i}.attn", block.attn
                if type(attn.processor) is not _OWN:
                    raise ModelError(
                        f"{name} uses {type(attn.processor).__name__}, but guidance replaces "
                        f"{_OWN.__name__} only; undo what set it (unload_ip_adapter, "
                        "unfuse_qkv_projections) or generate unguided"
                    )
                if _FUSES_IN_PLACE and attn.fused_projections:
                    raise ModelError(
                        f"{name} has fused projections, which guidance does not know; call "
                        "unfuse_qkv_projections, or generate unguided"
                    )
                if getattr(attn.processor, "_parallel_config", None) is not None:
                    raise ModelError(
                        f"{name} runs on several devices at once (context parallelism), which guidance does "
                        "not know; load the model without it, or generate unguided"
                    )
                layers[name] = attn
        return layers

    def encoded(
        self, arguments: Mapping[str, Any], result: Sequence[Tensor | None]
    ) -> tuple[Tensor, Tensor | None]:
        (text, *_) = result
        if text is None:
            raise GuidanceError("the pipeline encoded no prompt; call it with prompt or prompt_embeds")
        return text, None

    def negative(
        self,
        pipe: Any,
        texts: Sequence[str],
        form: str,
        arguments: Mapping[str, Any],
        encode_prompt: Callable[..., Any],
    ) -> list[Tensor]:
        if form == "padded":
            return list(_as_a_prompt(pipe, texts, arguments, encode_prompt)[0])
        encoder = t5_encoder(pipe.tokenizer_2, pipe.text_encoder_2, _device(pipe, arguments))
        with torch.no_grad(), text_lora([pipe.text_encoder_2], arguments.get("lora_scale")):
            return [encode_unpadded(text, encoder, words_only=form == "words") for text in texts]

    def padding(self, pipe: Any, arguments: Mapping[str, Any]) -> Tensor:
        encoder = t5_encoder(pipe.tokenizer_2, pipe.text_encoder_2, _device(pipe, arguments))
        with torch.no_grad(), text_lora([pipe.text_encoder_2], arguments.get("lora_scale")):
            return padding_mean(encoder)

    def pooled(
        self,
        pipe: Any,
        texts: Sequence[str],
        arguments: Mapping[str, Any],
        encode_prompt: Callable[..., Any],
    ) -> list[Tensor]:
        return list(_as_a_prompt(pipe, texts, arguments, encode_prompt)[1])

    def arguments(self, kwargs: Mapping[str, Any], negative: Tensor) -> dict[str, Any]:
        text: Tensor = kwargs[TEXT]
        return {
            **kwargs,
            TEXT: torch.cat([negative.expand(len(text), -1, -1), text], dim=1),
            "txt_ids": pad(kwargs["txt_ids"], (0, 0, negative.shape[1], 0)),
        }

    def move_pooled(self, kwargs: Mapping[str, Any], pooled: Tensor, shift: float) -> dict[str, Any]:
        own: Tensor = kwargs["pooled_projections"]
        return {**kwargs, "pooled_projections": own + shift * (own - pooled.to(own))}

    def image_tokens(self, kwargs: Mapping[str, Any]) -> int:
        return int(kwargs["hidden_states"].shape[1])

    def silent(self, name: str, settings: Settings) -> bool:
        return settings.blocks == "double" and name.startswith(_BLOCKS[1])

    def processor(self, denoiser: nn.Module, name: str, call: Call, *, silent: bool) -> Any:
        return _GuidedFluxAttention(name, call, silent=silent)


ADAPTER = FluxAdapter()


class _GuidedFluxAttention:
    """The model's own processor with the attention itself left to a guided call; for one call of one layer.

    Single-stream blocks hand it all tokens as one sequence.
    """

    def __init__(self, name: str, call: Call, *, silent: bool) -> None:
        self._name = name
        self._call = call
        self._silent = silent

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Any = None,
    ) -> Any:
        if attention_mask is not None:
            raise GuidanceError(
                f"{self._name} was called with a mask, which no Flux model that guidance knows does; "
                "generate unguided"
            )
        n_n = self._length(encoder_hidden_states, hidden_states)
        text = n_n + self._call.n_p
        parts = image_heads(attn, hidden_states)
        if encoder_hidden_states is not None:
            parts = joined(text_heads(attn, encoder_hidden_states), parts)
        q, k, v = parts
        if image_rotary_emb is not None:
            q, k = apply_rotary_emb(q, image_rotary_emb), apply_rotary_emb(k, image_rotary_emb)
        out = attend(
            self._call,
            self._name,
            q,
            k,
            v,
            negative=slice(0, n_n),
            positive=slice(n_n, text),
            image=slice(text, q.shape[2]),
            silent=self._silent,
        )
        out = out.transpose(1, 2).flatten(2).to(q.dtype)
        if encoder_hidden_states is None:
            return out
        return attn.to_out[1](attn.to_out[0](out[:, text:])), attn.to_add_out(out[:, :text])

    def _length(self, text: Tensor | None, tokens: Tensor) -> int:
        """How long N is."""
        call = self._call
        if isinstance(call, TracedCall):
            return tokens.shape[1] - call.n_p - call.n_i if text is None else text.shape[1] - call.n_p
        expected = call.n_n + call.n_p
        if text is not None and text.shape[1] != expected:
            raise GuidanceError(
                f"{self._name} has {text.shape[1]} text tokens where {expected} were expected: "
                "something else changes the text on its way; remove it, or generate unguided"
            )
        return call.n_n


def _device(pipe: Any, arguments: Mapping[str, Any]) -> Any:
    return arguments.get("device") or pipe._execution_device


def _as_a_prompt(
    pipe: Any, texts: Sequence[str], arguments: Mapping[str, Any], encode_prompt: Callable[..., Any]
) -> Any:
    """What the pipeline makes of the texts as prompts: text features, padded, and pooled ones."""
    check_parts(pipe, _CLIP, "load it with its CLIP text encoder")
    asked = {
        key: arguments[key] for key in ("device", "max_sequence_length", "lora_scale") if key in arguments
    }
    return encode_prompt(list(texts), None, **asked)
