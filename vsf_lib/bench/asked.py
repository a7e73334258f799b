"""What `--questions` asks: each question's arms, lines over alpha of which the first is what is there now.

Owns the questions only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from vsf_lib.bench import forms
from vsf_lib.bench.lines import DIFFERENCE, TOKENS, vsf_line
from vsf_lib.bench.tracing import Line
from vsf_lib.bench.weights import token_factors, weighted_embeddings
from vsf_lib.settings import Settings

WEIGHT = 1.5


@dataclass(frozen=True)
class Question:
    """Arms to compare at equal removal; the others are set against the first."""

    title: str
    arms: tuple[Line, ...]


def questions_for(
    pipe: Any, like: Settings, negative_prompts: Sequence[str], *, two_kinds: bool
) -> list[Question]:
    """The questions for one model; `like` are its own settings, of which each arm keeps the rest."""
    return [
        *([_blocks(like), _embedding(like)] if two_kinds else []),
        Question(
            "how large beta should be",
            tuple(_arm(f"beta {beta:g}", like, beta=beta) for beta in (0.0, 0.25, 0.5, 1.0, 2.0)),
        ),
        Question(
            "which steps to guide",
            tuple(
                _arm(f"steps {start:g} to {end:g}", like, start=start, end=end)
                for start, end in ((0.0, 1.0), (0.0, 0.5), (0.25, 1.0), (0.5, 1.0))
            ),
        ),
        Question(
            f"which formula (all at beta {like.beta:g}, {TOKENS[like.negative_tokens]})",
            (
                _arm("vsf", like),
                vsf_line(DIFFERENCE, DIFFERENCE, like.changed(method=DIFFERENCE)),
                *(vsf_line(form.name, "variant", like, form) for form in forms.VARIANTS),
            ),
        ),
        *(_weights(pipe, like.changed(negative_tokens=tokens), negative_prompts) for tokens in TOKENS),
    ]


def _arm(name: str, like: Settings, **values: Any) -> Line:
    return vsf_line(name, "vsf", like.changed(**values))


def _blocks(like: Settings) -> Question:
    return Question(
        "which kinds of block to guide, each at its own best alpha",
        (_arm("both kinds", like, blocks="both"), _arm("double only", like, blocks="double")),
    )


def _embedding(like: Settings) -> Question:
    return Question(
        "how far to move the embeddings, with either choice of blocks",
        tuple(
            _arm(
                f"lambda {scale:g}, pooled shift {shift:g}, {blocks}",
                like,
                negative_scale=scale,
                pooled_shift=shift,
                blocks=blocks,
            )
            for blocks in ("both", "double")
            for scale in (0.0, 2.0, 8.0)
            for shift in (0.0, 0.1)
        ),
    )


def _weights(pipe: Any, like: Settings, negative_prompts: Sequence[str]) -> Question:
    """Without eq. 10, which would move what has been weighted."""
    like = like.changed(negative_scale=0.0, pooled_shift=0.0)
    factors = token_factors(pipe, like, negative_prompts, WEIGHT)
    on_alpha = forms.weighted(f"x{WEIGHT:g} on alpha", factors)
    return Question(
        f"what a word's weight of {WEIGHT:g} should multiply ({TOKENS[like.negative_tokens]})",
        (
            _arm("no weight", like),
            vsf_line(on_alpha.name, "weight", like, on_alpha),
            *(
                _encoded(
                    f"x{WEIGHT:g} on the embedding{', its mean restored' if renormalised else ''}",
                    like,
                    renormalised,
                )
                for renormalised in (False, True)
            ),
        ),
    )


def _encoded(name: str, like: Settings, renormalised: bool) -> Line:
    encode = partial(weighted_embeddings, weight=WEIGHT, renormalised=renormalised)
    line = vsf_line(name, "weight", like)
    return replace(line, method=lambda alpha: replace(line.method(alpha), encode=encode))
