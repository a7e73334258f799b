"""The flag --seed, which pictures and videos have in common."""

from __future__ import annotations

from typing import Any

from vsf_lib.seeds import LARGEST_SEED, RANDOM


def add_seed(parser: Any) -> None:
    """Adds it to a parser or a group of one, without a default: `seed_given` fills it in."""
    parser.add_argument(
        "--seed",
        type=int,
        metavar="N",
        help=f"0 to {LARGEST_SEED}, or {RANDOM} for a new one (default: a new one, told and recorded)",
    )


def is_random(seed: int | None, *, repeats: bool) -> bool:
    """Whether that flag asked for a new seed, which must be told; what `repeats` a file keeps its seed."""
    return seed == RANDOM or (seed is None and not repeats)
