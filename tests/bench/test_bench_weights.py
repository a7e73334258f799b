"""Weights on embeddings against the WebUIs' arithmetic, encoder by encoder."""

from __future__ import annotations

from typing import Any

import pytest
import tiny_flux
import tiny_sd3
import torch
from torch import Tensor

from vsf_lib.adapters import encode_negatives
from vsf_lib.bench.weights import token_factors, weighted_embeddings
from vsf_lib.errors import ModelError
from vsf_lib.settings import Settings

ALL = Settings()
WORDS = Settings(negative_tokens="words")
TEXT = "blue wheels"


@pytest.fixture(scope="module")
def sd3() -> Any:
    return tiny_sd3.make_pipeline()


@pytest.fixture(scope="module")
def flux() -> Any:
    return tiny_flux.make_pipeline()


def emphasised(features: Tensor, ids: list[int], special: set[int], weight: float) -> Tensor:
    """As the WebUIs do with one chunk `[n, C]`: multiply, then bring the mean back."""
    factors = torch.tensor([1.0 if i in special else weight for i in ids])
    weighted = features * factors[:, None]
    return weighted * (features.mean() / weighted.mean())


def test_factors(sd3: Any, flux: Any) -> None:
    assert token_factors(sd3, ALL, [TEXT, "red roof"], 1.5) == [1, 1.5, 1.5, 1, 1.5, 1.5, 1]
    assert token_factors(sd3, WORDS, [TEXT], 1.5) == [1.5] * 4
    assert token_factors(flux, ALL, [TEXT], 0.5) == [0.5, 0.5, 1]
    assert token_factors(tiny_sd3.make_pipeline(t5=False), ALL, ["wheels"], 2.0) == [1, 2, 1]
    with pytest.raises(ModelError, match=r"have \[5, 7\] tokens"):
        token_factors(sd3, ALL, [TEXT, "wheels"], 1.5)


@pytest.mark.parametrize("settings", [ALL, WORDS], ids=lambda s: s.negative_tokens)
def test_plain_weights_multiply_the_words(sd3: Any, flux: Any, settings: Settings) -> None:
    for pipe in (sd3, flux):
        factors = torch.tensor(token_factors(pipe, settings, [TEXT], 1.5))
        (plain,) = encode_negatives(pipe, settings, [TEXT])
        (got,) = weighted_embeddings(pipe, settings, [TEXT], weight=1.5, renormalised=False)
        torch.testing.assert_close(got, plain * factors[:, None])


def test_renormalised_as_the_webuis_do(sd3: Any, flux: Any) -> None:
    special = {0, 1, 2}
    (got,) = weighted_embeddings(sd3, ALL, [TEXT], weight=1.5, renormalised=True)
    ids = sd3.tokenizer(TEXT, padding="max_length", max_length=tiny_sd3.CLIP_LENGTH).input_ids
    hidden = [
        encoder(torch.tensor([ids]), output_hidden_states=True).hidden_states[-2][0].detach()
        for encoder in (sd3.text_encoder, sd3.text_encoder_2)
    ]
    clip = torch.cat([emphasised(features, ids, special, 1.5) for features in hidden], 1)[:4]
    t5_ids = sd3.tokenizer_3(TEXT).input_ids
    t5_features = sd3.text_encoder_3(torch.tensor([t5_ids])).last_hidden_state[0].detach()
    t5 = emphasised(t5_features, t5_ids, {1}, 1.5)
    torch.testing.assert_close(got[:4, : clip.shape[1]], clip, atol=1e-5, rtol=1e-4)
    assert not got[:4, clip.shape[1] :].any()
    torch.testing.assert_close(got[4:], t5, atol=1e-5, rtol=1e-4)

    (words,) = weighted_embeddings(sd3, WORDS, [TEXT], weight=1.5, renormalised=True)
    torch.testing.assert_close(words, torch.cat([got[1:3], got[4:6]]))

    (of_flux,) = weighted_embeddings(flux, ALL, [TEXT], weight=1.5, renormalised=True)
    ids = flux.tokenizer_2(TEXT).input_ids
    features = flux.text_encoder_2(torch.tensor([ids])).last_hidden_state[0].detach()
    torch.testing.assert_close(of_flux, emphasised(features, ids, {1}, 1.5), atol=1e-5, rtol=1e-4)
