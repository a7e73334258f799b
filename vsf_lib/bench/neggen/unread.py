"""What is told of answers that could not be read: one of them, and what to do about it. Knows no judge."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vsf_lib.bench.neggen.asking import QUESTIONS, Answer
from vsf_lib.errors import ModelError

_LONGEST = 160
"""Signs of a reply that are shown."""
_REMEDIES = {
    "endpoint": "check that --judge is the address of an OpenAI-compatible endpoint and that --judge-model "
    "reads pictures; then",
}


def example(answers: Iterable[Answer | None]) -> str | None:
    """The last words of the first answer that could not be read in full, in one short line."""
    for answer in answers:
        if answer is not None and None in answer.values:
            line = " ".join(answer.replies[-1].split()) if answer.replies else ""
            return line if len(line) <= _LONGEST else line[: _LONGEST - 3] + "..."
    return None


def advice(result: dict[str, Any]) -> str:
    """That answer, and the remedy."""
    remedy = _REMEDIES.get(result["judge"]["kind"], "choose another --judge, or")
    said = result["unread_reply"]
    told = f"one such answer is {said!r}" if said else "one such answer is empty"
    return f"{told}: {remedy} ask anew by the same command with --ask-again"


def check_read(result: dict[str, Any]) -> None:
    """Raises ModelError if nothing that the judge said on one of the questions could be read."""
    lost = [question for question in QUESTIONS if all(row[question] is None for row in result["pictures"])]
    if lost:
        raise ModelError(f"no answer of the judge could be read for {', '.join(lost)}; {advice(result)}")
