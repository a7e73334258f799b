"""What guidance will need beside the model in a host of the Forge family, for its memory management.

Owns the way from latents and texts to the shapes of the attention that is to come. An estimate: a model that
does not say how large it is has none. Knows a network only through `ForgeNetwork`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch import nn

from vsf_lib.adapters.forge_network import ForgeNetwork
from vsf_lib.attention.memory import JointShape, joint_extra_bytes

log = logging.getLogger("vsf")

_CHANNELS_OF_A_TOKEN = 24
"""What a block keeps of one token at its worst, in widths of the model: a single block of Flux has the token,
its norm, q, k, v, the MLP's 4 before and after the activation and joined, and the result."""


@dataclass(frozen=True)
class Call:
    """The largest call of the model that a pass may make."""

    rows: int
    latent: tuple[int, int]
    """Height and width of the latents."""
    n_p: int
    n_n: int
    text_width: int
    dtype: torch.dtype


def extra_bytes(network: ForgeNetwork, model: nn.Module, method: str, call: Call) -> int:
    """An upper bound of what guidance by `method` adds to the peak of such a call; 0 if that is unknown.

    That of one attention and of N elsewhere: where a model's own peak is its MLPs', guidance adds less.
    """
    try:
        heads, width, patch = network.size(model)
    except AttributeError as error:
        log.debug("the memory that guidance needs is not declared: %s", error)
        return 0
    n_i = -(-call.latent[0] // patch) * -(-call.latent[1] // patch)
    itemsize = call.dtype.itemsize
    shape = JointShape(call.rows, heads, width, n_i, call.n_p, call.n_n, itemsize)
    tokens = call.n_n * heads * width * _CHANNELS_OF_A_TOKEN
    text = (2 * call.n_n + call.n_p) * call.text_width  # N as it is kept, and joined to the prompt
    return joint_extra_bytes(method, shape) + call.rows * (tokens + text) * itemsize
