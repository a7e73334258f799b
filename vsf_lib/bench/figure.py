"""Draws the curves of `--curves`: removal against what is left of the prompt, and against clean drawings.

Owns the picture, as figure 7 of the VSF paper has it. Knows the JSON of
curves.py only.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from vsf_lib.bench.palette import (
    BLACK,
    BLUE,
    DASHES,
    GREEN,
    MARKS,
    ORANGE,
    PINK,
    RED,
    SKY,
    YELLOW,
    check_drawable,
)
from vsf_lib.bench.results import write_whole

_COLOURS = {
    "none": (BLACK,),
    "vsf": (BLUE, SKY),
    "baseline": (RED, RED, RED, ORANGE, GREEN),
    "difference": (PINK, PINK),
    "variant": (RED, GREEN, ORANGE),
    "ablation": (SKY, RED, GREEN, PINK, ORANGE, YELLOW),
}
_ROWS = (
    ("methods", ("none", "vsf", "difference", "baseline")),
    ("variants", ("variant",)),
    ("ablations", ("ablation",)),
)
"""Twenty lines with bands cannot be told apart in one panel, so each group has a row of two, and behind the
methods' one with what it is to be compared with."""


def draw_curves(path: Path, result: dict[str, Any]) -> None:
    """Writes a PNG of `result`; raises OutputError if it cannot."""
    check_drawable()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = list(zip(result["lines"], _styles(result["lines"]), strict=True))
    rows = [(title, chosen) for title, groups in _ROWS if (chosen := _chosen(lines, groups))]
    figure = Figure(figsize=(12.5, 0.5 + 4.6 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(
        f"{result['model']}: {result['pairs']} held-out pairs x {result['seeds']} seeds, "
        f"{result['steps']} steps; bands: 95 % bootstrap over pairs",
        fontsize="medium",
    )
    for two, (title, chosen) in zip(figure.subplots(len(rows), 2, squeeze=False), rows, strict=True):
        for ax, (across, label) in zip(two, _ACROSS.items(), strict=True):
            for line, style in chosen:
                _draw_line(ax, line["points"], across, line["name"], style)
            ax.set(xlim=(0, 1), ylim=(0, 1), xlabel=label, ylabel="part removed (negative)")
            ax.grid(alpha=0.25)
        two[0].axvline(result["kept"], color="0.4", linewidth=0.8, linestyle=":")
        two[1].legend(
            loc="upper left", bbox_to_anchor=(1.02, 1), frameon=False, title=title, alignment="left"
        )
    write_whole(path, lambda part: figure.savefig(part, format="png", dpi=110), "the plot", "--plot")


def _chosen(
    lines: list[tuple[dict[str, Any], Any]], groups: Sequence[str]
) -> list[tuple[dict[str, Any], Any]]:
    """The lines of `groups`, and behind a row without VSF the line of VSF that they belong to."""
    own = [(line, style) for line, style in lines if line["group"] in groups]
    if not own or "vsf" in groups:
        return own
    beside = {line["beside"] for line, _ in own}
    return [(line, style) for line, style in lines if line["name"] in beside] + own


def _styles(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Colour, dash and mark of each line: a group's colours in turn, a new dash and mark with each."""
    seen: dict[str, int] = {}
    styles = []
    for line in lines:
        number = seen[line["group"]] = seen.get(line["group"], -1) + 1
        colours = _COLOURS[line["group"]]
        styles.append(
            {
                "color": colours[number % len(colours)],
                "linestyle": DASHES[number % len(DASHES)],
                "marker": MARKS[number % len(MARKS)],
            }
        )
    return styles


_ACROSS = {"positive": "prompt kept (positive)", "quality": "clean drawings (quality)"}


def _draw_line(
    ax: Any, points: Sequence[dict[str, Any]], across: str, name: str, style: dict[str, Any]
) -> None:
    """One line over its points, and the band that covers both of a point's intervals all along it."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path as Outline

    x, y = (np.array([point[share] for point in points], dtype=float) for share in (across, "negative"))
    ax.plot(x[:, 0], y[:, 0], label=name, markersize=4, linewidth=1.4, **style)
    corners = np.stack([x[:, [1, 2, 2, 1]], y[:, [1, 1, 2, 2]]], -1)  # [n, 4, 2], counter-clockwise
    boxes = [corners[0]] if len(points) == 1 else [_hull(np.concatenate(two)) for two in pairwise(corners)]
    # One path of hulls that turn the same way: where they overlap, nothing gets darker.
    outline = Outline.make_compound_path(*(Outline(np.vstack([box, box[:1]]), closed=True) for box in boxes))
    ax.add_patch(PathPatch(outline, facecolor=style["color"], alpha=0.12, linewidth=0))


def _hull(points: np.ndarray) -> np.ndarray:
    """The convex hull of points `[n, 2]`, counter-clockwise (Andrew's monotone chain)."""
    order = sorted(map(tuple, points))

    def half(ordered: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        chain: list[tuple[float, float]] = []
        for x, y in ordered:
            while len(chain) > 1:
                (ax, ay), (bx, by) = chain[-2:]
                if (bx - ax) * (y - ay) - (by - ay) * (x - ax) > 0:
                    break
                chain.pop()
            chain.append((x, y))
        return chain[:-1]

    return np.array(half(order) + half(order[::-1]))
