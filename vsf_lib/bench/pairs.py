"""The benchmark's prompts: held-out combinations, each with an essential part of its object as negative."""

from __future__ import annotations

import random
from dataclasses import dataclass

from vsf_lib.scenes.judge import Verdict
from vsf_lib.scenes.world import COLOURS, KINDS, PLACES, is_held_out, noun_phrase

COUNT = 200


@dataclass(frozen=True)
class Pair:
    """A prompt, what must not be in its picture, and what the prompt names."""

    prompt: str
    negative_prompt: str
    kind: str
    colour: str
    place: str
    asked: str | None
    """A part that the prompt asks for by name, beside the one that the negative names; or None."""

    def positive(self, verdict: Verdict) -> bool:
        """Whether all that the prompt names is there: object, colour, place, the part asked for."""
        return (verdict.kind, verdict.colour, verdict.place) == (self.kind, self.colour, self.place) and (
            self.asked is None or self.asked in verdict.parts
        )

    def negative(self, verdict: Verdict) -> bool:
        """Whether the part that the negative prompt names is gone."""
        return self.negative_prompt not in verdict.parts


def make_pairs(count: int = COUNT, *, held_out: bool = True, seed: int = 2026) -> list[Pair]:
    """`count` pairs in a fixed shuffled order; half of them ask for another part by name.

    `held_out` False takes combinations that training has seen: methods are tuned on those.
    """
    pairs = []
    for kind, parts in KINDS.items():
        for colour in COLOURS:
            for place in PLACES:
                if is_held_out(kind, colour, place) != held_out:
                    continue
                text = noun_phrase(kind, colour)
                for part in parts:
                    pairs.append(Pair(f"{text} {PLACES[place]}", part, kind, colour, place, None))
                    for other in parts:
                        if other != part:
                            prompt = f"{text} with {other} {PLACES[place]}"
                            pairs.append(Pair(prompt, part, kind, colour, place, other))
    random.Random(seed).shuffle(pairs)
    return pairs[:count]
