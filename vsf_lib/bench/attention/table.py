"""The results of `bench attention` as text: a block for each shape and batch, a column for each negative.

Knows the JSON only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vsf_lib.bench.attention.shapes import SHAPES

Row = dict[str, Any]

_NAME, _KERNEL, _COLUMN = 14, 13, 28


def table(found: dict[str, Any]) -> str:
    """All of `found`, and below it what the numbers mean."""
    return "\n".join([*_blocks(found["rows"]), *_notes(found)])


def groups(rows: Sequence[Row]) -> dict[tuple[str, int], list[Row]]:
    """The rows of each shape and batch, in their order."""
    found: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        found.setdefault((row["shape"], row["batch"]), []).append(row)
    return found


def lines(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    """The rows of each method and kernel, in their order."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row["method"], row["kernel"]), []).append(row)
    return found


def _blocks(rows: Sequence[Row]) -> list[str]:
    text = []
    for (name, batch), group in groups(rows).items():
        shape, first = SHAPES[name], group[0]
        text.append(
            f"{shape.shown}: {first['heads']} of {first['heads_of_model']} heads x {shape.width}, "
            f"batch {batch}"
        )
        lengths = list(dict.fromkeys(row["negative_tokens"] for row in group))
        heads = (f"{n} negative tokens" for n in lengths)
        text.append(f"{'method':<{_NAME}}{'kernel':<{_KERNEL}}{''.join(f'{h:<{_COLUMN}}' for h in heads)}")
        for (method, kernel), own in lines(group).items():
            cells = {row["negative_tokens"]: _cell(row) for row in own}
            mark = " *" if own[0]["auto"] and method == "vsf" else ""
            columns = "".join(f"{cells.get(n, ''):<{_COLUMN}}" for n in lengths)
            text.append(f"{method:<{_NAME}}{kernel + mark:<{_KERNEL}}{columns}".rstrip())
        if any(row["method"] == "vsf" and "failed" not in row for row in group):
            least = {row["negative_tokens"]: row["floor"] for row in group if row["method"] == "vsf"}
            columns = "".join(f"{least.get(n, 0):<{_COLUMN}.3f}" for n in lengths)
            text.append(f"{'floor of vsf':<{_NAME + _KERNEL}}{columns}".rstrip())
        text.append("")
    return text


def _cell(row: Row) -> str:
    if "failed" in row:
        return "failed (below)"
    extra = "" if row["extra_bytes"] is None else f" {row['extra_bytes'] / 1e6:+.1f} MB"
    return f"{row['ratio']:.3f} [{row['ratio_min']:.2f} {row['ratio_max']:.2f}]{extra}"


def _notes(found: dict[str, Any]) -> list[str]:
    machine, versions, rows = found["machine"], found["versions"], found["rows"]
    threads = f", {machine['threads']} threads" if "threads" in machine else ""
    notes = [
        f"{machine['name']}{threads}, {found['dtype']}; torch {versions['torch']}",
        f"ratios to the unguided attention of the same round: median [least most] of {found['rounds']} "
        "rounds; memory: what the peak has beside the unguided's",
        "the attention alone: what else a layer does with the negative's tokens is not in it",
    ]
    methods = {row["method"] for row in rows}
    if "none" in methods:
        notes.append("none: the unguided call timed once more, so its distance from 1 is noise")
    if "vsf" in methods:
        notes.append(
            "*: the kernel that vsf takes by itself; floor: the multiplications that it cannot do without"
        )
    if "vsf-masked" in methods:
        notes.append(
            "vsf-masked: as published, and kindly: the mask of joint attention is made before the clock "
            "starts, that of cross-attention is one row"
        )
    if methods & {"nag", "nasa"}:
        notes.append("nag, nasa: with a negative padded like the prompt, as published")
    if any(row["heads"] < row["heads_of_model"] for row in rows):
        notes.append("fewer heads than the models have, to end in minutes: --heads all measures them all")
    failed = [row for row in rows if "failed" in row]
    told = dict.fromkeys(
        f"failed: {row['method']} by {row['kernel']} on {row['shape']}: {row['failed']}" for row in failed
    )
    return [*notes, *told]
