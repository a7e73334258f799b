"""Wan 2.1 in diffusers: where its cross-attention is reached and where N's keys and values come from.

Owns the copy of its attention processor that hands q, k and v to a guided call, and its text encoder. N goes
through the model's text embedder and each layer's maps apart from the prompt, once per generation: the
prompt's keys and the image keys of image-to-video models stay as they are. Keeps no state and knows no step
or session.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from diffusers.models.transformers import transformer_wan
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention as sdpa

from vsf_lib.adapters.compiled import TracedCall, padded, uncompiled
from vsf_lib.adapters.cross import Call, Pair, attend
from vsf_lib.adapters.diffusers_pipeline import (
    DiffusersAdapter,
    check_parts,
    t5_encoder,
)
from vsf_lib.errors import GuidanceError, ModelError
from vsf_lib.negative import encode_unpadded

# diffusers 0.34 has the class with 2_0 alone; later that name makes objects of the other.
_OWN = getattr(transformer_wan, "WanAttnProcessor", None) or transformer_wan.WanAttnProcessor2_0

# In image-to-video models the image's tokens stand before this many of the text; the model counts so too.
_TEXT_TOKENS = 512


class WanAdapter(DiffusersAdapter):
    """See `registry.Adapter`."""

    joint = False

    def check_encoders(self, pipe: Any) -> None:
        check_parts(
            pipe,
            ("text_encoder", "tokenizer"),
            "load it with its UMT5 text encoder, or encode the negative prompt before that is freed "
            "(encode_negatives)",
        )
        _clean(pipe, "")

    def denoiser(self, pipe: Any) -> nn.Module:
        transformer = pipe.transformer
        if getattr(pipe, "transformer_2", None) is not None:
            raise ModelError(
                "this pipeline has two transformers (Wan 2.2, high and low noise), and guidance knows one "
                "only; use Wan 2.1, or generate unguided"
            )
        if not isinstance(uncompiled(transformer), transformer_wan.WanTransformer3DModel):
            raise ModelError(
                f"the transformer is a {type(transformer).__name__}, but guidance knows "
                "WanTransformer3DModel only; load that one, without wrapping it"
            )
        self.layers(transformer)
        guided: nn.Module = transformer
        return guided

    def layers(self, denoiser: nn.Module) -> Mapping[str, Any]:
        layers: dict[str, Any] = {}
        for i, block in enumerate(denoiser.blocks):  # type: ignore[arg-type]
            name, attn = f"blocks.{i}.attn2", block.attn2
            if type(attn.processor) is not _OWN:
                raise ModelError(
                    f"{name} uses {type(attn.processor).__name__}, but guidance replaces {_OWN.__name__} "
                    "only; undo what set it, or generate unguided"
                )
            if getattr(attn, "fused_projections", False):
                raise ModelError(
                    f"{name} has fused projections, which guidance does not know; call "
                    "unfuse_qkv_projections, or generate unguided"
                )
            if getattr(attn.processor, "_parallel_config", None) is not None:
                raise ModelError(
                    f"{name} runs on several devices at once (context parallelism), which guidance does not "
                    "know; load the model without it, or generate unguided"
                )
            layers[name] = attn
        return layers

    def negative(
        self,
        pipe: Any,
        texts: Sequence[str],
        form: str,
        arguments: Mapping[str, Any],
        encode_prompt: Callable[..., Any],
    ) -> list[Tensor]:
        if form == "padded":
            asked = {key: arguments[key] for key in ("device", "max_sequence_length") if key in arguments}
            return list(encode_prompt(list(texts), do_classifier_free_guidance=False, **asked)[0])
        device = arguments.get("device") or pipe._execution_device
        encoder = t5_encoder(pipe.tokenizer, pipe.text_encoder, device)
        with torch.no_grad():
            return [
                encode_unpadded(_clean(pipe, text), encoder, words_only=form == "words") for text in texts
            ]

    def arguments(self, kwargs: Mapping[str, Any], negative: Tensor) -> dict[str, Any]:
        return dict(kwargs)

    def processor(self, denoiser: nn.Module, name: str, call: Call, *, silent: bool) -> Any:
        embedder: nn.Module = denoiser.condition_embedder.text_embedder  # type: ignore[assignment,union-attr]
        guided = _GuidedCrossAttention(embedder, name, call)
        if isinstance(call, TracedCall):
            guided.prepare(call, self.layers(denoiser)[name])
        return guided


ADAPTER = WanAdapter()


class _GuidedCrossAttention:
    """The model's own processor with the attention over text left to a guided call; for one call of one
    layer."""

    def __init__(self, embedder: nn.Module, name: str, call: Call) -> None:
        self._embedder = embedder
        self._name = name
        self._call = call
        self._prepared: Pair | None = None

    def prepare(self, call: TracedCall, attn: Any) -> None:
        """Makes N's keys and values before the layer runs: a compiled one would make them in each step."""
        device = call.batch.negative.device
        if next(attn.parameters()).device != device:
            raise ModelError(
                f"{self._name} is compiled and its weights are not on {device} before it runs, so the "
                "negative's keys cannot be made; switch offloading off, or do not compile it"
            )
        call.batch, self._prepared = padded(call.batch, call.rows, self._negative(attn, device))

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: Any = None,
    ) -> Tensor:
        if encoder_hidden_states is None or attention_mask is not None or rotary_emb is not None:
            raise GuidanceError(
                f"{self._name} was called without text, or with a mask or positions, which no Wan model that "
                "guidance knows does; generate unguided"
            )
        text, image = encoder_hidden_states, None
        if attn.add_k_proj is not None:
            n = text.shape[1] - _TEXT_TOKENS
            image, text = text[:, :n], text[:, n:]
        q = _heads(attn, attn.to_q(hidden_states), attn.norm_q)
        k, v = (x.expand(len(q), -1, -1, -1) for x in _keys_and_values(attn, text))
        negative = self._negative(attn, q.device) if self._prepared is None else self._prepared
        out = _flat(attend(self._call, self._name, q, k, v, negative), q)
        if image is not None and image.shape[1] > 0:
            k_image = _heads(attn, attn.add_k_proj(image), attn.norm_added_k)
            v_image = _heads(attn, attn.add_v_proj(image), None)
            out = out + _flat(sdpa(q, k_image, v_image), q)
        return attn.to_out[1](attn.to_out[0](out))

    def _negative(self, attn: Any, device: torch.device) -> Pair:
        # Inside of the layer's own call, because an offloaded model has its weights at hand only then.
        batch = self._call.batch
        return batch.keep(
            self._name,
            lambda: _keys_and_values(
                attn, batch.keep("embedded", lambda: self._embedder(batch.negative.to(device)))
            ),
        )


