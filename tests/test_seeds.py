"""A seed means the same wherever it is typed."""

from __future__ import annotations

import math
import random
import subprocess
import sys

import pytest

from vsf_lib.errors import SettingsError
from vsf_lib.seeds import LARGEST_SEED, RANDOM, new_seed, seed_given


def test_whole_numbers_are_taken_as_typed() -> None:
    for seed in (0, 7, LARGEST_SEED, *(random.randrange(2**32) for _ in range(50))):
        for typed in (seed, float(seed), str(seed), f" {seed} ", f"{seed}.0"):
            assert seed_given(typed) == seed
            assert type(seed_given(typed)) is int


@pytest.mark.parametrize("typed", [None, "", "  ", RANDOM, -1.0, "-1", "-1.0"])
def test_nothing_and_minus_one_are_a_new_seed_each_time(typed: object) -> None:
    seeds = {seed_given(typed) for _ in range(8)}
    assert len(seeds) > 1
    assert all(0 <= seed <= LARGEST_SEED for seed in seeds)


@pytest.mark.parametrize(
    "typed",
    [-2, "-2", LARGEST_SEED + 1, 2**80, 1e300, 1.5, "1.5", True, False, math.nan, math.inf, "nan", "inf", "x",
     [7], {}, b"7", -0.5, "9" * 6000],
)  # fmt: skip
def test_everything_else_is_refused_with_value_bounds_and_remedy(typed: object) -> None:
    with pytest.raises(SettingsError) as refusal:
        seed_given(typed)
    said = str(refusal.value)
    assert said.startswith(f"seed is {typed!r}"[:40])
    assert said.endswith(f"a whole number from 0 to {LARGEST_SEED}, or -1 for a new one each time")
    assert len(said) < 200


def test_a_smaller_bound_holds_for_typed_and_for_new_ones() -> None:
    assert {new_seed(1) for _ in range(64)} == {0, 1}
    assert {seed_given(RANDOM, 1) for _ in range(64)} == {0, 1}
    with pytest.raises(SettingsError, match="seed is 2, but must be a whole number from 0 to 1, or"):
        seed_given(2, 1)


def test_it_imports_no_torch_and_no_front_end() -> None:
    code = (
        "import sys, vsf_lib.seeds; "
        "print([n for n in sys.modules if n.split('.')[0] == 'torch' or n.startswith(('vsf_lib.images', "
        "'vsf_lib.video', 'vsf_lib.studio'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
