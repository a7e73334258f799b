"""The methods again, written from their definitions: one row at a time, in float64, with explicit masks.

Shares nothing with the code under test but diffusers' own modules. N1 stands as columns of its own.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from vsf_lib.settings import Settings


def negative_embedding(pipe: Any, text: str, *, words_only: bool = False) -> Tensor:
    """`[n_n, C]`: out of the padded CLIP encoding the tokens up to the first end token, then T5 without
    padding; with `words_only` neither begin nor end tokens."""
    padded = pipe.encode_prompt(text, None, None, do_classifier_free_guidance=False)[0][0]
    ids = pipe.tokenizer(text).input_ids
    parts = [padded[: ids.index(pipe.tokenizer.eos_token_id) + 1]]
    if pipe.text_encoder_3 is not None:
        t5_ids = torch.tensor([pipe.tokenizer_3(text).input_ids])
        parts.append(pipe.text_encoder_3(t5_ids).last_hidden_state[0].detach())
    if words_only:
        parts = [parts[0][1:-1], *(part[:-1] for part in parts[1:])]
    return torch.cat(parts)


class Reference:
    """The transformer in float64, guided or not, for one row of a call."""

    def __init__(self, transformer: Any, settings: Settings | None) -> None:
        self.transformer = copy.deepcopy(transformer).double()
        self.settings = settings
        self.shares: list[Tensor] = []

    @torch.no_grad()
    def __call__(self, inputs: dict[str, Any], row: int, negative: Tensor | None = None) -> Tensor:
        one = {
            name: value[row : row + 1].double() for name, value in inputs.items() if isinstance(value, Tensor)
        }
        text = one.pop("encoder_hidden_states")
        n_p = text.shape[1]
        if negative is not None:
            text = torch.cat([text, negative[None].double()], dim=1)
            for block in self.transformer.transformer_blocks:
                block.attn.processor = _MaskedProcessor(self, n_p)
        return self.transformer(encoder_hidden_states=text, **one, return_dict=False)[0][0]


class _MaskedProcessor:
    def __init__(self, reference: Reference, n_p: int) -> None:
        self.reference = reference
        self.n_p = n_p

    def __call__(self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, **_: Any) -> Any:
        n_i = hidden_states.shape[1]

        def heads(x: Tensor, linear: Any, norm: Any) -> Tensor:
            batch, length, _ = x.shape
            y = linear(x).view(batch, length, attn.heads, -1).permute(0, 2, 1, 3)
            return y if norm is None else norm(y)

        image, text = hidden_states, encoder_hidden_states
        q = torch.cat(
            [heads(image, attn.to_q, attn.norm_q), heads(text, attn.add_q_proj, attn.norm_added_q)], 2
        )
        k = torch.cat(
            [heads(image, attn.to_k, attn.norm_k), heads(text, attn.add_k_proj, attn.norm_added_k)], 2
        )
        v = torch.cat([heads(image, attn.to_v, None), heads(text, attn.add_v_proj, None)], 2)
        places = torch.arange(q.shape[2])
        kind = torch.where(places < n_i, 0, torch.where(places < n_i + self.n_p, 1, 2))
        out = getattr(self, self.reference.settings.method)(q, k, v, kind)
        out = out.permute(0, 2, 1, 3).flatten(2)
        image_out = attn.to_out[0](out[:, :n_i])
        text_out = out[:, n_i:]
        return image_out, text_out if attn.context_pre_only else attn.to_add_out(text_out)

    def vsf(self, q: Tensor, k: Tensor, v: Tensor, kind: Tensor) -> Tensor:
        settings, n_n = self.reference.settings, int((kind == 2).sum())
        columns = torch.cat([kind, torch.full((n_n,), 3)])
        keys = torch.cat([k, k[:, :, kind == 2]], 2)
        values = torch.cat([v, -settings.alpha * v[:, :, kind == 2]], 2)
        #                        I      P      N0     N1
        sees = torch.tensor(
            [[True, True, False, True], [True, True, False, False], [True, False, True, False]]
        )[kind][:, columns]
        logits = q @ keys.mT / q.shape[-1] ** 0.5
        logits = logits - settings.beta * (columns == 3)
        weights = logits.masked_fill(~sees, -torch.inf).softmax(-1)
        self.reference.shares.append(weights[0][:, kind == 0][..., columns == 3].sum(-1).mean(0))
        return weights @ values

    def _over(self, q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
        logits = q @ k.mT / q.shape[-1] ** 0.5
        return logits.masked_fill(~seen, -torch.inf).softmax(-1) @ v

    def difference(self, q: Tensor, k: Tensor, v: Tensor, kind: Tensor) -> Tensor:
        """O_b - alpha w (O_n - O_b), with w the weight that N would have beside I and P."""
        settings = self.reference.settings
        plus, minus = self._over(q, k, v, kind != 2), self._over(q, k, v, kind != 1)
        logits = q @ k.mT / q.shape[-1] ** 0.5 - settings.beta * (kind == 2)
        w = logits.softmax(-1)[..., kind == 2].sum(-1, keepdim=True)
        image = plus - settings.alpha * w * (self._over(q, k, v, kind == 2) - plus)
        return self._by_kind(kind, image, plus, minus)

    def nasa(self, q: Tensor, k: Tensor, v: Tensor, kind: Tensor) -> Tensor:
        plus, minus = self._over(q, k, v, kind != 2), self._over(q, k, v, kind != 1)
        image = plus - self.reference.settings.nasa_alpha * minus
        return self._by_kind(kind, image, plus, minus)

    def nag(self, q: Tensor, k: Tensor, v: Tensor, kind: Tensor) -> Tensor:
        settings = self.reference.settings
        plus, minus = self._over(q, k, v, kind != 2), self._over(q, k, v, kind != 1)
        tilde = plus + settings.nag_phi * (plus - minus)
        size = tilde.abs().sum((1, 3), keepdim=True)
        limit = settings.nag_tau * plus.abs().sum((1, 3), keepdim=True)
        tilde = torch.where(size > limit, tilde * limit / size, tilde)
        image = settings.nag_alpha * tilde + (1 - settings.nag_alpha) * plus
        return self._by_kind(kind, image, plus, minus)

    @staticmethod
    def _by_kind(kind: Tensor, image: Tensor, plus: Tensor, minus: Tensor) -> Tensor:
        place = kind[None, None, :, None]
        return torch.where(place == 0, image, torch.where(place == 1, plus, minus))
