"""Which setting a sweep picks, and the alpha that it reads off a curve."""

from __future__ import annotations

from typing import Any

import pytest

from vsf_lib.bench.drawing import Method, Score
from vsf_lib.bench.sweep import VSF_GRID, alpha_at, baseline_candidates, best, vsf_candidates
from vsf_lib.presets import BASELINES
from vsf_lib.settings import Settings


def result(name: str, positive: float, negative: float) -> tuple[Method, Score]:
    return Method(name, Settings()), Score(positive, negative, 1.0, 10)


def curve(points: dict[float, float], **values: Any) -> list[tuple[Method, Score]]:
    return [
        (Method("vsf", Settings(alpha=alpha, **values)), Score(1.0, negative, 1.0, 10))
        for alpha, negative in points.items()
    ]


def test_best_removes_most_among_those_that_keep_the_prompt() -> None:
    results = [result("weak", 1.0, 0.2), result("good", 0.9, 0.6), result("wild", 0.5, 1.0)]
    assert best(results, 0.9)[0].name == "good"


def test_best_prefers_the_kept_prompt_at_equal_removal() -> None:
    assert best([result("a", 0.92, 0.6), result("b", 0.97, 0.6)], 0.9)[0].name == "b"


def test_best_without_a_keeper_takes_the_best_sum() -> None:
    results = [result("a", 0.8, 0.1), result("b", 0.6, 0.5), result("c", 0.1, 0.9)]
    assert best(results, 0.9)[0].name == "b"


@pytest.mark.parametrize(
    ("points", "share", "alpha"),
    [
        ({0.5: 0.2, 1.0: 0.6, 2.0: 1.0}, 0.4, 0.75),
        ({0.5: 0.2, 1.0: 0.6, 2.0: 1.0}, 0.9, 1.75),
        ({2.0: 1.0, 0.5: 0.2, 1.0: 0.6}, 0.6, 1.0),
        ({0.5: 0.2, 1.0: 0.3}, 0.5, None),
        ({0.5: 0.7, 1.0: 0.4, 2.0: 0.8}, 0.5, 0.5),
        ({0.5: 0.1, 1.0: 0.6, 2.0: 0.4, 3.0: 0.7}, 0.5, 0.9),
        ({}, 0.5, None),
    ],
)
def test_alpha_at(points: dict[float, float], share: float, alpha: float | None) -> None:
    got = alpha_at(curve(points), Settings(alpha=9.0), share)
    assert got == (alpha if alpha is None else pytest.approx(alpha))


def test_alpha_at_reads_one_curve_only() -> None:
    both = curve({0.5: 0.0, 1.0: 1.0}) + curve({0.5: 0.0, 2.0: 1.0}, beta=0.3)
    both += curve({0.5: 0.0, 3.0: 1.0}, negative_tokens="words")
    assert alpha_at(both, Settings(), 0.5) == pytest.approx(0.75)
    assert alpha_at(both, Settings(beta=0.3), 0.5) == pytest.approx(1.25)
    assert alpha_at(both, Settings(negative_tokens="words"), 0.5) == pytest.approx(1.75)
    assert alpha_at(both, Settings(beta=0.4), 0.5) is None


def test_candidates() -> None:
    grid = vsf_candidates()
    for tokens, (alphas, betas) in VSF_GRID.items():
        chosen = [m.settings for m in grid if m.settings.negative_tokens == tokens]
        assert {(s.alpha, s.beta) for s in chosen} == {(a, b) for a in alphas for b in betas}
    assert {m.settings.method for m in grid} == {"vsf"}
    baselines = baseline_candidates()
    assert set(baselines) == {"nag", "nasa", "cfg"}
    for name in ("nag", "nasa"):
        assert {m.settings.method for m in baselines[name]} == {name}
        # A baseline must not lose because its paper's own values were left out.
        published = BASELINES[name].settings()
        assert published in [m.settings for m in baselines[name]]
    assert all(m.guidance_scale > 1 and m.settings.method == "off" for m in baselines["cfg"])


def test_descriptions_tell_candidates_apart() -> None:
    for methods in (*baseline_candidates().values(), vsf_candidates()):
        described = [method.describe() for method in methods]
        assert len(set(described)) == len(described), described
    assert Method("none", Settings(method="off")).describe() == "-"
