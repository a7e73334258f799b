"""The numbers against a slow count by hand: shares, bands over prompts, paired differences, F1."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vsf_lib.bench.bootstrap import DRAWS, SEED
from vsf_lib.bench.neggen.asking import QUESTIONS
from vsf_lib.bench.neggen.labels import compare, read_labels
from vsf_lib.bench.neggen.scores import agreement, summary
from vsf_lib.bench.neggen.table import table
from vsf_lib.errors import SettingsError


@pytest.fixture
def seed() -> int:
    """Another one on every run; a failure shows it."""
    return random.SystemRandom().randrange(2**31)


def answers(seed: int, methods: int = 3, prompts: int = 7, seeds: int = 2) -> np.ndarray:
    """Yes and no, a quality, and some that were not read."""
    generator = np.random.default_rng(seed)
    values = (generator.random((methods, prompts, seeds, 3)) < 0.6).astype(float)
    values[..., 2] = generator.integers(0, 11, values.shape[:-1]) / 10
    values[generator.random(values.shape) < 0.15] = np.nan
    return values


def mean_of(picked: list[list[float]]) -> float:
    """Over everything that was read, prompts with more of it counting more."""
    read = [value for prompt in picked for value in prompt if not math.isnan(value)]
    return math.fsum(read) / len(read) if read else math.nan


def by_hand(prompts: list[list[float]]) -> list[float]:
    """The mean and its percentile band, resampling whole prompts one by one."""
    count = len(prompts)
    drawn = np.random.default_rng(SEED).multinomial(count, [1 / count] * count, size=DRAWS)
    means = []
    for times in drawn:
        picked = [prompts[p] for p in range(count) for _ in range(times[p])]
        means.append(mean_of(picked))
    known = sorted(mean for mean in means if not math.isnan(mean))

    def at(share: float) -> float:
        place = share * (len(known) - 1)
        low = math.floor(place)
        high = min(low + 1, len(known) - 1)
        return known[low] + (place - low) * (known[high] - known[low])

    return [mean_of(prompts), at(0.025), at(0.975)]


def test_shares_and_differences_are_those_of_a_count_by_hand(seed: int) -> None:
    values = answers(seed)
    names = ["a", "b", "c"]
    got = summary(names, values)
    for m, name in enumerate(names):
        for q, question in enumerate(QUESTIONS):
            slow = by_hand(values[m, :, :, q].tolist())
            assert got["methods"][name][question] == pytest.approx(slow, abs=6e-5)
            assert got["methods"][name]["unread"][question] == np.isnan(values[m, :, :, q]).sum()
        assert got["methods"][name]["pictures"] == 14
    assert [(d["method"], d["less"]) for d in got["differences"]] == [("b", "a"), ("c", "a"), ("c", "b")]
    for difference in got["differences"]:
        first, second = names.index(difference["less"]), names.index(difference["method"])
        for q, question in enumerate(QUESTIONS):
            paired = [
                [y - x for x, y in zip(one, other, strict=True)]
                for one, other in zip(
                    values[first, :, :, q].tolist(), values[second, :, :, q].tolist(), strict=True
                )
            ]
            assert difference[question] == pytest.approx(by_hand(paired), abs=6e-5)


def test_a_prompt_s_seeds_are_not_independent() -> None:
    """Seeds that only repeat their prompt tell nothing new, so the band stays as wide."""
    values = answers(1, prompts=20, seeds=1)
    values = np.nan_to_num(values, nan=1.0)
    once = summary(["a", "b", "c"], values)
    often = summary(["a", "b", "c"], np.repeat(values, 8, axis=2))
    for name in ("a", "b", "c"):
        for question in QUESTIONS:
            assert often["methods"][name][question] == once["methods"][name][question]


def test_a_difference_is_narrower_than_its_parts_where_prompts_decide() -> None:
    hard = np.repeat(np.array([0.0, 1.0] * 10), 3).reshape(1, 20, 1, 3)
    same = summary(["a", "b"], np.concatenate([hard, hard]))
    assert same["differences"][0]["positive"] == [0.0, 0.0, 0.0]
    low, high = same["methods"]["a"]["positive"][1:]
    assert low < 0.4 < 0.6 < high


def test_what_nobody_read_has_no_number() -> None:
    values = answers(3)
    values[1, :, :, 0] = np.nan
    got = summary(["a", "b", "c"], values)
    assert got["methods"]["b"]["positive"] == [None, None, None]
    assert got["methods"]["b"]["unread"]["positive"] == 14
    assert got["differences"][0]["positive"] == [None, None, None]
    assert None not in got["methods"]["a"]["positive"]
    json.dumps(got, allow_nan=False)


def test_agreement_is_that_of_a_count_by_hand(seed: int) -> None:
    generator = random.Random(seed)
    choices = [None, 0.0, 0.2, 0.49, 0.5, 0.9, 1.0]
    judged, human = ([generator.choice(choices) for _ in range(200)] for _ in range(2))
    counts = {(j, h): 0 for j in (True, False) for h in (True, False)}
    unread = 0
    for j, h in zip(judged, human, strict=True):
        if h is None:
            continue
        if j is None:
            unread += 1
        else:
            counts[j >= 0.5, h >= 0.5] += 1
    precision = counts[True, True] / (counts[True, True] + counts[True, False])
    recall = counts[True, True] / (counts[True, True] + counts[False, True])
    got = agreement(judged, human)
    assert got["f1"] == pytest.approx(2 * precision * recall / (precision + recall), abs=6e-5)
    right = counts[True, True] + counts[False, False]
    assert got["accuracy"] == pytest.approx(right / sum(counts.values()), abs=6e-5)
    assert (got["labels"], got["unread"]) == (sum(counts.values()), unread)


def test_agreement_without_anything_to_agree_on() -> None:
    nothing = agreement([], [])
    assert (nothing["f1"], nothing["accuracy"], nothing["labels"]) == (None, None, 0)
    assert agreement([0.0, 0.0], [0.0, 0.0])["f1"] is None, "no yes on either side"
    assert agreement([0.0, 0.0], [0.0, 0.0])["accuracy"] == 1.0


def rows(values: np.ndarray, names: list[str]) -> list[dict[str, Any]]:
    return [
        {
            "prompt": f"prompt {p}",
            "method": name,
            "seed": s,
            "picture": f"{m}{p}{s}.png",
            **{
                question: None if math.isnan(values[m, p, s, q]) else float(values[m, p, s, q])
                for q, question in enumerate(QUESTIONS)
            },
        }
        for m, name in enumerate(names)
        for p in range(values.shape[1])
        for s in range(values.shape[2])
    ]


def test_labels_find_their_pictures_by_file_or_by_place(tmp_path: Path, seed: int) -> None:
    pictures = rows(answers(seed), ["a", "b", "c"])
    labels: list[dict[str, Any]] = [
        {"picture": "out\\pictures\\000.png", "positive": True, "quality": 0.4},
        {"picture": "out/pictures/111.png", "negative": False},
        {"prompt": "prompt 2", "method": "c", "seed": 1, "positive": False, "negative": None},
        {"picture": "of-another-run.png", "positive": True},
    ]
    file = tmp_path / "labels.json"
    file.write_text(json.dumps(labels), "utf-8")
    got = compare(read_labels(file), pictures)
    by_name = {row["picture"]: row for row in pictures}
    assert got["unknown"] == 1
    assert got["positive"] == agreement(
        [by_name["000.png"]["positive"], by_name["221.png"]["positive"]], [1.0, 0.0]
    )
    assert got["negative"] == agreement([by_name["111.png"]["negative"]], [0.0])
    assert got["quality"] == agreement([by_name["000.png"]["quality"]], [0.4])


@pytest.mark.parametrize(
    ("content", "tells"),
    [
        ("{", "cannot read"),
        ("{}", "no list"),
        ("[]", "no list"),
        ("[1]", "entry 1"),
        ('[{"picture": "a.png"}, {"prompt": "x"}]', "entry 2 names no picture"),
        ('[{"picture": "a.png", "positive": "yes"}]', "positive 'yes'"),
        ('[{"picture": "a.png", "quality": 7}]', "quality 7"),
        ('[{"picture": ["a.png"]}]', "by a list"),
        ('[{"picture": "a.png", "quality": NaN}]', "quality nan"),
    ],
)
def test_wrong_labels_are_named(tmp_path: Path, content: str, tells: str) -> None:
    file = tmp_path / "labels.json"
    file.write_text(content, "utf-8")
    with pytest.raises(SettingsError, match=tells):
        read_labels(file)


def test_labels_of_another_run_only_are_told() -> None:
    with pytest.raises(SettingsError, match="none of them is of a picture of this run"):
        compare([{"picture": "x.png"}], rows(answers(1), ["a", "b", "c"]))


def test_the_table_shows_what_was_found_and_what_was_not() -> None:
    values = answers(5)
    values[0, :, :, 2] = np.nan
    result = summary(["vsf", "nag", "none"], values)
    for row in result["methods"].values():
        row["values"] = "alpha 3"
    result |= {
        **{"model": "m", "pairs": 7, "seeds": 2, "steps": 8, "judge_name": "endpoint x", "bands": "bands"},
        "versions": {"torch": "1", "diffusers": "2"},
        "labels": {"unknown": 3, **{q: agreement([1.0, 0.0, None], [1.0, 1.0, 1.0]) for q in QUESTIONS}},
    }
    lines = table(result).split("\n")
    share = result["methods"]["nag"]["negative"]
    (row,) = (line for line in lines if line.startswith("nag") and "alpha" in line)
    assert f"{share[0]:.3f} [{share[1]:.3f} {share[2]:.3f}]" in row
    gain = result["differences"][0]["negative"]
    (row,) = (line for line in lines if line.startswith("nag") and "[" in line and "alpha" not in line)
    assert f"{gain[0]:+.3f} [{gain[1]:+.3f} {gain[2]:+.3f}]" in row
    assert "14 of quality" in next(line for line in lines if line.startswith("vsf:"))
    (row,) = (line for line in lines if line.startswith("positive") and "0.667" in line)
    assert row.split() == ["positive", "0.667", "0.500", "2", "1"]
    assert "3 labels are of no picture of this run" in lines
