"""What a seed is, for command line, pages and jobs alike: its bounds, and what stands for a new random one.

Knows no front end and no model.
"""

from __future__ import annotations

import math
import secrets
from typing import Any

from vsf_lib.errors import SettingsError

RANDOM = -1
"""The seed that stands for another one each time, as in every WebUI."""
LARGEST_SEED = 2**32 - 1
"""PyTorch's generator on the CPU reads no more bits: a larger seed would repeat a smaller one's picture."""


def new_seed(largest: int = LARGEST_SEED) -> int:
    """A random one."""
    return secrets.randbelow(largest + 1)


def seed_given(value: Any, largest: int = LARGEST_SEED) -> int:
    """The seed that was typed, as a number or as text; a new one for nothing and for `RANDOM`.

    `largest` is less where later pictures count on from it. Raises SettingsError.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return new_seed(largest)
    number = _whole(value)
    if number == RANDOM:
        return new_seed(largest)
    if number is None or not 0 <= number <= largest:
        shown = str(value) if isinstance(value, (int, float)) else repr(value)
        shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
        raise SettingsError(
            f"seed is {shown}, but must be a whole number from 0 to {largest}, or {RANDOM} for a new one "
            "each time"
        )
    return number


def _whole(value: Any) -> int | None:
    """The whole number that `value` is or says, without a float on the way, which would round large ones."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        if not isinstance(value, float):
            return int(value)
    except ValueError:
        pass
    try:
        number = float(value)
    except ValueError:
        return None
    return int(number) if math.isfinite(number) and number.is_integer() else None
