"""Punctuation is nothing to the small models, and all else is what it was to them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, normalizers
from transformers import PreTrainedTokenizerFast

from vsf_lib.scenes.model import FOLDER, WAN_FOLDER
from vsf_lib.scenes.motion import VERBS
from vsf_lib.scenes.training import networks, wan
from vsf_lib.scenes.world import PUNCTUATION, WORDS

_SHIPPED = sorted([*FOLDER.glob("tokenizer*"), *WAN_FOLDER.glob("tokenizer*")])
_MORE = ["green", "(", ")", '"', "-", ",,", "\u00e4", "RED", "1", "\u4eba", "'s"]


def _prompt(pick: random.Random) -> list[str]:
    return pick.choices([*WORDS, *VERBS, *_MORE], k=pick.randint(0, 20))


def test_all_four_are_looked_at() -> None:
    assert len(_SHIPPED) == 4


@pytest.mark.parametrize("folder", _SHIPPED, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_prompts_without_it_have_the_ids_that_the_models_were_trained_on(folder: Path) -> None:
    pick = random.Random()
    shipped = PreTrainedTokenizerFast.from_pretrained(folder)
    before = Tokenizer.from_file(str(folder / "tokenizer.json"))
    before.normalizer = normalizers.Lowercase()
    for _ in range(300):
        text = pick.choice(["", " "]).join(_prompt(pick)) + pick.choice(["", " ", "\n"])
        assert shipped(text).input_ids == before.encode(text).ids, text


@pytest.mark.parametrize("folder", _SHIPPED, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_with_it_they_have_those_of_the_prompt_without(folder: Path) -> None:
    pick = random.Random()
    shipped = PreTrainedTokenizerFast.from_pretrained(folder)
    for sign in PUNCTUATION:
        assert (
            shipped(f"a red car{sign} On a field{sign}").input_ids
            == shipped("a red car on a field").input_ids
        )
    for _ in range(300):
        words = _prompt(pick)
        marked = "".join(word + pick.choice(["", *PUNCTUATION, "...", "?!"]) + " " for word in words)
        assert shipped(marked).input_ids == shipped(" ".join(words)).input_ids, marked


@pytest.mark.parametrize("folder", _SHIPPED, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_the_shipped_are_the_ones_that_are_built(folder: Path) -> None:
    built: Any
    if folder.parent == WAN_FOLDER:
        built = wan.build_tokenizer()
    else:
        built = networks.build_tokenizer(begin=folder.name != "tokenizer_3")
    shipped = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert shipped.to_str() == built.backend_tokenizer.to_str()
