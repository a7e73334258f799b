"""What the answers come to: shares with their bands over prompts, and differences between methods.

Owns the numbers. A prompt's seeds are drawn and left out together, since they are not independent; answers
that could not be read are left out of a share and counted. Knows no file.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from vsf_lib.bench.bootstrap import Bootstrap, band
from vsf_lib.bench.neggen.asking import QUESTIONS
from vsf_lib.bench.results import number, numbers


def shares(values: np.ndarray, bootstrap: Bootstrap) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of `[..., prompts, seeds, 3]`, NaN where unread: the means `[..., 3]` and the ends of their bands."""
    known = np.isfinite(values)
    sums, counts = np.where(known, values, 0.0).sum(-2), known.sum(-2).astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = sums.sum(-2) / counts.sum(-2)
        samples = bootstrap.means(sums) / bootstrap.means(counts)
    return means, *band(samples)


def summary(names: Sequence[str], values: np.ndarray) -> dict[str, Any]:
    """Of `[methods, prompts, seeds, 3]`: every method's numbers, and every pair's difference, as JSON."""
    bootstrap = Bootstrap(values.shape[1])
    found, low, high = shares(values, bootstrap)
    methods = {
        name: {
            **{question: numbers(found[m, q], low[m, q], high[m, q]) for q, question in enumerate(QUESTIONS)},
            "pictures": int(values[m, ..., 0].size),
            "unread": {
                question: int(np.isnan(values[m, ..., q]).sum()) for q, question in enumerate(QUESTIONS)
            },
        }
        for m, name in enumerate(names)
    }
    differences = []
    for first, second in combinations(range(len(names)), 2):
        # Only where both were read is there a pair.
        found, low, high = shares(values[second] - values[first], bootstrap)
        differences.append(
            {
                "method": names[second],
                "less": names[first],
                **{question: numbers(found[q], low[q], high[q]) for q, question in enumerate(QUESTIONS)},
            }
        )
    return {"methods": methods, "differences": differences}


def agreement(judged: Sequence[float | None], human: Sequence[float | None]) -> dict[str, Any]:
    """How the judge agrees with people, of answers of 0 to 1 side by side; from 0.5 on it is a yes.

    Left out are those that either did not answer; of the judge's the number is told. F1 is that of "yes".
    """
    pairs = [(j, h) for j, h in zip(judged, human, strict=True) if h is not None]
    read = [(j >= 0.5, h >= 0.5) for j, h in pairs if j is not None]
    both, alone, missed = (read.count(pair) for pair in ((True, True), (True, False), (False, True)))
    right = both + read.count((False, False))
    wrong = 2 * both + alone + missed
    return {
        "f1": number(2 * both / wrong) if wrong else None,
        "accuracy": number(right / len(read)) if read else None,
        "labels": len(read),
        "said_yes": sum(j for j, _ in read),
        "labelled_yes": sum(h for _, h in read),
        "unread": len(pairs) - len(read),
    }
