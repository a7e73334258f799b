"""Captions to the text sequence that SD3 reads: as its pipeline makes it, but batched and differentiable."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vsf_lib.scenes.training.common import PlainAttention
from vsf_lib.scenes.training.networks import CLIP_LENGTH, T5_LENGTH, Networks, build_tokenizer

LONG = 256
"""diffusers' default max_sequence_length: plain `pipe(prompt)` calls pad T5 to this."""


def encode(networks: Networks, clip_ids: Tensor, t5_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Text `[B, n_clip + n_t5, 128]` and pooled vector `[B, 128]` of token ids `[B, n_clip]`, `[B, n_t5]`."""
    with PlainAttention():
        left = networks.clip_l(clip_ids, output_hidden_states=True)
        right = networks.clip_g(clip_ids, output_hidden_states=True)
    clip = torch.cat([left.hidden_states[-2], right.hidden_states[-2]], dim=-1)
    t5 = networks.t5(t5_ids)[0]
    return torch.cat([clip, t5.to(clip.dtype)], dim=1), torch.cat([left[0], right[0]], dim=-1)


class Captions:
    """Tokenised captions, several per scene, and batches of them in the lengths that the model must know.

    Mostly padded as the pipeline pads; now and then without any padding, as a negative prompt is encoded; now
    and then padded to 256.
    """

    def __init__(self, captions: Sequence[Sequence[str]]) -> None:
        clip, t5 = build_tokenizer(begin=True), build_tokenizer(begin=False)
        flat = [text for row in captions for text in row]
        shape = (len(captions), len(captions[0]), -1)
        self._clip = torch.tensor(
            clip(flat, padding="max_length", truncation=True, max_length=CLIP_LENGTH).input_ids
        ).view(shape)
        self._t5 = torch.tensor(
            t5(flat, padding="max_length", truncation=True, max_length=T5_LENGTH).input_ids
        ).view(shape)
        self._lengths = (self._clip != 0).sum(-1)
        empty = clip([""], padding="max_length", max_length=CLIP_LENGTH).input_ids
        self._empty_clip, self._empty_t5 = (
            torch.tensor(empty[0]),
            torch.tensor(t5([""], padding="max_length", max_length=T5_LENGTH).input_ids[0]),
        )

    def padded(self, scenes: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The first caption of each of `scenes`, padded as `generate` pads."""
        index = torch.tensor(list(scenes))
        return self._clip[index, 0], self._t5[index, 0]

    def empty(self) -> tuple[Tensor, Tensor]:
        """The empty caption, `[1, n]` each."""
        return self._empty_clip[None], self._empty_t5[None]

    def is_empty(self, clip: Tensor) -> Tensor:
        """Which of the captions `[n, length]`, by CLIP's ids, are the empty one: `[n]` bool."""
        return (clip == self._empty_clip[: clip.shape[1]]).all(1)

    def random(
        self, rng: np.random.Generator, size: int, dropped: float
    ) -> tuple[np.ndarray, Tensor, Tensor]:
        """Scene indices `[n]` and padded CLIP and T5 ids of any of their captions, a share of them empty."""
        scenes = rng.integers(len(self._clip), size=size)
        index, which = (
            torch.from_numpy(scenes),
            torch.from_numpy(rng.integers(self._clip.shape[1], size=size)),
        )
        clip, t5 = self._clip[index, which].clone(), self._t5[index, which].clone()
        empty = torch.from_numpy(rng.random(size) < dropped)
        clip[empty], t5[empty] = self._empty_clip, self._empty_t5
        return scenes, clip, t5

    def batch(self, rng: np.random.Generator, size: int, dropped: float) -> tuple[np.ndarray, Tensor, Tensor]:
        """Scene indices `[n]`, CLIP ids, T5 ids; a share `dropped` of padded captions is empty (for CFG)."""
        mode = rng.random()
        if mode < 0.04:
            size = max(1, size // 4)
        scenes = rng.integers(len(self._clip), size=size)
        which = torch.from_numpy(rng.integers(self._clip.shape[1], size=size))
        if 0.04 <= mode < 0.16:
            length = int(self._lengths[scenes[0], which[0]])
            rows, columns = torch.nonzero(self._lengths == length, as_tuple=True)
            chosen = torch.from_numpy(rng.integers(len(rows), size=size))
            scenes, which = rows[chosen].numpy(), columns[chosen]
            index = torch.from_numpy(scenes)
            return scenes, self._clip[index, which, :length], self._t5[index, which, : length - 1]
        index = torch.from_numpy(scenes)
        clip, t5 = self._clip[index, which].clone(), self._t5[index, which].clone()
        empty = torch.from_numpy(rng.random(size) < dropped)
        clip[empty], t5[empty] = self._empty_clip, self._empty_t5
        if mode < 0.04:
            t5 = torch.nn.functional.pad(t5, (0, LONG - T5_LENGTH))
        return scenes, clip, t5
