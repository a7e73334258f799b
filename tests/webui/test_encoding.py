"""The negative prompt through a host's text engines: no padding in it, and the right text per step."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from vsf_lib.errors import ModelError
from vsf_lib.webui.encoding import Encoder, Schedule, clip_tokens, t5_tokens
from vsf_lib.webui.request import plain_text

START, END, PAD = 1, 2, 0
WORDS = ["wheels", "roof", "big", "red"]
TABLE = torch.randn(3 + len(WORDS), 4096, generator=torch.Generator().manual_seed(1))


def ids_of(text: str) -> list[int]:
    return [3 + WORDS.index(word) for word in text.split()]


def causal(tokens: list[int], width: int) -> Tensor:
    """Like CLIP: what a token gives depends on those before it."""
    return TABLE[tokens, :width].cumsum(0).tanh()


def bidirectional(tokens: list[int]) -> Tensor:
    """Like T5: on all of them."""
    return (TABLE[tokens] + TABLE[tokens].mean(0)).tanh()


class Clip:
    """A host's CLIP engine: chunks of `room` words between a begin and end tokens, which also fill up."""

    id_start, id_end = START, END

    def __init__(self, width: int, *, pooled: bool, room: int = 5) -> None:
        self.width, self.pooled, self.room = width, pooled, room

    def tokenize_line(self, text: str) -> tuple[list[Any], int]:
        ids = ids_of(text)
        pieces = [ids[i : i + self.room] for i in range(0, len(ids), self.room)] or [[]]
        chunks = [
            SimpleNamespace(tokens=[START, *piece, *[END] * (self.room - len(piece) + 1)]) for piece in pieces
        ]
        return chunks, len(ids)

    def __call__(self, texts: list[str]) -> Any:
        chunks, _ = self.tokenize_line(texts[0])
        z = torch.cat([causal(chunk.tokens, self.width) for chunk in chunks])[None]
        return (z, z[:, 0]) if self.pooled else z


class T5:
    """A host's T5 engine: an end token, then padding up to `min_length`."""

    id_pad = PAD

    def __init__(self) -> None:
        self.min_length = 9

    def __call__(self, texts: list[str]) -> Tensor:
        tokens = [*ids_of(texts[0]), END]
        return bidirectional(tokens + [PAD] * (self.min_length - len(tokens)))[None]

    def encode_with_transformers(self, tokens: Tensor) -> Tensor:
        return torch.stack([bidirectional(row.tolist()) for row in tokens])


class FirstUmt5:
    """Forge Neo's first UMT5 engine: it cuts the last letter off each part of a text, whose ids then end with
    an end token, and what follows the first of these is hidden, and zero."""

    def __init__(self) -> None:
        self.min_length, self.tokens_start, self.tokens_end = 9, 0, -1

    @staticmethod
    def tokenizer(texts: list[str], add_special_tokens: bool = True) -> dict[str, list[list[int]]]:
        end = [END] if add_special_tokens else []
        return {"input_ids": [ids_of(text) + end for text in texts]}

    def tokenize(self, texts: list[str]) -> list[list[int]]:
        return self.tokenizer(texts)["input_ids"]

    def __call__(self, texts: list[str]) -> Tensor:
        parts = [part[self.tokens_start : self.tokens_end] for part in texts[0].split("|")]
        tokens = [token for ids in self.tokenize(parts) for token in ids] + [END]
        tokens += [PAD] * (self.min_length - len(tokens))
        seen = tokens.index(END) + 1
        return torch.cat([bidirectional(tokens[:seen]), torch.zeros(len(tokens) - seen, 4096)])[None]


class LaterT5:
    """Forge Neo's later engines: a tokenizer and an encoder of their own, with the padding in the first."""

    class Tokenizer:
        min_length, pad_token = 9, PAD

    class TextEncoder:
        @staticmethod
        def encode_token_weights(chunks: list[list[tuple[int, float]]]) -> tuple[Tensor, None]:
            return torch.stack([bidirectional([token for token, _ in chunk]) for chunk in chunks]), None

    def __init__(self) -> None:
        self.tokenizer, self.text_encoder = self.Tokenizer(), self.TextEncoder()

    def __call__(self, texts: list[str]) -> Tensor:
        tokens = [*ids_of(texts[0]), END]
        tokens += [PAD] * (self.tokenizer.min_length - len(tokens))
        return self.text_encoder.encode_token_weights([[(token, 1.0) for token in tokens]])[0]


