"""Stable Diffusion 3 and 3.5 in diffusers: where their tokens sit and how their attention is reached.

Owns SD3's token order (image, then text, so N goes last), the copy of its attention processor that hands q, k
and v to a guided call, and its text encoders. The second, image-only attention of dual blocks is not touched,
and of the last block, whose text output is dropped, only image rows count. Keeps no state and knows no step
or session.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from diffusers.models.attention_processor import Attention, JointAttnProcessor2_0
from torch import Tensor, nn

from vsf_lib.adapters.call import GuidedCall
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
from vsf_lib.negative import TextEncoder, encode_unpadded, join_clip_and_t5


class Sd3Adapter(DiffusersAdapter):
    """See `registry.Adapter`."""

    def check_encoders(self, pipe: Any) -> None:
        check_parts(
            pipe,
            ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"),
            "load it with its CLIP text encoders (only the T5 one, text_encoder_3, may be left out)",
        )

    def denoiser(self, pipe: Any) -> nn.Module:
        transformer: nn.Module = pipe.transformer
        self.layers(transformer)
        return transformer

    def layers(self, denoiser: nn.Module) -> Mapping[str, Any]:
        layers: dict[str, Any] = {}
        for i, block in enumerate(denoiser.transformer_blocks):  # type: ignore[arg-type]
            name, attn = f"transformer_blocks.{i}.attn", block.attn
            if type(attn.processor) is not JointAttnProcessor2_0:
                raise ModelError(
                    f"{name} uses {type(attn.processor).__name__}, but guidance replaces "
                    "JointAttnProcessor2_0 only; undo what set it (unload_ip_adapter, "
                    "unfuse_qkv_projections, disable_pag) or generate unguided"
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
        lora_scale = arguments.get("lora_scale")
        if form == "padded":
            asked = {
                key: arguments[key]
                for key in ("device", "clip_skip", "max_sequence_length")
                if key in arguments
            }
            rows = encode_prompt(
                list(texts), None, None, do_classifier_free_guidance=False, lora_scale=lora_scale, **asked
            )[0]
        else:
            device = arguments.get("device") or pipe._execution_device
            # The same layer of CLIP as the positive prompt's: both meet in one attention.
            clip = _clip_encoders(pipe, device, arguments.get("clip_skip") or 0)
            t5 = None
            if pipe.text_encoder_3 is not None and pipe.tokenizer_3 is not None:
                t5 = t5_encoder(pipe.tokenizer_3, pipe.text_encoder_3, device)
            encode = partial(encode_unpadded, words_only=form == "words")
            with torch.no_grad(), text_lora([pipe.text_encoder, pipe.text_encoder_2], lora_scale):
                rows = [
                    join_clip_and_t5(
                        [encode(text, encoder) for encoder in clip],
                        None if t5 is None else encode(text, t5),
                        pipe.transformer.config.joint_attention_dim,
                    )
                    for text in texts
                ]
        return list(rows)

    def text(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor | None:
        if kwargs.get("skip_layers") is not None:
            # Skip-layer guidance compares with a weakened prediction: guiding it would cancel out.
            return None
        return super().text(args, kwargs)

    def arguments(self, kwargs: Mapping[str, Any], negative: Tensor) -> dict[str, Any]:
        text: Tensor = kwargs[TEXT]
        return {**kwargs, TEXT: torch.cat([text, negative.expand(len(text), -1, -1)], dim=1)}

    def processor(self, denoiser: nn.Module, name: str, call: Call, *, silent: bool) -> Any:
        return _GuidedJointAttention(name, call)


ADAPTER = Sd3Adapter()


class _GuidedJointAttention:
    """JointAttnProcessor2_0 with the attention itself left to a guided call; for one call of one layer."""

    def __init__(self, name: str, call: Call) -> None:
        self._name = name
        self._call = call

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        if encoder_hidden_states is None:
            raise GuidanceError(f"{self._name} was called without text, so it cannot be guided")
        n_i, total = hidden_states.shape[1], hidden_states.shape[1] + encoder_hidden_states.shape[1]
        n_p = self._call.n_p
        if isinstance(self._call, GuidedCall) and total - n_i - n_p != self._call.n_n:
            raise GuidanceError(
                f"{self._name} has {total - n_i} text tokens where {n_p + self._call.n_n} were expected: "
                "something else changes the text on its way; remove it, or generate unguided"
            )

        q, k, v = joined(image_heads(attn, hidden_states), text_heads(attn, encoder_hidden_states))
        out = attend(
            self._call,
            self._name,
            q,
            k,
            v,
            image=slice(0, n_i),
            positive=slice(n_i, n_i + n_p),
            negative=slice(n_i + n_p, total),
        )
        out = out.transpose(1, 2).flatten(2).to(q.dtype)

        image_out, text_out = out[:, :n_i], out[:, n_i:]
        if not attn.context_pre_only:
            text_out = attn.to_add_out(text_out)
        return attn.to_out[1](attn.to_out[0](image_out)), text_out


def _clip_encoders(pipe: Any, device: Any, clip_skip: int) -> list[TextEncoder]:
    def encoder(tokenizer: Any, model: Any) -> TextEncoder:
        def features(ids: Tensor) -> Tensor:
            hidden: Tensor = model(ids.to(device), output_hidden_states=True).hidden_states[-(clip_skip + 2)]
            return hidden.to(dtype=pipe.text_encoder.dtype, device=device)

        limit = min(pipe.tokenizer_max_length, model.config.max_position_embeddings)
        return TextEncoder(tokenizer, features, limit, chunked=True)

    return [encoder(pipe.tokenizer, pipe.text_encoder), encoder(pipe.tokenizer_2, pipe.text_encoder_2)]
