"""The methods on Flux again, written from their definitions: one row at a time, in float64, with masks.

Shares nothing with the code under test but diffusers' own modules: positions are turned by its own formula,
N stands behind the prompt rather than before it, and N1 has columns of its own.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from vsf_lib.settings import Settings


def negative_embedding(pipe: Any, text: str, *, words_only: bool = False, scale: float = 0.0) -> Tensor:
    """`[n_n, C]`: T5's output for the text without padding; with `words_only` without the end token, then
    moved away from the mean of what 256 padding tokens give."""

    def t5(ids: list[int]) -> Tensor:
        return pipe.text_encoder_2(torch.tensor([ids])).last_hidden_state[0].detach()

    features = t5(pipe.tokenizer_2(text).input_ids)
    if words_only:
        features = features[:-1]
    return features + scale * (features - t5([pipe.tokenizer_2.pad_token_id] * 256).mean(0))


class Reference:
    """The transformer in float64, guided or not, for one row of a call."""

    def __init__(self, transformer: Any, settings: Settings | None) -> None:
        self.transformer = copy.deepcopy(transformer).double()
        self.settings = settings
        self.shares: list[Tensor] = []

    @torch.no_grad()
    def __call__(self, inputs: dict[str, Any], row: int, negative: Tensor | None = None) -> Tensor:
        whole = ("txt_ids", "img_ids")
        one = {
            name: value.double() if name in whole else value[row : row + 1].double()
            for name, value in inputs.items()
            if isinstance(value, Tensor)
        }
        text = one.pop("encoder_hidden_states")
        n_p, n_n = text.shape[1], 0 if negative is None else len(negative)
        if negative is not None:
            text = torch.cat([text, negative[None].double()], dim=1)
        one["txt_ids"] = torch.zeros(n_p + n_n, 3).double()
        n_i = len(one["img_ids"])
        kind = torch.tensor([1] * n_p + [2] * n_n + [0] * n_i)
        place = torch.cat([one["txt_ids"], one["img_ids"]])
        model = self.transformer
        for blocks, single in ((model.transformer_blocks, False), (model.single_transformer_blocks, True)):
            for block in blocks:
                block.attn.processor = _Masked(self, kind, place, model.config.axes_dims_rope, single)
        return model(encoder_hidden_states=text, **one, return_dict=False)[0][0]


class _Masked:
    def __init__(
        self, reference: Reference, kind: Tensor, place: Tensor, axes: tuple[int, ...], single: bool
    ) -> None:
        self.settings = reference.settings
        self.shares = reference.shares
        self.kind = kind
        self.single = single
        self.angles = torch.cat(
            [
                place[:, axis, None] * 10000 ** (-torch.arange(0, width, 2).double() / width)
                for axis, width in enumerate(axes)
            ],
            dim=1,
        )

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: None = None,
        image_rotary_emb: Any = None,
    ) -> Any:
        def heads(x: Tensor, linear: Any, norm: Any) -> Tensor:
            batch, length, _ = x.shape
            y = linear(x).view(batch, length, attn.heads, -1).permute(0, 2, 1, 3)
            return y if norm is None else norm(y)

        x = hidden_states
        q, k, v = (
            heads(x, attn.to_q, attn.norm_q),
            heads(x, attn.to_k, attn.norm_k),
            heads(x, attn.to_v, None),
        )
        if encoder_hidden_states is not None:
            x = encoder_hidden_states
            q = torch.cat([heads(x, attn.add_q_proj, attn.norm_added_q), q], 2)
            k = torch.cat([heads(x, attn.add_k_proj, attn.norm_added_k), k], 2)
            v = torch.cat([heads(x, attn.add_v_proj, None), v], 2)
        q, k = self.turned(q), self.turned(k)
        if 2 not in self.kind:
            out = self.over(q, k, v, torch.ones_like(self.kind, dtype=torch.bool))
        elif self.single and self.settings.blocks == "double":
            sees_n, ordinary = self.over(q, k, v, self.kind != 1), self.over(q, k, v, self.kind != 2)
            out = torch.where(self.kind[None, None, :, None] == 2, sees_n, ordinary)
        else:
            out = getattr(self, self.settings.method)(q, k, v, self.kind)
        out = out.permute(0, 2, 1, 3).flatten(2)
        if encoder_hidden_states is None:
            return out
        text = encoder_hidden_states.shape[1]
        return attn.to_out[0](out[:, text:]), attn.to_add_out(out[:, :text])

    def turned(self, x: Tensor) -> Tensor:
        a, b = x[..., 0::2], x[..., 1::2]
        cos, sin = self.angles.cos(), self.angles.sin()
        return torch.stack([a * cos - b * sin, b * cos + a * sin], -1).flatten(-2)

    def vsf(self, q: Tensor, k: Tensor, v: Tensor, kind: Tensor) -> Tensor:
        settings, n_n = self.settings, int((kind == 2).sum())
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
        self.shares.append(weights[0][:, kind == 0][..., columns == 3].sum(-1).mean(0))
        return weights @ values

    def over(self, q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
        logits = q @ k.mT / q.shape[-1] ** 0.5
        return logits.masked_fill(~seen, -torch.inf).softmax(-1) @ v

    def difference(self, q: Tensor, k: Tensor, v: Tensor, kind: Tensor) -> Tensor:
        """O_b - alpha w (O_n - O_b), with w the weight that N would have beside I and P."""
        settings = self.settings
        plus, minus = self.over(q, k, v, kind != 2), self.over(q, k, v, kind != 1)
        logits = q @ k.mT / q.shape[-1] ** 0.5 - settings.beta * (kind == 2)
        w = logits.softmax(-1)[..., kind == 2].sum(-1, keepdim=True)
        image = plus - settings.alpha * w * (self.over(q, k, v, kind == 2) - plus)
        return self.by_kind(kind, image, plus, minus)

    def nasa(self, q: Tensor, k: Tensor, v: Tensor, kind: Tensor) -> Tensor:
        plus, minus = self.over(q, k, v, kind != 2), self.over(q, k, v, kind != 1)
        return self.by_kind(kind, plus - self.settings.nasa_alpha * minus, plus, minus)

    def nag(self, q: Tensor, k: Tensor, v: Tensor, kind: Tensor) -> Tensor:
        settings = self.settings
        plus, minus = self.over(q, k, v, kind != 2), self.over(q, k, v, kind != 1)
        tilde = plus + settings.nag_phi * (plus - minus)
        size = tilde.abs().sum((1, 3), keepdim=True)
        limit = settings.nag_tau * plus.abs().sum((1, 3), keepdim=True)
        tilde = torch.where(size > limit, tilde * limit / size, tilde)
        image = settings.nag_alpha * tilde + (1 - settings.nag_alpha) * plus
        return self.by_kind(kind, image, plus, minus)

    @staticmethod
    def by_kind(kind: Tensor, image: Tensor, plus: Tensor, minus: Tensor) -> Tensor:
        place = kind[None, None, :, None]
        return torch.where(place == 0, image, torch.where(place == 1, plus, minus))
