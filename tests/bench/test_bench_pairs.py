"""The benchmark's prompts and what counts as followed and as removed."""

from __future__ import annotations

from collections import Counter

import pytest

from vsf_lib.bench.pairs import COUNT, Pair, make_pairs
from vsf_lib.scenes.judge import Verdict
from vsf_lib.scenes.model import check_words
from vsf_lib.scenes.world import KINDS, is_held_out

PAIRS = make_pairs()
TUNING = make_pairs(60, held_out=False, seed=7)


def test_there_are_200_distinct_pairs() -> None:
    assert COUNT == len(PAIRS) == 200
    assert len({(pair.prompt, pair.negative_prompt) for pair in PAIRS}) == 200
    assert make_pairs() == PAIRS


def test_all_are_held_out_and_tuning_pairs_are_not() -> None:
    assert all(is_held_out(p.kind, p.colour, p.place) for p in PAIRS)
    assert not any(is_held_out(p.kind, p.colour, p.place) for p in TUNING)
    assert not {p.prompt for p in PAIRS} & {p.prompt for p in TUNING}


@pytest.mark.parametrize("pairs", [PAIRS, TUNING], ids=["held out", "tuning"])
def test_the_negative_is_a_part_that_the_prompt_does_not_name(pairs: list[Pair]) -> None:
    for pair in pairs:
        assert pair.negative_prompt in KINDS[pair.kind]
        assert pair.negative_prompt not in pair.prompt.split()
        assert pair.asked != pair.negative_prompt
        assert (pair.asked is not None) == (" with " in pair.prompt)
        for word in (pair.kind, pair.colour, *([pair.asked] if pair.asked else [])):
            assert word in pair.prompt.split()
        check_words(pair.prompt, "prompt")


def test_every_kind_and_part_is_asked_for() -> None:
    named = Counter((pair.kind, pair.negative_prompt) for pair in PAIRS)
    assert set(named) == {(kind, part) for kind, parts in KINDS.items() for part in parts}
    assert min(named.values()) >= 4
    asked = sum(pair.asked is not None for pair in PAIRS) / len(PAIRS)
    assert 0.3 < asked < 0.7


def verdict(**changes: object) -> Verdict:
    values = {
        "kind": "car",
        "colour": "red",
        "place": "field",
        "parts": frozenset({"windows"}),
        "clean": True,
        "clean_probability": 0.9,
    }
    return Verdict(**{**values, **changes})  # type: ignore[arg-type]


PLAIN = Pair("a red car on a field", "wheels", "car", "red", "field", None)
ASKED = Pair("a red car with windows on a field", "wheels", "car", "red", "field", "windows")


@pytest.mark.parametrize(
    ("pair", "changes", "positive", "negative"),
    [
        (PLAIN, {}, True, True),
        (PLAIN, {"parts": frozenset()}, True, True),
        (PLAIN, {"parts": frozenset({"wheels"})}, True, False),
        (PLAIN, {"kind": "boat"}, False, True),
        (PLAIN, {"kind": "nothing", "parts": frozenset()}, False, True),
        (PLAIN, {"colour": "blue"}, False, True),
        (PLAIN, {"place": "snow"}, False, True),
        (PLAIN, {"clean": False}, True, True),
        (ASKED, {}, True, True),
        (ASKED, {"parts": frozenset()}, False, True),
        (ASKED, {"parts": frozenset({"wheels", "windows"})}, True, False),
    ],
)
def test_verdicts(pair: Pair, changes: dict[str, object], positive: bool, negative: bool) -> None:
    seen = verdict(**changes)
    assert pair.positive(seen) is positive
    assert pair.negative(seen) is negative
