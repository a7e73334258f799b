"""Where a model's parts are kept, by what fits."""

from __future__ import annotations

import pytest

from vsf_lib.video.loading import choose

GIB = 2**30


@pytest.mark.parametrize(
    ("sizes", "free", "way"),
    [
        ([3, 1], 12, "none"),
        ([3, 1], 8, "model"),
        ([3, 1], 6, "group"),
        ([28, 1], 80, "none"),
        ([28, 1], 33, "model"),
        ([28, 1], 24, "group"),
    ],
)
def test_the_fastest_way_that_fits(sizes, free, way):
    assert choose([size * GIB for size in sizes], free * GIB) == way