def sd35() -> Any:
    return SimpleNamespace(
        text_processing_engine_l=Clip(6, pooled=True),
        text_processing_engine_g=Clip(10, pooled=True),
        text_processing_engine_t5=T5(),
    )


def encode(model: Any, text: str, **options: Any) -> Tensor:
    loads = []
    values = {"form": "all", "t5": True, **options}
    encoder = Encoder(model, load=lambda: loads.append(1), **values)
    return encoder.get_learned_conditioning([text])[0]


@pytest.mark.parametrize("pooled", [True, False])
@pytest.mark.parametrize("text", ["", "wheels", "big red roof", "big red roof big wheels red roof"])
def test_clip_keeps_begin_words_and_one_end_of_every_chunk(text, pooled):
    ids = ids_of(text)
    pieces = [ids[i : i + 5] for i in range(0, len(ids), 5)] or [[]]
    wanted = torch.cat([causal([START, *piece, END], 6) for piece in pieces])
    torch.testing.assert_close(clip_tokens(Clip(6, pooled=pooled), text), wanted)


def test_words_alone_were_encoded_with_the_rest():
    text = "big red roof big wheels red roof"
    ids = ids_of(text)
    wanted = [causal([START, *piece, END], 6)[1:-1] for piece in (ids[:5], ids[5:])]
    torch.testing.assert_close(clip_tokens(Clip(6, pooled=True), text, words_only=True), torch.cat(wanted))
    both = encode(sd35(), "big roof", form="words")
    whole = encode(sd35(), "big roof")
    torch.testing.assert_close(both, whole[[1, 2, 4, 5]])


def test_t5_is_not_padded_and_the_engine_is_as_before():
    engine = T5()
    torch.testing.assert_close(t5_tokens(engine, "big roof"), bidirectional([*ids_of("big roof"), END]))
    assert engine.min_length == 9
    with pytest.raises(ValueError, match="is not in list"):
        t5_tokens(engine, "unknown")
    assert engine.min_length == 9
    with pytest.raises(ModelError, match="min_length"):
        t5_tokens(Clip(6, pooled=False), "roof")


def test_neos_first_umt5_has_the_whole_text():
    engine = FirstUmt5()
    whole = bidirectional([*ids_of("big roof red wheels"), END])
    torch.testing.assert_close(t5_tokens(engine, "big roof|red wheels"), whole)
    torch.testing.assert_close(t5_tokens(engine, "big roof|red wheels", words_only=True), whole[:-1])
    assert (engine.min_length, engine.tokens_end) == (9, -1)
    assert "tokenize" not in vars(engine)
    with pytest.raises(ValueError, match="is not in list"):
        t5_tokens(engine, "unknown")
    assert (engine.min_length, engine.tokens_end) == (9, -1)
    assert "tokenize" not in vars(engine)


def test_neos_later_engines_are_not_padded_either():
    engine = LaterT5()
    torch.testing.assert_close(t5_tokens(engine, "big roof"), bidirectional([*ids_of("big roof"), END]))
    assert engine.tokenizer.min_length == 9
    mean = Encoder(
        SimpleNamespace(text_processing_engine_t5=engine), form="all", t5=True, load=lambda: None
    ).of_padding()
    torch.testing.assert_close(mean, bidirectional([PAD] * 256).mean(0))


def test_sd35_has_clip_side_by_side_then_t5():
    got = encode(sd35(), "big roof")
    assert got.shape == (4 + 3, 4096)
    clip = torch.cat([causal([START, *ids_of("big roof"), END], width) for width in (6, 10)], dim=1)
    torch.testing.assert_close(got[:4, :16], clip)
    assert not got[:4, 16:].any()
    torch.testing.assert_close(got[4:], bidirectional([*ids_of("big roof"), END]))
    without = encode(sd35(), "big roof", t5=False)
    torch.testing.assert_close(without, got[:4])


