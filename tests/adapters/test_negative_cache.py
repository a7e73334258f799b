"""Encoded negatives across generations: encoded once, and anew whenever the encoders differ."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import tiny_flux
import tiny_sd3
import tiny_wan
import torch
from torch import Tensor, nn

from vsf_lib.adapters import NegativeCache, encode_negatives, guided
from vsf_lib.settings import Settings

VSF = Settings(negative_prompt="wheels", alpha=1.5, beta=0.3)
TINY: dict[str, Any] = {"sd3": tiny_sd3, "flux": tiny_flux, "wan": tiny_wan}
T5 = {"sd3": "text_encoder_3", "flux": "text_encoder_2", "wan": "text_encoder"}


class Runs:
    """How often a module ran."""

    def __init__(self, module: nn.Module) -> None:
        self.count = 0
        module.register_forward_pre_hook(self._run)

    def _run(self, *_: Any) -> None:
        self.count += 1


@pytest.mark.parametrize("kind", list(TINY))
def test_the_negative_is_encoded_once_for_many_generations(kind: str) -> None:
    tiny = TINY[kind]
    pipe, cache = tiny.make_pipeline(), NegativeCache()
    with guided(pipe, VSF):
        wanted = tiny.generate(pipe, num_inference_steps=2)
    runs = Runs(getattr(pipe, T5[kind]))
    tiny.generate(pipe, num_inference_steps=1)
    prompt = runs.count
    for number in range(3):
        runs.count = 0
        with guided(pipe, VSF, cache=cache):
            found = tiny.generate(pipe, num_inference_steps=2)
        assert torch.equal(found, wanted)
        assert runs.count == prompt + (number == 0)
    assert (cache.hits, len(cache)) == (2, 1)


def test_padding_and_pooled_embeddings_are_kept_too() -> None:
    pipe, cache = tiny_flux.make_pipeline(), NegativeCache()
    settings = VSF.changed(negative_scale=2.0, pooled_shift=0.5)
    with guided(pipe, settings):
        wanted = tiny_flux.generate(pipe, num_inference_steps=1)
    runs = Runs(pipe.text_encoder), Runs(pipe.text_encoder_2)
    tiny_flux.generate(pipe, num_inference_steps=1)
    prompt = [run.count for run in runs]
    for number in range(2):
        for run in runs:
            run.count = 0
        with guided(pipe, settings, cache=cache):
            assert torch.equal(tiny_flux.generate(pipe, num_inference_steps=1), wanted)
        if number:
            assert [run.count for run in runs] == prompt
    assert len(cache) == 3


def encoded(pipe: Any, cache: NegativeCache | None, settings: Settings = VSF, **more: Any) -> Tensor:
    (row,) = encode_negatives(pipe, settings, cache=cache, **more)
    return row


def change_a_weight(pipe: Any) -> None:
    with torch.no_grad():
        pipe.text_encoder.shared.weight.add_(0.1)


def fuse_as_peft_does(pipe: Any) -> None:
    """Through `.data`, which leaves no trace in a tensor's version."""
    weight = pipe.text_encoder.encoder.block[1].layer[0].SelfAttention.q.weight
    version = weight._version
    weight.data += torch.randn(weight.shape[0], 2) @ torch.randn(2, weight.shape[1])
    assert weight._version == version


def another_encoder(pipe: Any) -> None:
    pipe.text_encoder = tiny_wan.make_pipeline(seed=5).text_encoder


def load_a_lora(pipe: Any) -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["q", "v"], init_lora_weights=False)
    pipe.text_encoder.add_adapter(config)


def scale_the_lora(pipe: Any) -> None:
    load_a_lora(pipe)
    assert_kept_apart(pipe, lambda pipe: scale(pipe, 0.3))


def scale(pipe: Any, factor: float) -> None:
    for module in pipe.text_encoder.modules():
        if hasattr(module, "scaling"):
            module.scaling["default"] *= factor


def switch_the_lora_off(pipe: Any) -> None:
    load_a_lora(pipe)
    assert_kept_apart(pipe, lambda pipe: pipe.text_encoder.disable_adapters())


def to_half(pipe: Any) -> None:
    pipe.text_encoder.to(torch.bfloat16)


def assert_kept_apart(pipe: Any, change: Callable[[Any], None]) -> None:
    cache = NegativeCache()
    before = encoded(pipe, cache)
    assert encoded(pipe, cache) is before
    change(pipe)
    after = encoded(pipe, cache)
    assert not torch.equal(after.float(), before.float())
    assert torch.equal(after, encoded(pipe, None))
    assert encoded(pipe, cache) is after


@pytest.mark.parametrize(
    "change",
    [change_a_weight, fuse_as_peft_does, another_encoder, load_a_lora, to_half],
    ids=lambda change: change.__name__,
)
def test_other_numbers_are_encoded_anew(change: Callable[[Any], None]) -> None:
    assert_kept_apart(tiny_wan.make_pipeline(), change)


@pytest.mark.parametrize("change", [scale_the_lora, switch_the_lora_off], ids=lambda change: change.__name__)
def test_a_lora_that_is_set_otherwise_is_encoded_anew(change: Callable[[Any], None]) -> None:
    change(tiny_wan.make_pipeline())


def test_going_back_finds_what_was_there() -> None:
    pipe, cache = tiny_wan.make_pipeline(), NegativeCache()
    load_a_lora(pipe)
    on = encoded(pipe, cache)
    pipe.text_encoder.disable_adapters()
    off = encoded(pipe, cache)
    pipe.text_encoder.enable_adapters()
    assert encoded(pipe, cache) is on
    assert not torch.equal(on, off)


def test_what_was_asked_for_is_kept_apart() -> None:
    pipe, cache = tiny_sd3.make_pipeline(), NegativeCache()
    rows = [
        encoded(pipe, cache),
        encoded(pipe, cache, VSF.changed(negative_prompt="roof")),
        encoded(pipe, cache, VSF.changed(negative_tokens="words")),
        encoded(pipe, cache, VSF.changed(method="nag"), max_sequence_length=12),
        encoded(pipe, cache, VSF.changed(method="nag"), max_sequence_length=10),
    ]
    assert cache.hits == 0 and len(cache) == len(rows)
    assert encoded(pipe, cache, VSF.changed(alpha=7.0)) is rows[0]


def test_the_longest_unused_goes_first_and_nothing_is_kept_alive() -> None:
    pipe, cache = tiny_wan.make_pipeline(), NegativeCache(2)
    texts = [VSF.changed(negative_prompt=text) for text in ("wheels", "roof", "sail")]
    first, second = encoded(pipe, cache, texts[0]), encoded(pipe, cache, texts[1])
    assert encoded(pipe, cache, texts[0]) is first
    encoded(pipe, cache, texts[2])
    assert len(cache) == 2
    assert encoded(pipe, cache, texts[0]) is first
    assert encoded(pipe, cache, texts[1]) is not second
    encoder = weakref.ref(pipe.text_encoder)
    del pipe
    gc.collect()
    assert encoder() is None
    cache.clear()
    assert len(cache) == 0
    with pytest.raises(ValueError, match="keeps nothing"):
        NegativeCache(0)


def test_weights_that_are_nowhere_are_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, cache = tiny_wan.make_pipeline(), NegativeCache()
    pipe.text_encoder.register_buffer("elsewhere", torch.empty(3, device="meta"))
    assert encoded(pipe, cache) is not encoded(pipe, cache)
    assert len(cache) == 0
