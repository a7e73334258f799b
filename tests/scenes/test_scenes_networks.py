"""The untrained model: its tokenizers, its size, and that diffusers loads what it saves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from diffusers.utils.logging import disable_progress_bar

from vsf_lib.scenes.model import MAX_SEQUENCE_LENGTH, MAX_WORDS, SIZE
from vsf_lib.scenes.training.networks import CLIP_LENGTH, T5_LENGTH, Networks, build_tokenizer
from vsf_lib.scenes.world import WORDS


@pytest.mark.parametrize("begin", [True, False], ids=["clip", "t5"])
def test_one_token_a_word(begin: bool) -> None:
    tokenizer = build_tokenizer(begin=begin)
    frame = 2 if begin else 1
    ids = []
    for word in WORDS:
        got = tokenizer(word).input_ids
        assert len(got) == 1 + frame, word
        ids.append(got[-2])
    assert len(set(ids)) == len(WORDS)
    assert not set(ids) & set(tokenizer.all_special_ids)
    assert tokenizer(" ".join(WORDS)).input_ids[-1 - len(ids) : -1] == ids
    assert len(tokenizer) == len(WORDS) + 4


def test_frames() -> None:
    clip, t5 = build_tokenizer(begin=True), build_tokenizer(begin=False)
    for tokenizer in (clip, t5):
        assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 3)
        assert tokenizer.unk_token_id == 2
    red, car = clip("red car", add_special_tokens=False).input_ids
    assert clip("Red car").input_ids == [1, red, car, 3]
    assert t5("red CAR").input_ids == [red, car, 3]
    assert t5("green").input_ids == [2, 3]
    assert t5("red,car").input_ids == [red, WORDS.index(",") + 4, car, 3]
    assert clip("car", padding="max_length").input_ids == [1, car, 3] + [0] * (CLIP_LENGTH - 3)
    assert t5("", padding="max_length", max_length=4).input_ids == [3, 0, 0, 0]


def test_lengths_agree() -> None:
    assert CLIP_LENGTH == MAX_WORDS + 2
    assert T5_LENGTH == MAX_SEQUENCE_LENGTH
    assert build_tokenizer(begin=True).model_max_length == CLIP_LENGTH
    assert build_tokenizer(begin=False).model_max_length == 256


def test_architecture_is_that_of_sd35_medium(untrained: Any) -> None:
    config = untrained.transformer.config
    assert config.qk_norm == "rms_norm"
    blocks = untrained.transformer.transformer_blocks
    assert 0 < len(config.dual_attention_layers) < len(blocks)
    dual = [i for i, block in enumerate(blocks) if block.attn2 is not None]
    assert dual == list(config.dual_attention_layers)
    assert blocks[-1].context_pre_only
    assert config.sample_size * 2 ** (len(untrained.vae.config.block_out_channels) - 1) == SIZE
    assert config.in_channels == untrained.vae.config.latent_channels
    for encoder in (untrained.text_encoder, untrained.text_encoder_2, untrained.text_encoder_3):
        assert encoder.config.vocab_size == len(WORDS) + 4


def test_all_weights_fit_in_10_megabytes_of_half_precision(untrained: Any) -> None:
    networks = Networks.of(untrained)
    modules = [networks.vae, *networks.learners()]
    assert sum(p.numel() for m in modules for p in (*m.parameters(), *m.buffers())) * 2 < 10_000_000


def test_text_encoders_start_differently(untrained: Any) -> None:
    left, right = untrained.text_encoder.state_dict(), untrained.text_encoder_2.state_dict()
    assert any(not torch.equal(left[name], right[name]) for name in left)


@torch.inference_mode()
def test_saved_folder_loads_by_plain_from_pretrained(untrained: Any, tmp_path: Path) -> None:
    untrained.save_pretrained(tmp_path)
    disable_progress_bar()
    loaded = StableDiffusion3Pipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert loaded.scheduler.config.shift == untrained.scheduler.config.shift
    drawn = []
    for pipe in (untrained, loaded):
        generator = torch.Generator().manual_seed(1)
        result = pipe(
            "a red car on a field",
            num_inference_steps=1,
            guidance_scale=1.0,
            height=SIZE,
            width=SIZE,
            generator=generator,
            output_type="latent",
        )
        drawn.append(result.images)
    assert drawn[0].shape == (1, 8, 16, 16)
    # Not bit for bit: weights that lie elsewhere in memory are added up in another order.
    torch.testing.assert_close(*drawn, atol=1e-4, rtol=1e-4)
    assert loaded.tokenizer("a red car").input_ids == untrained.tokenizer("a red car").input_ids
    assert loaded.tokenizer_3("a red car").input_ids == untrained.tokenizer_3("a red car").input_ids
