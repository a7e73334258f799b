"""Wan's network and the methods again, written from their equations: one row at a time, in float64, with
explicit masks.

Reads the weights of a transformer by name and nothing else of it; shares no code with what is tested. N1 is
columns of its own behind the prompt's.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from vsf_lib.settings import Settings


def negative_embedding(pipe: Any, text: str, *, words_only: bool = False) -> Tensor:
    """`[n_n, C]`: the text alone through the encoder; with `words_only` without its end token."""
    ids = torch.tensor([pipe.tokenizer(text).input_ids])
    hidden = pipe.text_encoder(ids).last_hidden_state[0].detach()
    return hidden[:-1] if words_only else hidden


def padded_embedding(pipe: Any, text: str, length: int) -> Tensor:
    """`[length, C]`: a prompt is padded, the padding hidden from it, and its features then set to zero."""
    ids = pipe.tokenizer(text).input_ids
    room = length - len(ids)
    mask = torch.tensor([[1] * len(ids) + [0] * room])
    padded = torch.tensor([ids + [pipe.tokenizer.pad_token_id] * room])
    return pipe.text_encoder(padded, mask).last_hidden_state[0].detach() * mask[0][:, None]


class Reference:
    """A transformer's weights in float64, LoRA included; guided if there are settings."""

    def __init__(self, transformer: Any, settings: Settings | None) -> None:
        self.weights = {name: x.detach().double() for name, x in transformer.state_dict().items()}
        self.config = transformer.config
        self.settings = settings
        self.lora_scale = {
            name: module.scaling
            for name, module in transformer.named_modules()
            if isinstance(getattr(module, "scaling", None), dict)
        }
        self.shares: list[Tensor] = []

    def __call__(self, inputs: dict[str, Any], row: int, negative: Tensor | None = None) -> Tensor:
        """The output `[C, F, H, W]` for one row of a call."""
        self.shares = []
        latent = inputs["hidden_states"][row].double()
        _, frames, height, width = latent.shape
        places = (frames, height // 2, width // 2)
        x = self._patches(latent)
        time = self._time(inputs["timestep"][row])
        modulation = self._linear("condition_embedder.time_proj", _silu(time)).view(6, -1)
        text = self._text(inputs["encoder_hidden_states"][row].double())
        if negative is not None:
            negative = self._text(negative.double())
        image = inputs.get("encoder_hidden_states_image")
        if image is not None:
            image = self._image(image[row].double())
        angles = self._angles(*places)
        for i in range(self.config.num_layers):
            x = self._block(f"blocks.{i}", x, modulation, text, negative, image, angles)
        shift, scale = self.weights["scale_shift_table"][0] + time
        y = self._linear("proj_out", _layer_norm(x, self.config.eps) * (1 + scale) + shift)
        y = y.view(*places, 2, 2, -1).permute(5, 0, 1, 3, 2, 4)
        return y.reshape(-1, frames, height, width)

    def _block(
        self,
        name: str,
        x: Tensor,
        modulation: Tensor,
        text: Tensor,
        negative: Tensor | None,
        image: Tensor | None,
        angles: Tensor,
    ) -> Tensor:
        eps = self.config.eps
        table = self.weights[f"{name}.scale_shift_table"][0] + modulation
        shift, scale, gate, shift_2, scale_2, gate_2 = table
        h = _layer_norm(x, eps) * (1 + scale) + shift
        q, k = (_turn(self._heads(f"{name}.attn1", part, h), angles) for part in "qk")
        out = _softmax(q @ k.mT / _root(q)) @ self._heads(f"{name}.attn1", "v", h)
        x = x + gate * self._out(f"{name}.attn1", out)

        weight, bias = self.weights[f"{name}.norm2.weight"], self.weights[f"{name}.norm2.bias"]
        h = _layer_norm(x, eps) * weight + bias
        x = x + self._cross(f"{name}.attn2", h, text, negative, image)

        h = _layer_norm(x, eps) * (1 + scale_2) + shift_2
        h = _gelu_tanh(self._linear(f"{name}.ffn.net.0.proj", h))
        return x + gate_2 * self._linear(f"{name}.ffn.net.2", h)

    def _cross(
        self, name: str, h: Tensor, text: Tensor, negative: Tensor | None, image: Tensor | None
    ) -> Tensor:
        q, k, v = self._heads(name, "q", h), self._heads(name, "k", text), self._heads(name, "v", text)
        if negative is None or self.settings is None:
            out = _softmax(q @ k.mT / _root(q)) @ v
        else:
            k_n, v_n = self._heads(name, "k", negative), self._heads(name, "v", negative)
            out = getattr(self, self.settings.method)(q, k, v, k_n, v_n)
        if image is not None:
            k_i = _rms_norm(self._linear(f"{name}.add_k_proj", image), self._norm(f"{name}.norm_added_k"))
            v_i = self._split(self._linear(f"{name}.add_v_proj", image))
            out = out + _softmax(q @ self._split(k_i).mT / _root(q)) @ v_i
        return self._out(name, out)

    def vsf(self, q: Tensor, k: Tensor, v: Tensor, k_n: Tensor, v_n: Tensor) -> Tensor:
        settings, n_p = self.settings, k.shape[1]
        logits = q @ torch.cat([k, k_n], 1).mT / _root(q)
        is_n = torch.arange(logits.shape[-1]) >= n_p
        weights = _softmax(logits - settings.beta * is_n)
        self.shares.append(weights[..., is_n].sum(-1).mean(0))
        return weights @ torch.cat([v, -settings.alpha * v_n], 1)

    def difference(self, q: Tensor, k: Tensor, v: Tensor, k_n: Tensor, v_n: Tensor) -> Tensor:
        """O_b - alpha w (O_n - O_b), with w the weight that N would have beside P."""
        settings = self.settings
        plus, minus = _softmax(q @ k.mT / _root(q)) @ v, _softmax(q @ k_n.mT / _root(q)) @ v_n
        both = torch.cat([q @ k.mT / _root(q), q @ k_n.mT / _root(q) - settings.beta], -1)
        w = _softmax(both)[..., k.shape[1] :].sum(-1, keepdim=True)
        return plus - settings.alpha * w * (minus - plus)

    def nasa(self, q: Tensor, k: Tensor, v: Tensor, k_n: Tensor, v_n: Tensor) -> Tensor:
        plus, minus = _softmax(q @ k.mT / _root(q)) @ v, _softmax(q @ k_n.mT / _root(q)) @ v_n
        return plus - self.settings.nasa_alpha * minus

    def nag(self, q: Tensor, k: Tensor, v: Tensor, k_n: Tensor, v_n: Tensor) -> Tensor:
        settings = self.settings
        plus, minus = _softmax(q @ k.mT / _root(q)) @ v, _softmax(q @ k_n.mT / _root(q)) @ v_n
        out = torch.empty_like(plus)
        for token in range(plus.shape[1]):
            z_plus, z_minus = plus[:, token], minus[:, token]
            z = z_plus + settings.nag_phi * (z_plus - z_minus)
            ratio = z.abs().sum() / z_plus.abs().sum()
            if ratio > settings.nag_tau:
                z = z * settings.nag_tau / ratio
            out[:, token] = settings.nag_alpha * z + (1 - settings.nag_alpha) * z_plus
        return out

    def _patches(self, latent: Tensor) -> Tensor:
        """`[C, F, H, W]` to `[n_i, C']`, frame by frame, row by row."""
        channels, frames, height, width = latent.shape
        x = latent.view(channels, frames, height // 2, 2, width // 2, 2).permute(1, 2, 4, 0, 3, 5)
        weight = self.weights["patch_embedding.weight"].flatten(1)
        return x.reshape(-1, channels * 4) @ weight.T + self.weights["patch_embedding.bias"]

    def _time(self, timestep: Tensor) -> Tensor:
        half = self.config.freq_dim // 2
        # In float32, as the model has it: an angle near 1000 is not the same one in float64.
        rates = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32) / half)
        angle = timestep.float() * rates
        x = torch.cat([angle.cos(), angle.sin()]).double()
        x = _silu(self._linear("condition_embedder.time_embedder.linear_1", x))
        return self._linear("condition_embedder.time_embedder.linear_2", x)

    def _text(self, x: Tensor) -> Tensor:
        x = _gelu_tanh(self._linear("condition_embedder.text_embedder.linear_1", x))
        return self._linear("condition_embedder.text_embedder.linear_2", x)

    def _image(self, x: Tensor) -> Tensor:
        name = "condition_embedder.image_embedder"
        for norm in ("norm1", "norm2"):
            if norm == "norm2":
                x = self._linear(f"{name}.ff.net.0.proj", x)
                x = self._linear(f"{name}.ff.net.2", 0.5 * x * (1 + torch.erf(x / math.sqrt(2))))
            x = _layer_norm(x, 1e-5) * self.weights[f"{name}.{norm}.weight"]
            x = x + self.weights[f"{name}.{norm}.bias"]
        return x

    def _angles(self, frames: int, height: int, width: int) -> Tensor:
        """`[n_i, D / 2]`: the first pairs of a head turn with the frame, then with the row, the column."""
        dim = self.config.attention_head_dim
        side = 2 * (dim // 6)
        grid = torch.cartesian_prod(*(torch.arange(n).double() for n in (frames, height, width)))
        parts = []
        for axis, d in enumerate((dim - 2 * side, side, side)):
            rates = 10000.0 ** -(torch.arange(0, d, 2).double() / d)
            parts.append(grid[:, axis : axis + 1] * rates)
        return torch.cat(parts, 1)

    def _heads(self, name: str, part: str, x: Tensor) -> Tensor:
        y = self._linear(f"{name}.to_{part}", x)
        return self._split(y if part == "v" else _rms_norm(y, self._norm(f"{name}.norm_{part}")))

    def _norm(self, name: str) -> tuple[Tensor, float]:
        return self.weights[f"{name}.weight"], self.config.eps

    def _split(self, y: Tensor) -> Tensor:
        return y.view(len(y), self.config.num_attention_heads, -1).transpose(0, 1)

    def _out(self, name: str, out: Tensor) -> Tensor:
        return self._linear(f"{name}.to_out.0", out.transpose(0, 1).flatten(1))

    def _linear(self, name: str, x: Tensor) -> Tensor:
        weights = self.weights
        if f"{name}.weight" in weights:
            return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
        y = x @ weights[f"{name}.base_layer.weight"].T + weights[f"{name}.base_layer.bias"]
        for adapter, scale in self.lora_scale[name].items():
            down, up = weights[f"{name}.lora_A.{adapter}.weight"], weights[f"{name}.lora_B.{adapter}.weight"]
            y = y + scale * (x @ down.T @ up.T)
        return y


def _softmax(logits: Tensor) -> Tensor:
    raised = torch.exp(logits - logits.amax(-1, keepdim=True))
    return raised / raised.sum(-1, keepdim=True)


def _root(q: Tensor) -> float:
    return math.sqrt(q.shape[-1])


def _silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def _gelu_tanh(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _layer_norm(x: Tensor, eps: float) -> Tensor:
    x = x - x.mean(-1, keepdim=True)
    return x / torch.sqrt(x.square().mean(-1, keepdim=True) + eps)


def _rms_norm(x: Tensor, norm: tuple[Tensor, float]) -> Tensor:
    weight, eps = norm
    return x / torch.sqrt(x.square().mean(-1, keepdim=True) + eps) * weight


def _turn(x: Tensor, angles: Tensor) -> Tensor:
    """Rotary positions: each pair of neighbours in a head `[H, n, D]` turns by its angle."""
    a, b = x[..., 0::2], x[..., 1::2]
    cos, sin = angles.cos(), angles.sin()
    return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2)
