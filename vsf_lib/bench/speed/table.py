"""Results as text: a block for each shape and batch, a column for each length of the negative.

Knows the JSON only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]

_NAME, _KERNEL, _COLUMN = 14, 17, 29


def table(found: dict[str, Any]) -> str:
    """All of `found`, and below it what the numbers mean."""
    return "\n".join([*_blocks(found["rows"]), *notes(found)])


def groups(rows: Sequence[Row], by: str = "shape") -> dict[tuple[str, int], list[Row]]:
    """The rows of each shape, or another key, and batch, in their order; without what failed as a whole."""
    found: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        if "part" in row:
            found.setdefault((row[by], row["batch"]), []).append(row)
    return found


def lines(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    """The rows of each method and kernel, in their order."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row["method"], row["kernel"]), []).append(row)
    return found


def floors(rows: Sequence[Row]) -> dict[str, dict[int, float]]:
    """The floors that differ, each under the names of the methods that have it, by the negative's length.

    VSF stands for its masked form and the difference, whose floor is its own.
    """
    of_method: dict[str, dict[int, float]] = {}
    for row in rows:
        if "floor" in row and row["method"] != "none":
            of_method.setdefault(row["method"], {})[row["negative_tokens"]] = row["floor"]
    if "vsf" in of_method:
        of_method = {method: floor for method, floor in of_method.items() if method not in _LIKE_VSF}
    found: dict[str, dict[int, float]] = {}
    for method, floor in of_method.items():
        same = next((names for names, other in found.items() if other == floor), None)
        if same is not None:
            del found[same]
        found[method if same is None else f"{same}, {method}"] = floor
    return found


def _blocks(rows: Sequence[Row]) -> list[str]:
    text = []
    for (_, batch), group in groups(rows).items():
        first = group[0]
        text.append(f"{first['shown']}: {first['part']}, batch {batch}")
        lengths = list(dict.fromkeys(row["negative_tokens"] for row in group))
        heads = (f"{n} negative tokens" for n in lengths)
        text.append(f"{'method':<{_NAME}}{'kernel':<{_KERNEL}}{''.join(f'{h:<{_COLUMN}}' for h in heads)}")
        for (method, kernel), own in lines(group).items():
            cells = {row["negative_tokens"]: cell(row) for row in own}
            mark = " *" if own[0]["auto"] and method == "vsf" else ""
            columns = "".join(f"{cells.get(n, ''):<{_COLUMN}}" for n in lengths)
            text.append(f"{method:<{_NAME}}{kernel + mark:<{_KERNEL}}{columns}".rstrip())
        for names, floor in floors(group).items():
            shown = (f"{floor[n]:.4f}" if n in floor else "" for n in lengths)
            columns = "".join(f"{value:<{_COLUMN}}" for value in shown)
            text.append(f"{f'floor of {names}':<{_NAME + _KERNEL}}{columns}".rstrip())
        text.append("")
    return text


def cell(row: Row) -> str:
    """A ratio, its band and what it takes more."""
    if "failed" in row:
        return "failed (below)"
    extra = "" if row["extra_bytes"] is None else f" {row['extra_bytes'] / 1e6:+.1f} MB"
    if "extra_share" in row:
        extra += f" {row['extra_share']:+.2%}"
    return f"{row['ratio']:.3f} [{row['ratio_min']:.2f} {row['ratio_max']:.2f}]{extra}"


_LIKE_VSF = ("vsf-masked", "difference")
_SUBJECTS = {
    "attention": "the unguided attention",
    "model": "the unguided step",
}
_FEWER = {
    "attention": "fewer heads than the models have, to end in minutes: --heads all measures them all",
    "model": "fewer blocks than the models have, to end in minutes: --blocks all measures them all; what "
    "lies outside of the blocks weighs more here",
}


def notes(found: dict[str, Any]) -> list[str]:
    """What was measured on, and what the numbers mean."""
    machine, versions, rows = found["machine"], found["versions"], found["rows"]
    study = found["study"].removesuffix("-scaling")
    threads = f", {machine['threads']} threads" if "threads" in machine else ""
    others = "".join(f", {name} {versions[name]}" for name in ("diffusers",) if name in versions)
    told = [
        f"{machine['name']}{threads}, {found['dtype']}; torch {versions['torch']}{others}",
        f"ratios to {_SUBJECTS[study]} of the same round: median [least most] of {rounds(rows)}; "
        "memory: what the peak has beside the unguided's",
    ]
    if study == "attention":
        told.append("the attention alone: what else a layer does with the negative's tokens is not in it")
    else:
        told.append("whole steps with random weights; the negative's text is encoded before")
    methods = {row["method"] for row in rows}
    if "none" in methods:
        told.append("none: the unguided one timed once more, so its distance from 1 is noise")
    if "vsf" in methods:
        told.append(
            "*: the kernel that vsf takes by itself; floor: the multiplications that it cannot do without, "
            "in every form of it and for the difference, and those of the others as published"
        )
    if "vsf-masked" in methods:
        told.append(
            "vsf-masked: as published, and kindly: the mask of joint attention is made once, before the "
            "clock starts, that of cross-attention is one row"
        )
    if methods & {"nag", "nasa"}:
        told.append("nag, nasa: as published, with a negative padded like the prompt")
    if any(not row.get("whole", True) for row in rows):
        told.append(_FEWER[study])
    failed = [row for row in rows if "failed" in row]
    return told + list(
        dict.fromkeys(
            f"failed: {row['method']} by {row['kernel']} on {row['shape']}: {row['failed']}" for row in failed
        )
    )


def rounds(rows: Sequence[Row]) -> str:
    """How many rounds there were."""
    counts = sorted({row["rounds"] for row in rows if "rounds" in row})
    if not counts:
        return "no rounds"
    return f"{counts[0]} rounds" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} rounds"
