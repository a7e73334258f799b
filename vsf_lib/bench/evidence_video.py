"""The evidence page's section on videos, from what `bench scenes --video` left."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vsf_lib.bench.filming import COLUMNS, WHOLE
from vsf_lib.bench.results import markdown_table, shown

HEADING = "## Wan's architecture: videos (wan)"
FLAGS = "--json docs/evidence/video-wan.json --sheet docs/evidence/video-wan.png"
_MEANS = tuple(name for name in COLUMNS if name not in WHOLE)
_DIGITS = {"flips": 2, "flicker": 4}

_WHAT = """\
A video counts as positive, negative, clean (*quality*) or *steady* where at least nine of ten of its frames
are: show all that the prompt names, lack the part, are clean, show the same object in the same colour.
*Flips* are how often the part comes or goes between a frame and the next; *flicker* is the mean of
|x(t-1) - 2 x(t) + x(t+1)|, which even motion has little of. The *renders* are no model's: the judge on true
videos, with the part and without it.
"""
_WHICH = """\
`vsf` and `difference` are the presets; what ends in `-kept`, `vsf-paper` and `nag` stand where
the sweeps below, on other prompts, found the most removal at positive 0.9 or, where no value keeps that,
the largest sum of positive and negative.
"""


def section(result: dict[str, Any], picture: str) -> Iterator[str]:
    """The methods on held-out prompts, then each sweep."""
    yield _WHAT
    yield markdown_table(
        ("method", *COLUMNS, "values"),
        [
            (
                row["name"],
                *(shown(row[name], 2) for name in WHOLE),
                *(shown(row[name], _DIGITS[name]) for name in _MEANS),
                row["values"],
            )
            for row in result["methods"]
        ],
    )
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    yield (
        f"{result['pairs']} held-out prompts x {result['seeds']} seeds; {versions}, {result['machine']}. "
        f"In square brackets: {result['bands']}.\n"
    )
    yield _WHICH
    if picture:
        yield f"![First, middle and last frame of six videos by each method]({picture})\n"
    for name, rows in result["sweeps"].items():
        yield f"### Videos: {name}\n"
        yield markdown_table(
            ("", "values", *COLUMNS),
            [
                (
                    row["name"],
                    row["values"],
                    *(f"{row[column]:.{_DIGITS.get(column, 2)}f}" for column in COLUMNS),
                )
                for row in rows
            ],
        )
