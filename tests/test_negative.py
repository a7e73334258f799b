"""Negative embeddings: no padding takes part, nothing real is lost, and equation 10."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from vsf_lib.errors import ModelError, PromptError
from vsf_lib.negative import (
    TextEncoder,
    encode_unpadded,
    extrapolate_negative,
    join_clip_and_t5,
    padding_mean,
    stack_rows,
)

WORDS = ["wheels", "roof", "a", "red", "car", "house", "on", "the", "field", "sail"]


def tokenizer(template: str) -> PreTrainedTokenizerFast:
    """One that knows its special tokens only by its template, as a generic fast tokenizer does."""
    special = [token for token in template.split() if token.startswith("<")]
    vocabulary = {word: i for i, word in enumerate(["<pad>", "<unk>", *special, *WORDS])}
    backend = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = Whitespace()
    backend.post_processor = TemplateProcessing(
        single=template, special_tokens=[(token, vocabulary[token]) for token in special]
    )
    backend.enable_padding(length=12)  # a saved tokenizer may carry this; it must not act
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", unk_token="<unk>")


CLIP_TOKENIZER = tokenizer("<bos> $A <eos>")
T5_TOKENIZER = tokenizer("$A </s>")


def lively(model: Any) -> Any:
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, 0.5)
    return model.eval()


def clip(limit: int = 16) -> TextEncoder:
    config = CLIPTextConfig(
        vocab_size=20,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        bos_token_id=2,
        eos_token_id=3,
    )
    model = lively(CLIPTextModel(config))
    return TextEncoder(CLIP_TOKENIZER, lambda ids: model(ids).last_hidden_state.detach(), limit, True)


def t5(limit: int = 512) -> TextEncoder:
    model = lively(
        T5EncoderModel(T5Config(vocab_size=20, d_model=8, d_kv=4, d_ff=16, num_layers=2, num_heads=2))
    )
    return TextEncoder(T5_TOKENIZER, lambda ids: model(ids).last_hidden_state.detach(), limit, False)


def echo(tokenizer: Any, limit: int, chunked: bool) -> TextEncoder:
    """The ids themselves as features: shows what would go into an encoder."""
    return TextEncoder(tokenizer, lambda ids: ids[..., None].float(), limit, chunked)


def ids_of(text: str, encoder: TextEncoder) -> list[int]:
    return encode_unpadded(text, encoder)[:, 0].int().tolist()


def test_clip_is_what_a_slice_of_the_padded_encoding_is() -> None:
    encoder = clip()
    ids = CLIP_TOKENIZER("wheels roof", padding="max_length", max_length=16).input_ids
    assert len(ids) == 16
    padded = encoder.features(torch.tensor([ids]))[0]
    unpadded = encode_unpadded("wheels roof", encoder)
    assert unpadded.shape == (4, 8)  # begin, two words, the first end
    torch.testing.assert_close(unpadded, padded[:4], atol=1e-5, rtol=1e-5)


def test_t5_is_not_what_a_slice_of_the_padded_encoding_is() -> None:
    encoder = t5()
    ids = T5_TOKENIZER("wheels roof", padding="max_length", max_length=16).input_ids
    padded = encoder.features(torch.tensor([ids]))[0]
    unpadded = encode_unpadded("wheels roof", encoder)
    assert unpadded.shape == (3, 8)
    assert (unpadded - padded[:3]).abs().max() > 0.05
    torch.testing.assert_close(unpadded, encoder.features(torch.tensor([ids[:3]]))[0])


@hypothesis_settings(deadline=None)
@given(st.lists(st.sampled_from([*WORDS, "unknown"]), min_size=1, max_size=40), st.integers(3, 12))
def test_chunks_keep_every_word_in_order_in_its_own_frame(words: list[str], limit: int) -> None:
    ids = ids_of(" ".join(words), echo(CLIP_TOKENIZER, limit, chunked=True))
    begin, end = CLIP_TOKENIZER.convert_tokens_to_ids(["<bos>", "<eos>"])
    assert [i for i in ids if i not in (begin, end)] == CLIP_TOKENIZER.convert_tokens_to_ids(words)
    assert CLIP_TOKENIZER.pad_token_id not in ids
    chunks = -(-len(words) // (limit - 2))
    assert ids.count(begin) == ids.count(end) == chunks
    assert [i for i, token in enumerate(ids) if token == begin] == [n * limit for n in range(chunks)]


@pytest.mark.parametrize("make", [clip, t5])
def test_words_alone_are_a_part_of_the_whole(make: Any) -> None:
    encoder = make()
    whole = encode_unpadded("wheels roof", encoder)
    words = encode_unpadded("wheels roof", encoder, words_only=True)
    begin = 1 if make is clip else 0
    assert torch.equal(words, whole[begin : begin + 2])
    chunked = echo(CLIP_TOKENIZER, 4, chunked=True)
    ids = encode_unpadded("a red car on the field", chunked, words_only=True)[:, 0].int().tolist()
    assert ids == CLIP_TOKENIZER.convert_tokens_to_ids(["a", "red", "car", "on", "the", "field"])


def test_a_text_too_long_for_t5_loses_its_end_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    encoder = echo(T5_TOKENIZER, 4, chunked=False)
    with caplog.at_level(logging.WARNING, "vsf"):
        assert ids_of("a red car", encoder) == T5_TOKENIZER.convert_tokens_to_ids(["a", "red", "car", "</s>"])
        assert not caplog.records
        assert ids_of("a red car on the field", encoder) == T5_TOKENIZER.convert_tokens_to_ids(
            ["a", "red", "car", "</s>"]
        )
    assert "6 tokens, the encoder takes 3" in caplog.text


def test_a_text_without_tokens_and_an_encoder_without_room_are_refused() -> None:
    with pytest.raises(PromptError, match="has no token"):
        encode_unpadded("  ", echo(CLIP_TOKENIZER, 16, chunked=True))
    with pytest.raises(ModelError, match="takes 2 tokens"):
        encode_unpadded("wheels", echo(CLIP_TOKENIZER, 2, chunked=True))


def test_clip_features_lie_side_by_side_and_t5_follows() -> None:
    small, large, text = torch.ones(3, 2), 2 * torch.ones(3, 4), 3 * torch.ones(2, 10)
    joined = join_clip_and_t5([small, large], text, 10)
    assert joined.shape == (5, 10)
    assert joined[0].tolist() == [1, 1, 2, 2, 2, 2, 0, 0, 0, 0]
    assert joined[3:].eq(3).all()
    assert torch.equal(join_clip_and_t5([small, large], None, 10), joined[:3])


def test_a_shorter_clip_encoding_repeats_its_end() -> None:
    short, long = torch.tensor([[1.0], [2.0]]), torch.tensor([[5.0], [6.0], [7.0], [8.0]])
    assert join_clip_and_t5([short, long], None, 2).tolist() == [[1, 5], [2, 6], [2, 7], [2, 8]]


def test_rows_of_one_length_need_no_mask() -> None:
    stacked, mask = stack_rows([torch.ones(3, 2), torch.zeros(3, 2)])
    assert stacked.shape == (2, 3, 2)
    assert mask is None


def test_rows_of_several_lengths_are_masked() -> None:
    rows = [torch.ones(1, 2), torch.ones(3, 2)]
    stacked, mask = stack_rows(rows)
    assert mask is not None
    assert mask.tolist() == [[True, False, False], [True, True, True]]
    for row, expected, real in zip(stacked, rows, mask, strict=True):
        assert torch.equal(row[real], expected)
        assert row[~real].eq(0).all()


def test_equation_10() -> None:
    p_neg = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    p0 = torch.tensor([1.0, 1.0])
    assert extrapolate_negative(p_neg, p0, 8).tolist() == [[1, 10], [19, 28]]
    assert torch.equal(extrapolate_negative(p_neg, p0, 0), p_neg)


def test_no_text_is_256_tokens_of_padding_and_nothing_else() -> None:
    seen = []

    def features(ids: Tensor) -> Tensor:
        seen.append(ids)
        return torch.arange(ids.shape[1]).half()[None, :, None] * torch.tensor([1.0, 2.0]).half()

    encoder = TextEncoder(tokenizer("$A </s>"), features, 512, chunked=False)
    encoder.tokenizer.pad_token = "red"
    mean = padding_mean(encoder)
    assert seen[0].tolist() == [encoder.tokenizer.convert_tokens_to_ids(["red"]) * 256]
    assert mean.tolist() == [127.5, 255.0]
    assert mean.dtype == torch.float32
