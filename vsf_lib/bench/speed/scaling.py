"""Results of a scaling as text: a line for each size and length of the negative, a column for each method.

Owns that table and its order. Knows the JSON only.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from vsf_lib.bench.speed.table import Row, cell, groups, lines, notes

_SIZE, _NUMBER, _FLOOR, _COLUMN = 19, 9, 14, 29


class Series(NamedTuple):
    """The rows of one method and kernel as the size grows, and as the negative does."""

    sizes: list[Row]
    lengths: list[Row]


def series(rows: Sequence[Row]) -> Series:
    """Of one network's rows by one method; the negative grows at the size that has most lengths."""
    rows = [row for row in rows if "failed" not in row]
    of_size: dict[int, list[Row]] = {}
    of_length: dict[int, list[Row]] = {}
    for row in rows:
        of_size.setdefault(row["image_tokens"], []).append(row)
        of_length.setdefault(row["negative_tokens"], []).append(row)
    most = max(of_size.values(), key=len, default=[])
    widest = max(of_length.values(), key=len, default=[])
    return Series(
        sorted(widest, key=lambda row: row["image_tokens"]),
        sorted(most, key=lambda row: row["negative_tokens"]),
    )


def scaling_table(found: dict[str, Any]) -> str:
    """All of `found`, and below it what the numbers mean."""
    text = []
    for (_, batch), group in groups(found["rows"], "family").items():
        methods = lines(group)
        name = group[0]["shown"].partition(",")[0]
        text.append(f"{name}: {group[0]['part']}, batch {batch}")
        text.append(_line("size", "tokens", "negative", "floor of vsf", [method for method, _ in methods]))
        for image, n in sorted({(row["image_tokens"], row["negative_tokens"]) for row in group}):
            here = [row for row in group if (row["image_tokens"], row["negative_tokens"]) == (image, n)]
            floor = next((row["floor"] for row in here if row["method"] == "vsf" and "floor" in row), None)
            of_method = {(row["method"], row["kernel"]): cell(row) for row in here}
            text.append(
                _line(
                    here[0]["shown"].partition(", ")[2],
                    image,
                    n,
                    "" if floor is None else f"{floor:.4f}",
                    [of_method.get(method, "") for method in methods],
                )
            )
        for (method, _), rows in methods.items():
            if method != "none":
                text += _trend(method, series(rows).sizes)
        text.append("")
    return "\n".join([*text, *notes(found)])


def _line(size: str, image: int | str, negative: int | str, floor: str, columns: Sequence[str]) -> str:
    start = f"{size:<{_SIZE}}{image:>{_NUMBER}}{negative:>{_NUMBER}}{floor:>{_FLOOR}}  "
    return (start + "".join(f"{column:<{_COLUMN}}" for column in columns)).rstrip()


def _trend(method: str, sizes: Sequence[Row]) -> list[str]:
    """Whether the ratio falls from each size to the next."""
    if len(sizes) < 2:
        return []
    ratios = [row["ratio"] for row in sizes]
    falls = all(after < before for before, after in pairwise(ratios))
    shown = ", ".join(f"{ratio:.3f}" for ratio in ratios)
    return [f"{method} as the size grows: {shown}{': falls' if falls else ': does not fall throughout'}"]