def _clean(pipe: Any, text: str) -> str:
    """What the pipeline makes of a prompt before it goes to the tokenizer."""
    modules = (vars(sys.modules[cls.__module__]) for cls in type(pipe).__mro__)
    clean = next((module["prompt_clean"] for module in modules if "prompt_clean" in module), None)
    if clean is None:
        raise ModelError(
            "this version of diffusers cleans Wan's prompts in a way that guidance does not know; use 0.37"
        )
    try:
        cleaned: str = clean(text)
    except NameError as error:
        raise ModelError(
            f"this diffusers cleans Wan's prompts with {error.name!r}, a package that is missing; install it"
        ) from error
    return cleaned


def _keys_and_values(attn: Any, text: Tensor) -> Pair:
    return _heads(attn, attn.to_k(text), attn.norm_k), _heads(attn, attn.to_v(text), None)


def _heads(attn: Any, x: Tensor, norm: nn.Module | None) -> Tensor:
    """`[B, n, H D]` to `[B, H, n, D]`; the norm is over all heads together."""
    return (x if norm is None else norm(x)).unflatten(2, (attn.heads, -1)).transpose(1, 2)


def _flat(out: Tensor, q: Tensor) -> Tensor:
    """`[B, H, n, D]` to `[B, n, H D]` in q's dtype."""
    return out.transpose(1, 2).flatten(2).to(q.dtype)
