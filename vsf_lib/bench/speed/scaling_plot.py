"""Draws a scaling: time against the size, and against the length of the negative, with VSF's floor.

Owns the picture. Knows the JSON only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vsf_lib.bench.palette import DASHES, MARKS, check_drawable
from vsf_lib.bench.results import write_whole
from vsf_lib.bench.speed.plot import COLOURS
from vsf_lib.bench.speed.scaling import series
from vsf_lib.bench.speed.table import Row, groups, lines, rounds


def draw(path: Path, found: dict[str, Any]) -> None:
    """Writes a PNG of `found`; raises OutputError if it cannot."""
    check_drawable()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = groups([row for row in found["rows"] if "failed" not in row], "family")
    figure = Figure(figsize=(12.5, 0.6 + 3.6 * max(len(panels), 1)), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(
        f"{found['machine']['name']}, {found['dtype']}, torch {found['versions']['torch']}: medians of "
        f"{rounds(found['rows'])} in turn, bars from the least to the most",
        fontsize="medium",
    )
    axes = figure.subplots(max(len(panels), 1), 3, squeeze=False)
    for (seconds, ratio, lengths), ((_, batch), rows) in zip(axes, panels.items(), strict=False):
        name = rows[0]["shown"].partition(",")[0]
        seconds.set_title(f"{name}: {rows[0]['part']}, batch {batch}", fontsize="medium", loc="left")
        _draw_panel(seconds, ratio, lengths, rows)
    write_whole(path, lambda part: figure.savefig(part, format="png", dpi=110), "the plot", "--plot")


def _draw_panel(seconds: Any, ratio: Any, lengths: Any, rows: Sequence[Row]) -> None:
    for number, ((method, _), own) in enumerate(lines(rows).items()):
        style = {
            "color": COLOURS[method],
            "linestyle": DASHES[number % len(DASHES)],
            "marker": MARKS[number % len(MARKS)],
            "markersize": 4,
            "linewidth": 1.2,
        }
        sizes, negatives = series(own)
        seconds.plot(
            [row["image_tokens"] for row in sizes], [row["seconds"] for row in sizes], label=method, **style
        )
        _bars(ratio, "image_tokens", sizes, style)
        _bars(lengths, "negative_tokens", negatives, style)
        if method == "vsf":
            for ax, key, found in ((ratio, "image_tokens", sizes), (lengths, "negative_tokens", negatives)):
                at, floor = [row[key] for row in found], [row["floor"] for row in found]
                ax.plot(at, floor, color="0.4", linewidth=1, linestyle=":", label="floor of vsf")
    seconds.set(xscale="log", yscale="log", ylabel="seconds", xlabel="image tokens")
    ratio.set(xscale="log", ylabel="time / unguided", xlabel="image tokens")
    lengths.set(ylabel="time / unguided", xlabel="tokens of the negative prompt")
    for ax, key in ((seconds, "image_tokens"), (ratio, "image_tokens"), (lengths, "negative_tokens")):
        at = sorted({row[key] for row in rows})
        ax.set_xticks(at, [str(number) for number in at])
        ax.minorticks_off()
        ax.grid(alpha=0.25)
    seconds.legend(fontsize="x-small", frameon=False)
    ratio.legend(fontsize="x-small", frameon=False)


def _bars(ax: Any, key: str, rows: Sequence[Row], style: dict[str, Any]) -> None:
    at, middle = [row[key] for row in rows], [row["ratio"] for row in rows]
    bars = [
        [row["ratio"] - row["ratio_min"] for row in rows],
        [row["ratio_max"] - row["ratio"] for row in rows],
    ]
    ax.errorbar(at, middle, bars, elinewidth=0.8, capsize=2, **style)