def test_flux_has_t5_alone_and_padding_has_a_mean():
    model = SimpleNamespace(text_processing_engine_t5=T5(), text_processing_engine_l=Clip(6, pooled=True))
    torch.testing.assert_close(encode(model, "roof"), bidirectional([*ids_of("roof"), END]))
    mean = Encoder(model, form="all", t5=True, load=lambda: None).of_padding()
    torch.testing.assert_close(mean, bidirectional([PAD] * 256).mean(0))
    with pytest.raises(ModelError, match="no T5 text engine"):
        encode(SimpleNamespace(), "roof")


def test_an_empty_part_of_a_schedule_has_no_tokens():
    for model in (sd35(), SimpleNamespace(text_processing_engine_t5=T5())):
        for form in ("all", "words"):
            assert encode(model, " ", form=form).shape == (0, 4096)


def test_the_encoders_are_brought_to_their_device_first():
    order = []

    class Late(T5):
        def __call__(self, texts: list[str]) -> Tensor:
            order.append("encode")
            return super().__call__(texts)

        def encode_with_transformers(self, tokens: Tensor) -> Tensor:
            order.append("encode")
            return super().encode_with_transformers(tokens)

    model = SimpleNamespace(text_processing_engine_t5=Late())
    encoder = Encoder(model, form="all", t5=True, load=lambda: order.append("load"))
    encoder.get_learned_conditioning(["roof"])
    encoder.of_padding()
    assert order == ["load", "encode", "load", "encode"]


class Sized(list):
    """A list of texts as the hosts have it."""

    def __init__(self, texts: list[str], copy_from: Any = None, width: int | None = None) -> None:
        super().__init__(texts)
        self.width = width if copy_from is None else copy_from.width


def test_padded_keeps_the_sizes_that_a_model_may_read():
    seen = []

    class Model:
        def get_learned_conditioning(self, texts: Sized) -> dict[str, Tensor]:
            seen.append((list(texts), texts.width))
            return {"crossattn": torch.zeros(1, 2, 4)}

    encoder = Encoder(Model(), form="padded", t5=True, load=lambda: None)
    encoder.get_learned_conditioning(Sized(["a", "b"], width=512))
    assert seen == [(["a"], 512), (["b"], 512)]


def test_padded_is_what_the_host_encodes():
    class Model:
        def get_learned_conditioning(self, texts: list[str]) -> dict[str, Tensor]:
            return {"crossattn": bidirectional(ids_of(texts[0]))[None], "vector": torch.zeros(1, 2)}

    torch.testing.assert_close(encode(Model(), "big roof", form="padded"), bidirectional(ids_of("big roof")))

    class Wan:  # nothing pooled
        def get_learned_conditioning(self, texts: list[str]) -> Tensor:
            return bidirectional(ids_of(texts[0]))[None]

    torch.testing.assert_close(encode(Wan(), "big roof", form="padded"), bidirectional(ids_of("big roof")))


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("wheels", "wheels"),
        ("wheels <lora:some style:0.8>, roof", "wheels , roof"),
        ("wheels BREAK roof", "wheels roof"),
        ("BREAKFAST, (roof:1.2) [a:b:0.5]", "BREAKFAST, (roof:1.2) [a:b:0.5]"),
        ("a < b > c", "a < b > c"),
    ],
)
def test_what_only_a_positive_prompt_may_hold_is_left_out(text, plain):
    assert plain_text(text) == plain


def entry(end: int, *shape: int) -> Any:
    return SimpleNamespace(end_at_step=end, cond=torch.randn(*shape))


def test_each_step_has_its_embedding_and_the_list_stays_the_same_object():
    rows = [[entry(3, 2, 5), entry(8, 4, 5)], [entry(8, 3, 5)]]
    schedule = Schedule(rows, 0.0, None)
    for step, first in ((0, 0), (3, 0), (4, 1), (8, 1), (9, 1)):
        got = schedule(step)
        assert got[0] is rows[0][first].cond
        assert got[1] is rows[1][0].cond
    assert schedule(0) is schedule(3)
    assert schedule(4) is schedule(8)


def test_equation_10():
    row, padding = entry(8, 3, 5), torch.randn(5, dtype=torch.float64)
    moved = Schedule([[row]], 8.0, padding)(0)[0]
    torch.testing.assert_close(moved.double(), 9 * row.cond.double() - 8 * padding, atol=1e-5, rtol=1e-5)
