"""Encoded negative prompts, kept from one generation to the next.

Owns what they depend on beside their text: which encoders, the numbers in them (another checkpoint in one
object, a LoRA that was fused, loaded, scaled or switched off), tokenizers, and what the pipeline was asked
for. An object that its owner makes, bounds and drops; it keeps no model alive. Knows no network.
"""

from __future__ import annotations

import hashlib
import logging
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

log = logging.getLogger("vsf")

T = TypeVar("T")

_ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")
_TOKENIZERS = ("tokenizer", "tokenizer_2", "tokenizer_3")
_ASKED = ("device", "clip_skip", "max_sequence_length", "lora_scale")
"""Those arguments of `encode_prompt` that change what it makes of one text."""

_NUMBERS = 64
"""How many are read of each weight. What changes a weight in practice changes nearly all of its numbers."""


@dataclass(frozen=True)
class _Kept:
    encoders: tuple[weakref.ref[nn.Module], ...]
    value: Any


class NegativeCache:
    """Give the same one to each `guided` or `encode_negatives` of a series of pictures."""

    def __init__(self, size: int = 32) -> None:
        """`size` is how many lists of texts are kept; the longest unused goes first."""
        if size < 1:
            raise ValueError(f"a cache of {size} texts keeps nothing: leave it out")
        self._size = size
        self._kept: OrderedDict[Hashable, _Kept] = OrderedDict()
        self.hits = 0
        """How often nothing had to be encoded."""

    def __len__(self) -> int:
        return len(self._kept)

    def clear(self) -> None:
        self._kept.clear()

    def get(self, pipe: Any, what: Hashable, arguments: Mapping[str, Any], make: Callable[[], T]) -> T:
        """What `make` gave when the same was asked of the same encoders in the same state, or gives now.

        `arguments` are what `encode_prompt` gets. Encoders whose numbers cannot be read (they are offloaded
        to a place without any) are asked each time.
        """
        encoders = _parts(pipe, _ENCODERS)
        numbers = fingerprint(encoders)
        if numbers is None:
            return make()
        tokenizers = tuple((id(part), len(part)) for part in _parts(pipe, _TOKENIZERS))
        asked = tuple(str(arguments.get(name)) for name in _ASKED)
        key = (tuple(map(id, encoders)), numbers, tokenizers, asked, what)
        found = self._kept.get(key)
        if found is not None and all(
            ref() is encoder for ref, encoder in zip(found.encoders, encoders, strict=True)
        ):
            self._kept.move_to_end(key)
            self.hits += 1
            value: T = found.value
            return value
        made = make()
        self._kept[key] = _Kept(tuple(map(weakref.ref, encoders)), made)
        self._kept.move_to_end(key)
        while len(self._kept) > self._size:
            self._kept.popitem(last=False)
        return made


def _parts(pipe: Any, names: Iterable[str]) -> list[Any]:
    return [part for name in names if (part := getattr(pipe, name, None)) is not None]


def fingerprint(models: Sequence[nn.Module]) -> bytes | None:
    """What tells one state of the models' numbers from another; None where they cannot be read.

    Names, shapes and some numbers of all weights, LoRA's included, and how LoRA is set. One wait for each
    device.
    """
    found = hashlib.blake2b(digest_size=16)
    samples: dict[torch.device, list[Tensor]] = {}
    try:
        for model in models:
            for name, weight in (*model.named_parameters(), *model.named_buffers()):
                if weight.device.type == "meta":
                    return None
                found.update(f"{name} {weight.dtype} {tuple(weight.shape)} ".encode())
                samples.setdefault(weight.device, []).append(_sample(weight.detach()))
            for name, module in model.named_modules():
                if hasattr(module, "scaling"):  # a layer with LoRA
                    set_to = (getattr(module, part, None) for part in _LORA)
                    found.update(f"{name} {[str(part) for part in set_to]} ".encode())
        for numbers in samples.values():
            found.update(torch.cat(numbers).cpu().numpy().tobytes())
    except (RuntimeError, NotImplementedError, TypeError) as error:  # quantised in a way of its own
        log.debug("negative prompts are encoded each time: %s", error)
        return None
    return found.digest()


_LORA = ("scaling", "active_adapters", "merged_adapters", "disable_adapters")


def _sample(weight: Tensor) -> Tensor:
    """Some numbers of a weight from its beginning to its end, as bytes."""
    flat = weight.reshape(-1)
    return flat[:: max(1, flat.numel() // _NUMBERS)].contiguous().view(torch.uint8)
