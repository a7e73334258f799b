"""What the host hands to its callback before sampling, read for the size of the calls that are to come.

Owns the host's forms of conditioning as far as sizes go. An estimate for memory management: what it cannot
read it leaves out, and nothing fails for it.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor

from vsf_lib.adapters.forge_memory import Call, extra_bytes
from vsf_lib.adapters.forge_network import ForgeNetwork
from vsf_lib.webui.encoding import Schedule

log = logging.getLogger("vsf")


def declare(
    unet: Any, network: ForgeNetwork, method: str, schedule: Schedule, x: Any, c: Any, uc: Any
) -> None:
    """Asks the host to keep free what guidance needs while it samples with the patched model `unet`."""
    ask = getattr(unet, "add_extra_preserved_memory_during_sampling", None)
    call = largest_call(unet, x, c, uc, schedule)
    if ask is None or call is None:
        return
    extra = extra_bytes(network, unet.model.diffusion_model, method, call)
    log.debug("guidance needs %.1f MB beside the model", extra / 2**20)
    ask(extra)


def largest_call(unet: Any, x: Any, c: Any, uc: Any, schedule: Schedule) -> Call | None:
    """The largest call of the model in a pass from latents `x` `[B, C, h, w]`; None if those are not told.

    `c` holds each picture's prompts (several with AND), `uc` the unconditional ones, None at CFG 1. The host
    lines all of them up in one call if it has the memory.
    """
    if not isinstance(x, Tensor) or x.ndim != 4 or not schedule.longest:
        return None
    pictures = list(getattr(c, "batch", None) or [])
    prompts = max((len(picture) for picture in pictures), default=1)
    texts = [getattr(prompt, "schedules", ()) for picture in pictures for prompt in picture]
    texts += list(uc) if isinstance(uc, list) else []
    return Call(
        rows=len(x) * (prompts + (uc is not None)),
        latent=(x.shape[2], x.shape[3]),
        n_p=max((_tokens(entry) for entries in texts for entry in entries), default=0),
        n_n=schedule.longest,
        text_width=schedule.width,
        dtype=getattr(unet.model, "computation_dtype", torch.float32),
    )


def _tokens(entry: Any) -> int:
    cond = getattr(entry, "cond", None)
    text = cond.get("crossattn") if isinstance(cond, dict) else cond
    return len(text) if isinstance(text, Tensor) else 0
