"""Where a model's parts are kept, by what fits."""

from __future__ import annotations

import pytest

from vsf_lib.video.loading import choose

GIB = 2**30


@pytest.mark.parametrize(
    ("sizes", "free", "way"),
    [
        ([3, 11, 1], 24, "none"),
        ([3, 11, 1], 16, "model"),
        ([3, 11, 1], 12, "group"),
        ([28, 11, 1], 80, "none"),
        ([28, 11, 1], 40, "model"),
        ([28, 11, 1], 24, "group"),
    ],
)
def test_the_fastest_way_that_fits(sizes, free, way):
    assert choose([size * GIB for size in sizes], free * GIB) == way
