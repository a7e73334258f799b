"""Small sweeps on prompts that are not the benchmark's: each baseline's best, and removal by alpha."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from vsf_lib.bench.drawing import Method, Score
from vsf_lib.settings import Settings

VSF_GRID = {
    "all": ((0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0), (0.0, 1.0, 2.0)),
    "words": ((0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0), (0.0, 1.0, 2.0)),
}
"""Alphas and betas by `Settings.negative_tokens`: "all" is the method as published."""
POSITIVE_KEPT = 0.9


def vsf_candidates() -> list[Method]:
    """VSF over alpha, beta and which tokens of the negative act."""
    return [
        Method(f"vsf {tokens}", Settings.create(alpha=alpha, beta=beta, negative_tokens=tokens))
        for tokens, (alphas, betas) in VSF_GRID.items()
        for beta in betas
        for alpha in alphas
    ]


def difference_candidates() -> list[Method]:
    """The difference over alpha and beta, with the words of the negative alone."""
    return [
        Method(
            "difference",
            Settings.create(method="difference", alpha=alpha, beta=beta, negative_tokens="words"),
        )
        for beta in (0.0, 1.0, 2.0)
        for alpha in (1.0, 2.0, 3.0, 4.5, 7.0, 10.0, 15.0)
    ]


def baseline_candidates() -> dict[str, list[Method]]:
    """What each baseline may choose from: its papers' values and their neighbourhood."""
    off = Settings(method="off")
    return {
        "nag": [
            Method("nag", Settings(method="nag", nag_phi=phi, nag_tau=tau, nag_alpha=share))
            for phi, tau, share in (
                (4, 2.5, 0.125),
                (4, 2.5, 0.25),
                (4, 2.5, 0.5),
                (8, 2.5, 0.25),
                (8, 5, 0.5),
                (11, 5, 0.25),
                (11, 5, 0.75),
            )
        ],
        "nasa": [
            Method("nasa", Settings(method="nasa", nasa_alpha=a)) for a in (0.15, 0.25, 0.35, 0.5, 0.75, 1.0)
        ],
        "cfg": [Method("cfg", off, guidance_scale=scale) for scale in (1.5, 2.0, 3.0, 4.0, 6.0)],
    }


def best(results: Sequence[tuple[Method, Score]], floor: float) -> tuple[Method, Score]:
    """The most removal among those that keep the prompt (positive >= floor); else the best sum of both."""
    kept = [result for result in results if result[1].positive >= floor]
    if kept:
        return max(kept, key=lambda result: (result[1].negative, result[1].positive))
    return max(results, key=lambda result: result[1].positive + result[1].negative)


def alpha_at(results: Sequence[tuple[Method, Score]], like: Settings, share: float) -> float | None:
    """The alpha at which `share` of the parts are gone, linear between the swept values; None if never.

    Of `results` those count whose settings are `like` but for alpha.
    """
    curve = sorted(
        (method.settings.alpha, score.negative)
        for method, score in results
        if method.settings == like.changed(alpha=method.settings.alpha)
    )
    if curve and curve[0][1] >= share:
        return curve[0][0]
    for (low, before), (high, after) in pairwise(curve):
        if before < share <= after:
            return low + (high - low) * (share - before) / (after - before)
    return None
