"""Draws results: time and memory over the length of the negative prompt.

Owns the picture. Knows the JSON only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
from vsf_lib.bench.speed.table import Row, groups, lines, rounds

COLOURS = {
    "none": BLACK,
    "vsf": BLUE,
    "vsf-masked": SKY,
    "difference": PINK,
    "nag": RED,
    "nasa": ORANGE,
    "cfg": GREEN,
    "nag-unpadded": RED,
    "nasa-unpadded": YELLOW,
}


Styles = dict[tuple[str, str], dict[str, Any]]


def draw(path: Path, found: dict[str, Any]) -> None:
    """Writes a PNG of `found`; raises OutputError if it cannot."""
    check_drawable()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    measured = [row for row in found["rows"] if "failed" not in row]
    styles, panels = _styles(measured), groups(measured)
    figure = Figure(figsize=(12.5, 0.6 + 3.6 * max(len(panels), 1)), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(
        f"{found['machine']['name']}, {found['dtype']}, torch {found['versions']['torch']}: medians of "
        f"{rounds(found['rows'])} in turn, bars from the least to the most",
        fontsize="medium",
    )
    axes = figure.subplots(max(len(panels), 1), 2, squeeze=False)
    for (ratio, memory), ((_, batch), rows) in zip(axes, panels.items(), strict=False):
        title = f"{rows[0]['shown']}: {rows[0]['part']}, batch {batch}"
        ratio.set_title(title, fontsize="medium", loc="left")
        _draw_panel(ratio, memory, rows, styles)
    write_whole(path, lambda part: figure.savefig(part, format="png", dpi=110), "the plot", "--plot")


def _styles(rows: Sequence[Row]) -> Styles:
    """Colour, dash and mark of each method and kernel, the same in every panel."""
    return {
        (method, kernel): {
            "color": COLOURS[method],
            "linestyle": DASHES[number % len(DASHES)],
            "marker": MARKS[number % len(MARKS)],
        }
        for number, (method, kernel) in enumerate(lines(rows))
    }


def _draw_panel(ratio: Any, memory: Any, rows: Sequence[Row], styles: Styles) -> None:
    lengths = sorted({row["negative_tokens"] for row in rows})
    found = lines(rows)
    memory.set_yscale("symlog", linthresh=1)  # first: it decides where the points' margins are
    for number, ((method, kernel), own) in enumerate(found.items()):
        style = styles[method, kernel]
        # A little apart, or bars would hide each other.
        apart = (number - (len(found) - 1) / 2) * 0.05
        x = [lengths.index(row["negative_tokens"]) + apart for row in own]
        y = [row["ratio"] for row in own]
        bars = [
            [row["ratio"] - row["ratio_min"] for row in own],
            [row["ratio_max"] - row["ratio"] for row in own],
        ]
        label = method if kernel in ("sdpa", "masked") else f"{method} ({kernel})"
        ratio.errorbar(
            x, y, bars, label=label, markersize=4, linewidth=1.2, elinewidth=0.8, capsize=2, **style
        )
        known = [
            (at, row["extra_bytes"] / 1e6)
            for at, row in zip(x, own, strict=True)
            if row["extra_bytes"] is not None
        ]
        if known:
            memory.plot(*zip(*known, strict=True), markersize=4, linewidth=1.2, **style)
    least = {row["negative_tokens"]: row["floor"] for row in rows if row["method"] == "vsf"}
    if least:
        x = [lengths.index(n) for n in least]
        ratio.plot(x, list(least.values()), color="0.4", linewidth=1, linestyle=":", label="floor of vsf")
    ratio.set_ylabel("time / unguided")
    memory.set_ylabel("MB beside the unguided's peak")
    for ax in (ratio, memory):
        ax.set_xticks(range(len(lengths)), [str(n) for n in lengths])
        ax.set_xlabel("tokens of the negative prompt")
        ax.grid(alpha=0.25)

    # The figure's own legend would not say which panel has which kernels.
    ratio.legend(fontsize="x-small", frameon=False, ncols=2, loc="best")
