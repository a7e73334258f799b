"""The results as text."""

from __future__ import annotations

from typing import Any

from vsf_lib.bench.neggen.asking import QUESTIONS
from vsf_lib.bench.neggen.unread import advice
from vsf_lib.bench.results import shown

_WIDTH = 19


def table(result: dict[str, Any]) -> str:
    """Every method's numbers, each one's difference to the first, and what they were measured with."""
    methods = result["methods"]
    width = max(len("less than the first"), *map(len, methods))
    text = [_row("method", QUESTIONS, width, "values")]
    for name, row in methods.items():
        text.append(_row(name, [_shown(row[question]) for question in QUESTIONS], width, row["values"]))
    first = next(iter(methods))
    against = [row for row in result["differences"] if row["less"] == first]
    if against:
        text += ["", f"less {first}, on the same prompts and seeds"]
        for row in against:
            text.append(_row(row["method"], [_shown(row[question], "+") for question in QUESTIONS], width))
    for name, row in methods.items():
        unread = [f"{count} of {question}" for question, count in row["unread"].items() if count]
        if unread:
            text.append(f"{name}: the judge's answer could not be read for {', '.join(unread)} (left out)")
    if result.get("unread_reply") is not None:
        text.append(advice(result))
    text += ["", *_agreement(result.get("labels"))]
    text.append(
        f"{result['model']}: {result['pairs']} prompts x {result['seeds']} seeds, {result['steps']} steps; "
        f"judge {result['judge_name']}; torch {result['versions']['torch']}, diffusers "
        f"{result['versions']['diffusers']}\nin brackets: {result['bands']}"
    )
    return "\n".join(text)


def _row(name: str, cells: Any, width: int, last: str = "") -> str:
    return "  ".join([f"{name:<{width}}", *(f"{cell:<{_WIDTH}}" for cell in cells), last]).rstrip()


def _shown(values: list[float | None], sign: str = "") -> str:
    return "-" if values[0] is None else shown(values, sign=sign)


def _agreement(labels: dict[str, Any] | None) -> list[str]:
    if labels is None:
        return []
    text = [f"{'the judge against people':<24}  F1     accuracy  labels  unread"]
    for question in QUESTIONS:
        row = labels[question]
        f1, accuracy = ("-" if row[name] is None else f"{row[name]:.3f}" for name in ("f1", "accuracy"))
        text.append(f"{question:<24}  {f1:<5}  {accuracy:<8}  {row['labels']:<6}  {row['unread']}")
    if labels["unknown"]:
        text.append(f"{labels['unknown']} labels are of no picture of this run")
    return [*text, ""]
